"""pysindy's models as closed forms, and regressors in both directions: the same numbers on both sides."""

import copy
import pathlib
import re
import runpy
import shutil
import warnings

import numpy as np
import pysindy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sindyrl.library import polynomial_library
from sindyrl.pysindy_bridge import PySINDyOptimizer, PySINDyRegressor, from_pysindy
from sindyrl.regression import STLSQ, Ensemble
from sindyrl.regression.constrained import ConstrainedSTLSQ
from sindyrl.regression.constraints import Constraints
from sindyrl.sparse_map import SparseMap

NAMES = ["x", "y", "z"]
LIBRARIES = {
    "polynomial": pysindy.PolynomialLibrary(degree=3),
    "no interaction": pysindy.PolynomialLibrary(degree=3, include_interaction=False, include_bias=False),
    "interaction only": pysindy.PolynomialLibrary(degree=2, interaction_only=True),
    "identity": pysindy.IdentityLibrary(),
    "fourier": pysindy.FourierLibrary(n_frequencies=2),
    "cosines": pysindy.FourierLibrary(n_frequencies=2, include_sin=False),
    "custom": pysindy.CustomLibrary(
        [lambda x: np.exp(-(x**2)), lambda x, y: np.sin(x + 2 * y) / (1.0 + y * y), lambda x: abs(x) ** 0.5 - 1]
    ),
    "sum": pysindy.PolynomialLibrary(degree=2) + pysindy.FourierLibrary(),
    "product": pysindy.PolynomialLibrary(degree=2) * pysindy.FourierLibrary(),
    "overlap": pysindy.PolynomialLibrary(degree=2) + pysindy.PolynomialLibrary(degree=1),
    "generalized": pysindy.feature_library.GeneralizedLibrary(
        [pysindy.PolynomialLibrary(degree=2), pysindy.FourierLibrary()],
        tensor_array=[[1, 1]],
        inputs_per_library=[[2, 0], [1]],
    ),
}


def lorenz(n=300, seed=0, noise=0.0):
    """Random states (n, 3) and their Lorenz rates."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)) * [2, 3, 4]
    dx = np.column_stack(
        [10 * (x[:, 1] - x[:, 0]), x[:, 0] * (28 - x[:, 2]) - x[:, 1], x[:, 0] * x[:, 1] - 8 / 3 * x[:, 2]]
    )
    return x, dx + noise * rng.normal(size=dx.shape)


def fitted(library=None, optimizer=None, *, inputs=0, cls=pysindy.SINDy, noise=0.0):
    x, dx = lorenz(noise=noise)
    u = np.random.default_rng(1).normal(size=(len(x), inputs)) if inputs else None
    names = NAMES + [f"u{i}" for i in range(inputs)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = pysindy.SINDy(optimizer=optimizer or pysindy.STLSQ(threshold=0.01), feature_library=library)
        return model.fit(x, t=0.01, x_dot=dx, u=u, feature_names=names), x, u


@pytest.mark.parametrize("kind", LIBRARIES)
def test_the_closed_form_predicts_what_pysindy_predicts(kind):
    model, x, _ = fitted(copy.deepcopy(LIBRARIES[kind]))
    closed = from_pysindy(model)
    assert closed.targets == ("dx", "dy", "dz")
    expected = np.asarray(model.predict(x))
    np.testing.assert_allclose(closed(x), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    # What is stored and shipped is the same function again.
    np.testing.assert_allclose(closed.symbolic()(x), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    assert SparseMap.from_json(closed.to_json()) == closed


def test_inputs_are_inputs():
    model, x, u = fitted(pysindy.PolynomialLibrary(degree=2), inputs=2)
    closed = from_pysindy(model)
    assert (closed.library.states, closed.library.inputs) == (("x", "y", "z"), ("u0", "u1"))
    np.testing.assert_allclose(closed(np.hstack([x, u])), model.predict(x, u), rtol=1e-9, atol=1e-9)
    renamed = from_pysindy(model, names=["a", "b", "c", "p", "q"])
    assert renamed.targets == ("da", "db", "dc")
    np.testing.assert_array_equal(renamed.coef, closed.coef)


def test_discrete_models_give_the_next_state():
    rng = np.random.default_rng(0)
    x = [rng.normal(size=2)]
    for _ in range(60):
        x.append(np.array([0.9 * x[-1][0] + 0.2 * x[-1][1], 0.3 * np.sin(x[-1][0]) + 0.5]))
    model = pysindy.DiscreteSINDy(optimizer=pysindy.STLSQ(threshold=0.01)).fit(np.array(x), t=1)
    closed = from_pysindy(model)
    assert closed.targets == ("x0_next", "x1_next")
    np.testing.assert_allclose(closed(np.array(x)), model.predict(np.array(x)), rtol=1e-9)


def test_polynomials_come_out_as_our_own_terms():
    model, _, _ = fitted(pysindy.PolynomialLibrary(degree=3))
    assert from_pysindy(model).library == polynomial_library(3, bias=True).bind(NAMES)


def test_ensemble_members_are_kept_on_request():
    np.random.seed(0)  # noqa: NPY002  pysindy's ensembles draw from the global generator
    optimizer = pysindy.EnsembleOptimizer(pysindy.STLSQ(threshold=0.01), bagging=True, n_models=7)
    model, x, _ = fitted(optimizer=optimizer, noise=0.5)
    closed = from_pysindy(model, members=True)
    assert closed.coef.shape == (7, 3, 10)
    np.testing.assert_allclose(closed(x), from_pysindy(model)(x))
    np.testing.assert_allclose(closed(x), model.predict(x), rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="EnsembleOptimizer"):
        from_pysindy(fitted()[0], members=True)


def test_what_has_no_closed_form_is_refused_with_its_name():
    cases = {
        "it uses arctan": pysindy.CustomLibrary([lambda x: np.arctan(x)]),
        "it uses greater": pysindy.CustomLibrary([lambda x: (x > 0) * x]),
        "an exponent must be an integer or 0.5, not 1.5": pysindy.CustomLibrary([lambda x: abs(x) ** 1.5]),
    }
    for message, library in cases.items():
        with pytest.raises(TypeError, match=message):
            from_pysindy(fitted(library)[0])

    class Parameterized(pysindy.PolynomialLibrary):
        pass

    with pytest.raises(TypeError, match="has a Parameterized, which has no closed form here"):
        from_pysindy(fitted(Parameterized())[0])
    with pytest.raises(TypeError, match=r"must be a fitted pysindy model. Got STLSQ"):
        from_pysindy(STLSQ())
    with pytest.raises(NotFittedError):
        from_pysindy(pysindy.SINDy())
    with pytest.raises(ValueError, match="names"):
        from_pysindy(fitted()[0], names=["x 1", "y", "z"])
    with pytest.raises(ValueError, match=r"must name 3 states and inputs. Got 2"):
        from_pysindy(fitted()[0], names=["x", "y"])


def test_a_custom_function_that_traces_wrongly_is_noticed():
    state = {"calls": 0}

    def fickle(x):
        state["calls"] += 1
        return x * state["calls"]

    with pytest.raises(ValueError, match="does not agree"):
        from_pysindy(fitted(pysindy.CustomLibrary([fickle]))[0])


@pytest.mark.parametrize(
    "regressor",
    [STLSQ(threshold=0.1), Ensemble(STLSQ(threshold=0.1), n_members=5, random_state=0)],
    ids=["one", "many"],
)
def test_our_regressors_work_as_a_pysindy_optimizer(regressor):
    model, x, _ = fitted(optimizer=PySINDyOptimizer(regressor))
    direct = clone(regressor).fit(polynomial_library(2, bias=True).bind(NAMES).features(x), lorenz()[1])
    np.testing.assert_allclose(model.coefficients(), getattr(direct, "aggregate_coef_", direct.coef_), atol=1e-8)
    assert model.optimizer.complexity == 7
    assert model.equations()[0] == "-10.000 x +  10.000 y"
    np.testing.assert_allclose(from_pysindy(model)(x), model.predict(x), atol=1e-8)


def test_constraints_hold_inside_pysindy():
    constraints = Constraints(polynomial_library(2, bias=True).bind(NAMES), ("dx", "dy", "dz"))
    constraints = constraints.equal(("dx", "x"), ("dx", "y"), -1.0).fix("dy", "x", 28.0)
    model, _, _ = fitted(optimizer=PySINDyOptimizer(ConstrainedSTLSQ(constraints, threshold=0.3)), noise=1.0)
    assert constraints.violation(model.coefficients()) < 1e-12
    assert np.count_nonzero(model.coefficients()) == 7


@pytest.mark.parametrize(
    "optimizer",
    [
        pysindy.SR3(reg_weight_lam=0.1, relax_coeff_nu=1.0),
        pysindy.STLSQ(threshold=0.1),
        pysindy.FROLS(max_iter=3),
        pysindy.SSR(criteria="model_residual"),
    ],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_any_pysindy_optimizer_works_as_our_regressor(optimizer):
    x, y = lorenz(noise=0.1)
    theta = polynomial_library(2, bias=True).bind(NAMES).features(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = PySINDyRegressor(optimizer).fit(theta, y)
        direct = clone(optimizer).fit(np.array(theta), y)
        members = Ensemble(PySINDyRegressor(optimizer), n_members=3, random_state=0).fit(theta, y)
    np.testing.assert_array_equal(ours.coef_, direct.coef_)
    np.testing.assert_allclose(ours.predict(theta), direct.predict(theta), rtol=1e-9, atol=1e-9)
    assert members.coef_.shape == (3, 3, 10)
    assert not hasattr(optimizer, "coef_")


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_there_and_back_is_the_regressor_itself(seed):
    rng = np.random.default_rng(seed)
    theta, y = rng.normal(size=(40, 5)), rng.normal(size=(40, 2))
    direct = STLSQ(threshold=0.1).fit(theta, y)
    round_trip = PySINDyRegressor(PySINDyOptimizer(STLSQ(threshold=0.1))).fit(theta, y)
    np.testing.assert_allclose(round_trip.coef_, direct.coef_, rtol=1e-12)


def test_wrong_arguments_are_refused():
    with pytest.raises(TypeError, match=r"must be an estimator with `fit`. Got 3"):
        PySINDyOptimizer(3)
    with pytest.raises(TypeError, match="must be an optimizer of pysindy"):
        PySINDyRegressor(STLSQ()).fit(np.eye(3), np.ones(3))


@pytest.mark.skipif(not any(shutil.which(name) for name in ("cc", "gcc", "clang")), reason="no C compiler")
def test_the_example_shows_what_it_claims(capsys):
    path = pathlib.Path(__file__).resolve().parent.parent / "examples" / "07_from_pysindy.py"
    runpy.run_path(str(path), run_name="__main__")
    shown = capsys.readouterr().out
    assert float(re.search(r"largest difference in prediction (\S+)", shown)[1]) < 1e-9
    assert float(re.search(r"largest violation in any member (\S+)", shown)[1]) < 1e-12
    equations = shown.split("mean of 20 members:\n")[1].splitlines()[:3]
    terms = [re.findall(r"\*([xyz](?:\*[xyz])?)", line) for line in equations]
    assert terms == [["x", "y"], ["x", "y", "x*z"], ["z", "x*y"]]
    assert "Bounded" in shown
