"""Planners and controllers on any `sindyrl.protocols.Dynamics`. Imported as ``sindyrl.controllers``."""

if __name__ != "sindyrl.controllers":
    # Under a second name every class would exist twice, and isinstance would fail between the two.
    raise ImportError(f"This package was imported as {__name__!r}. Import `sindyrl.controllers` instead.")

from sindyrl.controllers.receding import RecedingHorizon as RecedingHorizon
from sindyrl.controllers.sampling import CrossEntropyPlanner as CrossEntropyPlanner
