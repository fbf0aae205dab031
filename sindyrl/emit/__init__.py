"""Expressions as text: ``text`` for people, ``latex`` for papers, ``c`` for machines."""
