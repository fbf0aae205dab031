"""The scikit-learn contract over every regressor."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from sindyrl.regression import STLSQ, Ensemble

REGRESSORS = [STLSQ(), Ensemble(n_members=5, random_state=0)]


@parametrize_with_checks([*REGRESSORS, STLSQ(normalize=True), Ensemble(n_members=3, drop_columns=0)])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("regressor", REGRESSORS, ids=lambda regressor: type(regressor).__name__)
def test_set_params_returns_the_estimator_and_fit_never_changes_parameters(regressor):
    model = clone(regressor)
    assert model.set_params(**regressor.get_params(deep=False)) is model
    before = dict(model.get_params())
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(50, 4)), rng.normal(size=(50, 2)))
    assert model.get_params() == before


@pytest.mark.parametrize("regressor", REGRESSORS, ids=lambda regressor: type(regressor).__name__)
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


@pytest.mark.parametrize("regressor", REGRESSORS, ids=lambda regressor: type(regressor).__name__)
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
