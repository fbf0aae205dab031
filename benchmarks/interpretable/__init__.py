"""Laws that can be read, and what they are held against: the parts of `sindyrl bench records`.

recipes.py    how a law for each task is learned, and the laws and scores of others for it
laws.py       a law as it plays, its size, and the published ones as closed forms
learning.py   a law from real steps: equations, search, refinement, trials
agents.py     Stable-Baselines3's agents on the same tasks, trained here
"""
