"""Robust losses in `GaussNewton`: against SciPy, closed forms, and starts among outliers only."""

import keras
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

import keras_fwd
from keras_fwd.losses import Cauchy, cauchy

pytestmark = pytest.mark.usefixtures("float64")
L = keras.layers
SCALE = 0.1
LOSSES = {
    "huber": lambda: keras.losses.Huber(SCALE),
    "cauchy": lambda: Cauchy(SCALE),
    "log_cosh": lambda: "log_cosh",
}
TRUE = np.array([1.0, 2.0, -1.0, 0.5])


def data(far=1.0):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4))
    y = far * (x @ TRUE) + 0.05 * rng.normal(size=60)
    y[::7] += 3 * rng.normal(size=len(y[::7]))
    return x, y[:, None]


def fitted(loss, x, y, epochs=60, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), L.Dense(1, use_bias=False)])
    model.compile(keras_fwd.GaussNewton(**options), LOSSES[loss](), jit_compile=False)
    model.fit(x, y, batch_size=len(x), epochs=epochs, verbose=0)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["dense", pytest.param("dual", marks=pytest.mark.slow)])
@pytest.mark.parametrize("loss", ["huber", "cauchy"])
def test_fit_ends_where_scipy_does(loss, solver):
    x, y = data()
    found = fitted(loss, x, y, solver=solver).get_weights()[0][:, 0]
    expected = scipy.optimize.least_squares(
        lambda w: x @ w - y[:, 0],
        TRUE,
        loss=loss,
        f_scale=SCALE,
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
    ).x
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert np.abs(found - TRUE).max() < 0.05


@pytest.mark.slow
def test_log_cosh_ends_at_a_stationary_point():
    x, y = data()
    w = fitted("log_cosh", x, y).get_weights()[0]
    np.testing.assert_allclose(x.T @ np.tanh(x @ w - y), 0, atol=1e-9)


def second_derivative(loss, r):
    return {
        "huber": np.where(np.abs(r) < SCALE, 1.0, 0.0),
        "cauchy": (1 - (r / SCALE) ** 2) / (1 + (r / SCALE) ** 2) ** 2,
        "log_cosh": 1 / np.cosh(r) ** 2,
    }[loss]


def first_derivative(loss, r):
    return {
        "huber": np.clip(r, -SCALE, SCALE),
        "cauchy": r / (1 + (r / SCALE) ** 2),
        "log_cosh": np.tanh(r),
    }[loss]


@pytest.mark.parametrize("mode", ["graph", "eager", pytest.param("xla", marks=pytest.mark.slow)])
@pytest.mark.parametrize("loss", LOSSES)
def test_direction_weighs_residuals_by_the_second_derivative(loss, mode):
    x, y = data()
    start = TRUE[:, None] + 0.03
    weights = np.linspace(0.5, 2.0, len(x))
    model = keras.Sequential([keras.Input((4,)), L.Dense(1, use_bias=False)])
    model.set_weights([start])
    options = {"run_eagerly": mode == "eager", "jit_compile": mode == "xla"}
    model.compile(keras_fwd.GaussNewton(damping=0.25, solver="dense"), LOSSES[loss](), **options)
    model.train_on_batch(x, y, sample_weight=weights)
    r = (x @ start - y)[:, 0]
    share = weights / len(x)
    assert (second_derivative(loss, r) <= 0).any() or loss == "log_cosh"
    C = (x.T * (share * np.maximum(second_derivative(loss, r), 0))) @ x
    g = x.T @ (share * first_derivative(loss, r))
    expected = start[:, 0] - np.linalg.solve(C + 0.25 * np.eye(4), g)
    assert model.optimizer.status.code.name == "ACCEPTED"
    np.testing.assert_allclose(model.get_weights()[0][:, 0], expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["huber", pytest.param("cauchy", marks=pytest.mark.slow)])
def test_a_start_among_outliers_only_is_left(loss):
    x, y = data(far=30.0)
    w = fitted(loss, x, y, epochs=120).get_weights()[0][:, 0]
    np.testing.assert_allclose(w, 30 * TRUE, atol=0.05)


def test_cauchy_is_its_formula():
    y, p = np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([[0.5, 1.0], [4.0, -3.0]])
    expected = SCALE**2 / 2 * np.log(1 + ((y - p) / SCALE) ** 2)
    np.testing.assert_allclose(cauchy(y, p, SCALE), expected.mean(-1))
    np.testing.assert_allclose(Cauchy(SCALE)(y, p), expected.mean())
    np.testing.assert_allclose(Cauchy(SCALE)(y[:, 0], p[:, :1]), expected[:, 0].mean())


def test_cauchy_is_saved_with_a_model(tmp_path):
    model = fitted("cauchy", *data(), epochs=1)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again.loss, Cauchy)
    assert again.loss.get_config() == Cauchy(SCALE).get_config()
    assert isinstance(keras.losses.deserialize(keras.losses.serialize(Cauchy(2.0))), Cauchy)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), "wide"])
def test_cauchy_refuses_a_scale_without_meaning(scale):
    with pytest.raises(keras_fwd.ConfigurationError, match=r"Cauchy: `scale` .* Received: scale="):
        Cauchy(scale)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:overflow")
def test_residuals_that_overflow_leave_the_weights():
    x, y = data()
    model = fitted("cauchy", x, 1e200 * y, epochs=3)
    assert np.isfinite(model.get_weights()[0]).all()
    assert tf.is_tensor(model.optimizer.damping.value) or model.optimizer.status.message
