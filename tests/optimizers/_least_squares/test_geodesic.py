"""Geodesic acceleration: its step against NumPy, when it is refused, and what it saves."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.flat_options import gauss_newton

import keras_fwd

pytestmark = pytest.mark.usefixtures("float64")

X = np.linspace(0, 2, 9)[:, None]
START = np.array([1.2, 0.4])


class Decay(keras.layers.Layer):
    """`a exp(b x)`."""

    def build(self, shape):
        self.w = self.add_weight(shape=(2,), initializer=lambda *a, **k: tf.constant(START))

    def call(self, x):
        return self.w[0] * keras.ops.exp(self.w[1] * x)


def target(a=1.0, b=-0.5):
    return a * np.exp(b * X) + 0.05 * np.cos(7 * X)


def model_with(layer=Decay, jit=False, eager=False, **options):
    options = {"damping": 0.125, "solver": "dense", "geodesic": True, **options}
    model = keras.Sequential([keras.Input((1,)), layer()])
    optimizer = gauss_newton(**options)
    model.compile(optimizer, "mse", jit_compile=jit, run_eagerly=eager)
    return model


def parts(w, y):
    """Residuals, their Jacobian, and their second derivative along a vector; of the mean square."""
    x, root = X[:, 0], np.sqrt(2 / len(X))
    e = np.exp(w[1] * x)
    J = np.stack([e, w[0] * x * e], 1)

    def second(v):
        return 2 * v[0] * v[1] * x * e + v[1] ** 2 * w[0] * x**2 * e

    return root * (w[0] * e - y[:, 0]), root * J, lambda v: root * second(v)


def accelerated(w, y, damping):
    """Velocity and acceleration by NumPy."""
    r, J, second = parts(w, y)
    C = J.T @ J + damping * np.eye(2)
    v = -np.linalg.solve(C, J.T @ r)
    return v, -np.linalg.solve(C, J.T @ second(v))


MODES = {"graph": {}, "eager": {"eager": True}, "xla": {"jit": True}}


@pytest.mark.parametrize("mode", ["graph", "eager", pytest.param("xla", marks=pytest.mark.slow)])
@pytest.mark.parametrize("solver", ["dense", "dual"])
def test_step_is_velocity_and_half_the_acceleration(solver, mode):
    y = target(1.0, 0.2)
    v, a = accelerated(START, y, 0.125)
    assert 2 * np.linalg.norm(a) < 0.75 * np.linalg.norm(v)
    model = model_with(solver=solver, **MODES[mode])
    model.train_on_batch(X, y)
    assert model.optimizer.status.code.name == "ACCEPTED"
    error = 1e-6 if mode == "xla" else 1e-11
    np.testing.assert_allclose(model.get_weights()[0], START + v + a / 2, rtol=error)


def test_second_derivative_agrees_with_a_central_difference():
    y, h = target(), 1e-4
    v, _ = accelerated(START, y, 0.125)
    r = [parts(START + t * v, y)[0] for t in (-h, 0, h)]
    difference = (r[0] - 2 * r[1] + r[2]) / h**2
    np.testing.assert_allclose(parts(START, y)[2](v), difference, atol=1e-6)


def test_learning_rate_scales_velocity_once_and_acceleration_twice():
    y = target(1.0, 0.2)
    v, a = accelerated(START, y, 0.125)
    model = model_with(learning_rate=0.5)
    model.train_on_batch(X, y)
    np.testing.assert_allclose(model.get_weights()[0], START + v / 2 + a / 8, rtol=1e-10)


def test_a_step_that_bends_too_much_is_refused():
    y = target(3.0, -3.0)
    v, a = accelerated(START, y, 1e-6)
    assert 2 * np.linalg.norm(a) > 0.75 * np.linalg.norm(v)
    model = model_with(damping=1e-6, max_trials=1)
    model.train_on_batch(X, y)
    assert model.optimizer.status.code.name == "REJECTED"
    np.testing.assert_array_equal(model.get_weights()[0], START)
    assert float(model.optimizer.damping.value) > 1e-6


def test_a_linear_model_has_no_acceleration():
    x, y = np.random.default_rng(0).normal(size=(12, 3)), np.ones((12, 1))
    found = []
    for geodesic in (True, False):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile(keras_fwd.GaussNewton(damping=0.1, geodesic=geodesic), "mse")
        model.fit(x, y, epochs=2, verbose=0)
        found.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    np.testing.assert_allclose(*found, rtol=1e-12)


class Canyon(keras.layers.Layer):
    """A narrow curved valley: residuals `(1 − u, 100 (v − u²))`."""

    def build(self, shape):
        start = np.array([-1.0, 1.0])
        self.w = self.add_weight(shape=(2,), initializer=lambda *a, **k: tf.constant(start))

    def call(self, x):
        u, v = self.w[0], self.w[1]
        return x * tf.stack([1 - u, 100 * (v - u**2)])[None]


@pytest.mark.slow
@pytest.mark.parametrize("damping", ["auto", pytest.param(1e-3, marks=pytest.mark.slow)])
def test_a_curved_valley_takes_far_fewer_steps(damping):
    steps = {}
    for geodesic in (True, False):
        model = model_with(Canyon, damping=damping, geodesic=geodesic)
        stop = keras_fwd.callbacks.LeastSquaresStop()
        data = np.ones((1, 1)), np.zeros((1, 2))
        history = model.fit(*data, epochs=300, verbose=0, callbacks=[stop])
        np.testing.assert_allclose(model.get_weights()[0], [1, 1], rtol=1e-6)
        steps[geodesic] = len(history.epoch)
    assert steps[True] < 0.7 * steps[False]


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_residuals_of_ones_own_take_the_same_step(jit_compile):
    y = target(1.0, 0.2)
    v, a = accelerated(START, y, 0.125)
    w = tf.Variable(START)
    optimizer = keras_fwd.GaussNewton(damping=0.125, solver="dense", geodesic=True)
    optimizer.step(
        lambda: w[0] * tf.exp(w[1] * X) - y, [w], reduction="mean", jit_compile=jit_compile
    )
    assert optimizer.status.code.name == "ACCEPTED"
    np.testing.assert_allclose(w, START + v + a / 2, rtol=1e-6 if jit_compile else 1e-10)


def test_it_does_not_trace_again():
    model = model_with(damping="auto")
    traces = []
    layer = model.layers[0]
    call = layer.call
    layer.call = lambda x: traces.append(0) or call(x)
    model.fit(X, target(), epochs=1, verbose=0)
    first = len(traces)
    model.fit(X, target(), epochs=3, verbose=0)
    assert len(traces) == first


def test_config_round_trip():
    config = keras_fwd.GaussNewton(geodesic=True).get_config()
    assert config["geodesic"] is True
    assert keras_fwd.GaussNewton.from_config(config).geodesic is True


def test_what_it_cannot_do_is_refused():
    with pytest.raises(keras_fwd.ConfigurationError, match=r"True or False\. Received: geodesic=1"):
        keras_fwd.GaussNewton(geodesic=1)
    cases = [
        ({"loss": "huber"}, {}, 'loss="mse"'),
        ({"loss": "mse"}, {"solver": "cg"}, "direct solver"),
        ({"loss": "mse"}, {"curvature_batch": 4}, "direct solver"),
        ({"loss": "mse"}, {"micro_batch": 4}, "whole batch at once"),
    ]
    for compiled, options, message in cases:
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(gauss_newton(geodesic=True, **options), **compiled)
        with pytest.raises(keras_fwd.ConfigurationError, match=message):
            model.fit(X, target(), verbose=0)


def test_half_precision_is_refused():
    layers = [keras.Input((1,)), keras.layers.Dense(1, dtype="mixed_bfloat16")]
    model = keras.Sequential(layers)
    model.compile(keras_fwd.GaussNewton(geodesic=True), "mse")
    with pytest.raises(keras_fwd.ConfigurationError, match="float32 or float64"):
        model.fit(X, target(), verbose=0)
