"""From a little data to equations of motion, a readable controller, and C.

This file is the table of contents. Each name is loaded on first use, so ``import sindyrl`` is light.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sindyrl import controllers as controllers
    from sindyrl import envs as envs
    from sindyrl import export as export
    from sindyrl import expression as expression
    from sindyrl.collect import InteractionMeter as InteractionMeter
    from sindyrl.collect import collect as collect
    from sindyrl.collect import evaluate as evaluate
    from sindyrl.collect import random_policy as random_policy
    from sindyrl.composed_policy import BangBang as BangBang
    from sindyrl.composed_policy import SwitchAfter as SwitchAfter
    from sindyrl.distill import DistillSettings as DistillSettings
    from sindyrl.distill import distill as distill
    from sindyrl.dmdc import dmdc as dmdc
    from sindyrl.envs.surrogate import Surrogate as Surrogate
    from sindyrl.envs.surrogate_env import SurrogateEnv as SurrogateEnv
    from sindyrl.envs.surrogate_vector import SurrogateVectorEnv as SurrogateVectorEnv
    from sindyrl.excitation import play as play
    from sindyrl.excitation import prbs as prbs
    from sindyrl.excitation import random_steps as random_steps
    from sindyrl.excitation import schroeder_multisine as schroeder_multisine
    from sindyrl.identify import identify as identify
    from sindyrl.input_design import ActiveExcitation as ActiveExcitation
    from sindyrl.input_design import next_input as next_input
    from sindyrl.learn.bptt import BPTT as BPTT
    from sindyrl.learn.dyna import DynaSettings as DynaSettings
    from sindyrl.learn.dyna import dyna as dyna
    from sindyrl.learn.policy_search import search_policy as search_policy
    from sindyrl.learn.population import PopulationSettings as PopulationSettings
    from sindyrl.learn.population import train_population as train_population
    from sindyrl.learn.ppo import PPOSettings as PPOSettings
    from sindyrl.library import Library as Library
    from sindyrl.library import LibrarySpec as LibrarySpec
    from sindyrl.library import affine_library as affine_library
    from sindyrl.library import custom_library as custom_library
    from sindyrl.library import identity_library as identity_library
    from sindyrl.library import polynomial_library as polynomial_library
    from sindyrl.library import trigonometric_library as trigonometric_library
    from sindyrl.model import Model as Model
    from sindyrl.online import OnlineIdentifier as OnlineIdentifier
    from sindyrl.parameters import measured_inputs as measured_inputs
    from sindyrl.planar_body import PlanarBody as PlanarBody
    from sindyrl.pysindy_bridge import from_pysindy as from_pysindy
    from sindyrl.rational import identify_rational as identify_rational
    from sindyrl.regression import STLSQ as STLSQ
    from sindyrl.regression import BestSubset as BestSubset
    from sindyrl.regression import ConstrainedSTLSQ as ConstrainedSTLSQ
    from sindyrl.regression import Constraints as Constraints
    from sindyrl.regression import Ensemble as Ensemble
    from sindyrl.regression import ImplicitSubset as ImplicitSubset
    from sindyrl.regression import SubsetSelection as SubsetSelection
    from sindyrl.regression import weak_form as weak_form
    from sindyrl.reward_model import fit_reward as fit_reward
    from sindyrl.sb3_policy import Predictor as Predictor
    from sindyrl.sb3_policy import from_sb3 as from_sb3
    from sindyrl.seeding import check_seeds as check_seeds
    from sindyrl.simulate import simulate as simulate
    from sindyrl.sparse_map import SparseMap as SparseMap
    from sindyrl.stops_at_wall import StopsAtWall as StopsAtWall
    from sindyrl.structure import Derivative as Derivative
    from sindyrl.structure import Increment as Increment
    from sindyrl.structure import NextState as NextState
    from sindyrl.structure import OnCircles as OnCircles
    from sindyrl.structure import SecondOrder as SecondOrder
    from sindyrl.symbolic_map import Signal as Signal
    from sindyrl.symbolic_map import SymbolicMap as SymbolicMap
    from sindyrl.task import Task as Task
    from sindyrl.trajectory import Dataset as Dataset
    from sindyrl.trajectory import Trajectory as Trajectory
    from sindyrl.units import check_units as check_units

__version__ = "0.1.0"

_MODULE_OF = {
    # closed forms
    "Signal": "symbolic_map",
    "SymbolicMap": "symbolic_map",
    "SparseMap": "sparse_map",
    # data
    "Dataset": "trajectory",
    "Trajectory": "trajectory",
    "InteractionMeter": "collect",
    "collect": "collect",
    "evaluate": "collect",
    "random_policy": "collect",
    "check_seeds": "seeding",
    "measured_inputs": "parameters",
    # excitation
    "ActiveExcitation": "input_design",
    "next_input": "input_design",
    "BangBang": "composed_policy",
    "SwitchAfter": "composed_policy",
    "play": "excitation",
    "prbs": "excitation",
    "random_steps": "excitation",
    "schroeder_multisine": "excitation",
    # candidate terms
    "Library": "library",
    "LibrarySpec": "library",
    "affine_library": "library",
    "custom_library": "library",
    "identity_library": "library",
    "polynomial_library": "library",
    "trigonometric_library": "library",
    "check_units": "units",
    # regression and models
    "BestSubset": "regression",
    "ConstrainedSTLSQ": "regression",
    "Constraints": "regression",
    "Ensemble": "regression",
    "ImplicitSubset": "regression",
    "STLSQ": "regression",
    "SubsetSelection": "regression",
    "weak_form": "regression",
    "Derivative": "structure",
    "Increment": "structure",
    "NextState": "structure",
    "SecondOrder": "structure",
    "Model": "model",
    "Task": "task",
    "OnlineIdentifier": "online",
    "dmdc": "dmdc",
    "from_pysindy": "pysindy_bridge",
    "identify": "identify",
    "identify_rational": "rational",
    "simulate": "simulate",
    "OnCircles": "structure",
    "PlanarBody": "planar_body",
    "StopsAtWall": "stops_at_wall",
    "fit_reward": "reward_model",
    # controllers
    "BPTT": "learn.bptt",
    "DynaSettings": "learn.dyna",
    "PPOSettings": "learn.ppo",
    "PopulationSettings": "learn.population",
    "Surrogate": "envs.surrogate",
    "SurrogateEnv": "envs.surrogate_env",
    "SurrogateVectorEnv": "envs.surrogate_vector",
    "dyna": "learn.dyna",
    "search_policy": "learn.policy_search",
    "train_population": "learn.population",
    # sparse policies from teachers
    "DistillSettings": "distill",
    "Predictor": "sb3_policy",
    "distill": "distill",
    "from_sb3": "sb3_policy",
}
_SUBMODULES = ("controllers", "envs", "export", "expression")

__all__ = ["__version__", *_MODULE_OF, *_SUBMODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps ``sindyrl.identify`` the function although ``sindyrl/identify.py`` is a module.

    The import system binds every loaded submodule in its package, which would replace a function of the same name as
    soon as anybody imports that module. ``from sindyrl.identify import ...`` is unaffected.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in _MODULE_OF:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
