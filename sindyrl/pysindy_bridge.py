"""Both directions between this library and pysindy (2.1 or later).

* `from_pysindy` turns a fitted pysindy model into a `SparseMap`: closed form, files, C.
* `PySINDyOptimizer` lets any regressor of ours, or of scikit-learn's form, fit a ``pysindy.SINDy``.
* `PySINDyRegressor` lets any pysindy optimizer (SR3, FROLS, SSR, ...) fit wherever a regressor of ours can.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from pysindy import DiscreteSINDy, feature_library
from pysindy import optimizers as pysindy_optimizers
from pysindy.optimizers.base import BaseOptimizer
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from sindyrl import expression
from sindyrl.expression import Constant, Node, Power, Variable
from sindyrl.library import Library
from sindyrl.sparse_map import SparseMap

__all__ = ["PySINDyOptimizer", "PySINDyRegressor", "from_pysindy"]

_SUPPORTED = (
    "PolynomialLibrary, IdentityLibrary, FourierLibrary, CustomLibrary, and their sums, products and generalized"
)
_PROBES = 64


def from_pysindy(model: Any, *, names: Sequence[str] | None = None, members: bool = False) -> SparseMap:
    """The closed form of a fitted ``pysindy.SINDy`` or ``pysindy.DiscreteSINDy``.

    model : fitted; its library of polynomial, Fourier, identity or custom terms, or sums (``+``), products (``*``) and
        generalized libraries of these.  A custom function is traced: it may use arithmetic and the NumPy functions
        that the closed-form language has.
    names : states, then inputs, in place of the model's ``feature_names``
    members : keep the members of pysindy's ``EnsembleOptimizer``; otherwise its aggregated coefficients

    The targets are ``d<state>``, or ``<state>_next`` in discrete time.  Terms that pysindy holds twice are merged.

    Raises TypeError for a library that has no closed form, ValueError if a name is not an identifier or the closed form
    does not reproduce pysindy's columns, scikit-learn's NotFittedError if the model is not fitted.
    """
    if not hasattr(model, "feature_library") or not hasattr(model, "optimizer"):
        raise TypeError(f"`from_pysindy(model=...)` must be a fitted pysindy model. Got {type(model).__name__}.")
    check_is_fitted(model.optimizer, "coef_")
    found = tuple(names) if names is not None else tuple(model.feature_names)
    n_inputs = int(model.n_control_features_)
    if len(found) != model.feature_library.n_features_in_:
        raise ValueError(
            f"`from_pysindy(names=...)` must name {model.feature_library.n_features_in_} states and inputs. "
            f"Got {len(found)}."
        )
    states, inputs = found[: len(found) - n_inputs], found[len(found) - n_inputs :]
    coef = np.asarray(model.optimizer.coef_, dtype=np.float64)
    if len(coef) != len(states):
        raise TypeError(
            f"`from_pysindy(model=...)` must have one equation for each of the {len(states)} states. Got {len(coef)} "
            f"from {type(model.optimizer).__name__}; implicit models are not a map of the state."
        )
    atoms = [Variable(expression.check_name("from_pysindy(names=...)", name)) for name in found]
    terms = _terms(model.feature_library, atoms)
    if members:
        if not getattr(model.optimizer, "coef_list", None):
            raise ValueError("`from_pysindy(members=True)` needs a model fitted by pysindy's `EnsembleOptimizer`.")
        coef = np.array(model.optimizer.coef_list, dtype=np.float64)
    distinct = tuple(dict.fromkeys(terms))
    merged = np.zeros((*coef.shape[:-1], len(distinct)))
    for column, term in enumerate(terms):
        merged[..., distinct.index(term)] += coef[..., column]
    library = Library(states, inputs, distinct)
    _check_columns(model.feature_library, library, [distinct.index(term) for term in terms])
    form = "{}_next" if isinstance(model, DiscreteSINDy) else "d{}"
    return SparseMap(library, merged, tuple(form.format(name) for name in states))


def _check_columns(original: Any, library: Library, columns: list[int]) -> None:
    """pysindy's own evaluation is the reference: every column must agree at random points."""
    points = np.random.default_rng(0).normal(size=(_PROBES, len(library.variables)))
    with np.errstate(all="ignore"):
        expected = np.asarray(original.transform(points))
        ours = library.features(points)[:, columns]
    wrong = ~np.isclose(ours, expected, rtol=1e-9, atol=1e-12, equal_nan=True).all(axis=0)
    if wrong.any():
        name = library.names[columns[int(np.flatnonzero(wrong)[0])]]
        raise ValueError(
            f"The closed form of pysindy's column {int(np.flatnonzero(wrong)[0])}, {name}, does not agree."
        )


# ---- pysindy's libraries as closed-form terms -------------------------------------------------


def _terms(library: Any, atoms: Sequence[Node]) -> list[Node]:
    """One node for each column of a fitted pysindy library, in its order."""
    # Exact classes: a subclass (parameterized, PDE, implicit) evaluates something else.
    kind = type(library)
    if kind is feature_library.PolynomialLibrary:
        return [_monomial(powers, atoms) for powers in library.powers_]
    if kind is feature_library.FourierLibrary:
        return _harmonics(library, atoms)
    if kind is feature_library.CustomLibrary:
        return _custom(library, atoms)
    if kind is feature_library.ConcatLibrary:
        return [term for part in library.libraries for term in _terms(part, atoms)]
    if kind is feature_library.TensoredLibrary:
        return _products(library, atoms)
    if kind is feature_library.GeneralizedLibrary:
        return _generalized(library, atoms)
    raise TypeError(
        f"`from_pysindy(model=...)` has a {kind.__name__}, which has no closed form here. Use {_SUPPORTED}."
    )


def _monomial(powers: np.ndarray, atoms: Sequence[Node]) -> Node:
    product: Node | None = None
    for atom, power in zip(atoms, powers.tolist(), strict=True):
        if power:
            factor = atom if power == 1 else Power(atom, power)
            product = factor if product is None else product * factor
    return Constant(1.0) if product is None else product


def _harmonics(library: Any, atoms: Sequence[Node]) -> list[Node]:
    functions = [expression.sin] * bool(library.include_sin) + [expression.cos] * bool(library.include_cos)
    return [
        function(atom if k == 1 else Constant(float(k)) * atom)
        for k in range(1, library.n_frequencies + 1)
        for atom in atoms
        for function in functions
    ]


def _products(library: Any, atoms: Sequence[Node]) -> list[Node]:
    total: list[Node] | None = None
    for part, inputs in zip(library.libraries, library.inputs_per_library, strict=True):
        terms = _terms(part, [atoms[index] for index in dict.fromkeys(inputs)])
        total = terms if total is None else [_times(a, b) for a in total for b in terms]
    return total or []


def _times(a: Node, b: Node) -> Node:
    if a is Constant(1.0) or b is Constant(1.0):
        return b if a is Constant(1.0) else a
    return a * b


def _generalized(library: Any, atoms: Sequence[Node]) -> list[Node]:
    terms: list[Node] = []
    for index, part in enumerate(library.libraries_full_):
        if index >= len(library.inputs_per_library):
            terms += _terms(part, atoms)
        elif index not in library.exclude_libraries:
            terms += _terms(part, [atoms[i] for i in dict.fromkeys(library.inputs_per_library[index])])
    return terms


def _custom(library: Any, atoms: Sequence[Node]) -> list[Node]:
    terms: list[Node] = [Constant(1.0)] if library.include_bias else []
    for index, function in enumerate(library.functions):
        arguments = library._combinations(len(atoms), function.__code__.co_argcount, library.interaction_only)
        terms += [_trace(index, function, [atoms[i] for i in chosen]) for chosen in arguments]
    return terms


def _trace(index: int, function: Callable[..., Any], arguments: Sequence[Node]) -> Node:
    try:
        result = function(*(_Traced(node) for node in arguments))
        return result.node if isinstance(result, _Traced) else Constant(float(result))
    except (TypeError, ValueError, AttributeError) as error:
        raise TypeError(
            f"`from_pysindy(model=...)` has a CustomLibrary whose function {index} has no closed form here: {error}. "
            f"Write it with arithmetic and {', '.join(sorted(ufunc.__name__ for ufunc in _FUNCTIONS))}."
        ) from None


def _power(base: Node, exponent: Node) -> Node:
    value = exponent.value if isinstance(exponent, Constant) else np.nan
    if value == 0.5:
        return expression.sqrt(base)
    if not float(value).is_integer():
        raise TypeError(f"an exponent must be an integer or 0.5, not {value}")
    return Power(base, int(value))


_FUNCTIONS: dict[np.ufunc, Callable[..., Node]] = {
    np.add: lambda a, b: a + b,
    np.subtract: lambda a, b: a - b,
    np.multiply: lambda a, b: a * b,
    np.true_divide: lambda a, b: a / b,
    np.negative: lambda a: -a,
    np.power: _power,
    np.float_power: _power,
    np.square: lambda a: Power(a, 2),
    np.reciprocal: lambda a: Constant(1.0) / a,
    np.sin: expression.sin,
    np.cos: expression.cos,
    np.tan: expression.tan,
    np.tanh: expression.tanh,
    np.exp: expression.exp,
    np.log: expression.log,
    np.sqrt: expression.sqrt,
    np.absolute: expression.absolute,
    np.sign: expression.sign,
    np.minimum: expression.minimum,
    np.maximum: expression.maximum,
}


class _Traced(NDArrayOperatorsMixin):
    """Stands for an array in a user's function and records the closed form of what is done to it."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> _Traced:
        if method != "__call__" or kwargs or ufunc not in _FUNCTIONS:
            raise TypeError(f"it uses {ufunc.__name__}")
        return _Traced(
            _FUNCTIONS[ufunc](*(item.node if isinstance(item, _Traced) else Constant(float(item)) for item in inputs))
        )


# ---- regressors in both directions ------------------------------------------------------------


class PySINDyOptimizer(BaseOptimizer):
    """A regressor of ours as the optimizer of a ``pysindy.SINDy``.

    regressor : estimator with ``fit(theta, y)`` and ``coef_`` (target, feature); of an ensemble pysindy sees the
        aggregated coefficients, and ``regressor_`` keeps the members
    normalize_columns : pysindy's division of the columns by their length before the fit; the regressor's own
        normalization usually says better what is meant
    unbias : pysindy's least squares on the support afterwards; it would undo constraints

    Attributes: ``coef_`` (target, feature), ``regressor_`` the fitted copy; others as pysindy's optimizers have.

    Example: ``pysindy.SINDy(optimizer=PySINDyOptimizer(STLSQ(threshold=0.1, normalize=True)))``
    """

    def __init__(
        self, regressor: Any, *, normalize_columns: bool = False, copy_X: bool = True, unbias: bool = False
    ) -> None:
        if not hasattr(regressor, "fit"):
            raise TypeError(f"`PySINDyOptimizer(regressor=...)` must be an estimator with `fit`. Got {regressor!r}.")
        super().__init__(normalize_columns=normalize_columns, copy_X=copy_X, unbias=unbias)
        self.regressor = regressor

    def _reduce(self, x: np.ndarray, y: np.ndarray) -> None:
        self.regressor_ = clone(self.regressor).fit(np.asarray(x), np.asarray(y))
        coef = np.asarray(getattr(self.regressor_, "aggregate_coef_", self.regressor_.coef_), dtype=np.float64)
        self.coef_ = np.atleast_2d(coef)
        self.history_.append(self.coef_)


class PySINDyRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """A pysindy optimizer where a regressor is wanted: in `identify`, in an `Ensemble`, in scikit-learn.

    optimizer : any ``pysindy.optimizers`` object, such as ``pysindy.SR3(...)``; it is copied, not changed; None means
        pysindy's STLSQ with its settings

    Attributes: ``coef_`` (target, feature), or (feature,) if y has one axis; ``optimizer_`` the fitted copy.
    `fit` raises TypeError if ``optimizer`` is not one of pysindy's, ValueError for NaN or infinity.
    """

    def __init__(self, optimizer: Any = None) -> None:
        self.optimizer = optimizer

    def fit(self, X: Any, y: Any) -> PySINDyRegressor:
        """Fit X, the library matrix (n_samples, n_features), to y, (n_samples,) or (n_samples, n_targets)."""
        if self.optimizer is not None and not isinstance(self.optimizer, BaseOptimizer):
            raise TypeError(
                f"`PySINDyRegressor(optimizer=...)` must be an optimizer of pysindy. Got {self.optimizer!r}."
            )
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        targets = np.asarray(y, dtype=np.float64).reshape(len(X), -1)
        # Not scikit-learn's `clone`: some of pysindy's constructors rewrite their arguments, which it refuses.
        optimizer = pysindy_optimizers.STLSQ() if self.optimizer is None else copy.deepcopy(self.optimizer)
        self.optimizer_ = optimizer.fit(np.array(X), np.array(targets))
        coef = np.array(self.optimizer_.coef_, dtype=np.float64)
        self.coef_ = coef if y.ndim == 2 else coef[0]
        return self

    def predict(self, X: Any) -> np.ndarray:
        """``theta w``: (n_samples,) or (n_samples, n_targets), as y was."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(X @ self.coef_.T)
