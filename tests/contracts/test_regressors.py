"""The scikit-learn contract over every regressor."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from sindyrl.pysindy_bridge import PySINDyRegressor
from sindyrl.regression import STLSQ, BestSubset, ConstrainedSTLSQ, Ensemble

REGRESSORS = [
    STLSQ(),
    BestSubset(),
    ConstrainedSTLSQ(),
    PySINDyRegressor(),
    Ensemble(n_members=5, random_state=0),
    Ensemble(n_members=5, bootstrap="blocks", random_state=0),
]
FURTHER = [STLSQ(normalize=True), BestSubset("cv", folds=3), Ensemble(BestSubset(2), n_members=3, random_state=0)]
STREAMING = [regressor for regressor in REGRESSORS if hasattr(regressor, "partial_fit")]


def name(regressor):
    return str(regressor).replace("random_state=0", "").replace(" ", "")


@parametrize_with_checks([*REGRESSORS, *FURTHER])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("regressor", REGRESSORS, ids=name)
def test_set_params_returns_the_estimator_and_fit_never_changes_parameters(regressor):
    model = clone(regressor)
    assert model.set_params(**regressor.get_params(deep=False)) is model
    before = dict(model.get_params())
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(50, 4)), rng.normal(size=(50, 2)))
    assert model.get_params() == before


@pytest.mark.parametrize("regressor", REGRESSORS, ids=name)
def test_coefficients_are_target_by_feature_and_drop_the_target_axis_for_flat_y(regressor):
    rng = np.random.default_rng(0)
    theta, y = rng.normal(size=(50, 4)), rng.normal(size=(50, 2))
    assert clone(regressor).fit(theta, y).coef_.shape[-2:] == (2, 4)
    flat = clone(regressor).fit(theta, y[:, 0])
    assert flat.coef_.shape[-1:] == (4,)
    assert flat.predict(theta).shape == (50,)
    np.testing.assert_allclose(
        np.asarray(flat.coef_), clone(regressor).fit(theta, y).coef_[..., 0, :], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("regressor", REGRESSORS, ids=name)
def test_inputs_are_left_as_they_were_and_may_be_read_only_or_in_either_order(regressor):
    rng = np.random.default_rng(0)
    theta, y = rng.normal(size=(50, 4)), rng.normal(size=(50, 2))
    copies = theta.copy(), y.copy()
    theta.setflags(write=False)
    y.setflags(write=False)
    rows = clone(regressor).fit(theta, y).coef_
    np.testing.assert_allclose(clone(regressor).fit(np.asfortranarray(theta), y).coef_, rows, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(theta, copies[0])
    np.testing.assert_array_equal(y, copies[1])


@pytest.mark.parametrize("regressor", STREAMING, ids=name)
def test_rows_that_come_in_parts_give_the_fit_to_all_of_them(regressor):
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(320, 4))
    y = theta @ rng.normal(size=(4, 2)) + rng.normal(size=(320, 2))
    if "block_length" in regressor.get_params():
        regressor = clone(regressor).set_params(block_length=8)
    whole, parts = clone(regressor).fit(theta, y), clone(regressor)
    for start in (0, 80, 88, 200):
        stop = {0: 80, 80: 88, 88: 200, 200: 320}[start]
        assert parts.partial_fit(theta[start:stop], y[start:stop]) is parts
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-10, atol=1e-13)
    continued = clone(regressor).fit(theta[:200], y[:200]).partial_fit(theta[200:], y[200:])
    np.testing.assert_allclose(continued.coef_, whole.coef_, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(continued.fit(theta[:80], y[:80]).coef_, clone(regressor).fit(theta[:80], y[:80]).coef_)


@pytest.mark.parametrize("regressor", STREAMING, ids=name)
def test_parts_must_agree_in_their_features_and_targets(regressor):
    rng = np.random.default_rng(0)
    theta, y = rng.normal(size=(50, 4)), rng.normal(size=(50, 2))
    model = clone(regressor).partial_fit(theta, y)
    with pytest.raises(ValueError, match="3 features"):
        model.partial_fit(theta[:, :3], y)
    with pytest.raises(ValueError, match=r"must have 2 targets as before. Got 1; `fit` starts anew"):
        model.partial_fit(theta, y[:, 0])
