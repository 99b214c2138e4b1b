"""`GaussNewton(micro_batch=…)`: the step of the whole batch, a few examples at a time."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.flat_options import gauss_newton

import keras_fwd

pytestmark = pytest.mark.usefixtures("float64")

L = keras.layers
CG = {"solver": "cg", "damping": 0.1, "max_iterations": 4}
DENSE = {"solver": "dense"}
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(20, 3))
Y = np.sin(X @ RANDOM.normal(size=(3, 2)))
LABELS = RANDOM.integers(0, 3, size=20)


def compiled(stack, loss, options, inputs=3, **compile_options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input([inputs]), *stack()])
    model.compile(gauss_newton(**options), loss, **compile_options)
    return model


def plain():
    return [L.Dense(5, "tanh"), L.LayerNormalization(), L.Dense(2)]


def ridged():
    return [L.Dense(5, "tanh", kernel_regularizer="l2"), L.Dense(2, bias_regularizer="l1")]


def classes():
    return [L.Dense(5, "tanh"), L.Dense(3, "softmax")]


def assert_same_steps(stack, loss, options, y, size, rtol=1e-6, steps=3, sample_weight=None, **run):
    """Also the same logs: losses, metrics, damping, ratio."""
    models, logs = [], []
    for micro_batch in (None, size):
        model = compiled(stack, loss, {**options, "micro_batch": micro_batch}, **run)
        data = {"batch_size": 20, "epochs": steps, "shuffle": False, "verbose": 0}
        logs.append(model.fit(X, y, sample_weight=sample_weight, **data).history)
        models.append(model)
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-9)
    for name, values in logs[0].items():
        np.testing.assert_allclose(logs[1][name], values, rtol=1e-4, atol=1e-9, err_msg=name)


CASES = {
    "mse": (plain, "mse", Y),
    "regularized": (ridged, "mse", Y),
    "softmax": (classes, "sparse_categorical_crossentropy", LABELS),
    "sigmoid": (lambda: [L.Dense(2, "sigmoid")], "binary_crossentropy", (Y > 0).astype(float)),
    "a sum": (plain, keras.losses.MeanSquaredError(reduction="sum"), Y),
}


@pytest.mark.slow
@pytest.mark.parametrize("options", [DENSE, CG], ids=str)
@pytest.mark.parametrize(
    "case", ["softmax", *(pytest.param(c, marks=pytest.mark.slow) for c in CASES if c != "softmax")]
)
def test_the_steps_are_those_of_the_whole_batch(case, options):
    stack, loss, y = CASES[case]
    assert_same_steps(stack, loss, options, y, 8)


@pytest.mark.slow
@pytest.mark.parametrize("size", [5, 7, 64])
def test_steps_that_are_rejected(size):
    options = {**CG, "damping": 1e-6, "learning_rate": 4.0}
    assert_same_steps(plain, "mse", options, Y, size)
    assert_same_steps(plain, "mse", {**options, "solver": "dense"}, Y, size)


@pytest.mark.slow
def test_any_loss_by_conjugate_gradients():
    def coupled(y, outputs):
        return tf.sqrt(1.0 + tf.reduce_sum((y - outputs) ** 2))  # no mean or sum over examples

    assert_same_steps(plain, coupled, CG, Y, 6)


@pytest.mark.slow
@pytest.mark.parametrize("options", [DENSE, CG], ids=str)
def test_sample_weights_and_metrics(options):
    weights = np.linspace(0.0, 2.0, 20)
    run = {"sample_weight": weights, "metrics": ["mae"], "weighted_metrics": ["mse"]}
    assert_same_steps(plain, "mse", options, Y, 8, **run)


@pytest.mark.parametrize("options", [{**DENSE, "damping": 0.1}, CG], ids=str)
@pytest.mark.parametrize("run", [{"run_eagerly": True}, {"jit_compile": True}], ids=str)
@pytest.mark.slow
def test_every_mode(run, options):
    """Damped: XLA finds eigenvalues to seven digits only, which a singular system magnifies."""
    assert_same_steps(plain, "mse", options, Y, 8, steps=2, **run)


@pytest.mark.slow
def test_several_inputs_and_outputs():
    def built(size):
        keras.utils.set_random_seed(0)
        a, b = keras.Input([3]), keras.Input([2])
        joined = L.Dense(4, "tanh")(L.Concatenate()([a, b]))
        heads = {"p": L.Dense(1, name="p")(joined), "q": L.Dense(3, "softmax", name="q")(joined)}
        model = keras.Model([a, b], heads)
        losses = {"p": "mse", "q": "sparse_categorical_crossentropy"}
        model.compile(keras_fwd.GaussNewton(micro_batch=size, **DENSE), losses)
        return model

    models = [built(size) for size in (None, 6)]
    for model in models:
        for _ in range(3):
            model.train_on_batch([X, Y], {"p": Y[:, :1], "q": LABELS})
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.slow
def test_a_batch_that_is_not_finite_changes_nothing():
    for options in (DENSE, CG):
        model = compiled(plain, "mse", {**options, "micro_batch": 8})
        before = model.get_weights()
        bad = X.copy()
        bad[-1, 0] = np.nan
        model.train_on_batch(bad, Y)
        assert model.optimizer.nonfinite_steps == 1
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def noisy():
    return [L.Dense(4), L.Lambda(lambda x: x + tf.random.normal(tf.shape(x), dtype=x.dtype))]


REFUSED = {
    "updates of .*moving_mean": lambda: [L.Dense(4), L.BatchNormalization()],
    "updates of .*seed": lambda: [L.Dense(4), L.Dropout(0.5)],
    "of activities": lambda: [L.Dense(4, activity_regularizer="l2")],
    "random numbers": noisy,
    "first axis": lambda: [L.Dense(4), L.Lambda(lambda x: tf.reshape(x, [-1, 2]))],
}


@pytest.mark.parametrize("message", REFUSED)
def test_layers_that_need_the_whole_batch_are_refused(message):
    model = compiled(REFUSED[message], "mse", {"micro_batch": 8})
    with pytest.raises(keras_fwd.ConfigurationError, match=message) as caught:
        model.train_on_batch(X, np.zeros([20, 4]))
    assert "Received: " in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"micro_batch": 0}, "`micro_batch` must be a whole number of at least 1"),
        ({"micro_batch": 8, "solver": "dual"}, "does not go with solver='dual'"),
        ({"micro_batch": 8, "preconditioner": "kfac"}, "preconditioner='kfac'"),
        ({"micro_batch": 8, "curvature_batch": 4}, "curvature_batch=4"),
    ],
    ids=str,
)
def test_arguments_that_need_the_whole_batch_are_refused(options, message):
    with pytest.raises(keras_fwd.ConfigurationError, match=message):
        gauss_newton(**options)


def test_the_config_holds_it():
    config = keras_fwd.GaussNewton(micro_batch=np.int64(8)).get_config()
    assert config["micro_batch"] == 8
    assert keras_fwd.GaussNewton.from_config(config).micro_batch == 8


def quartic(y, p):
    return keras.ops.mean((y - p) ** 4, -1)


class Custom(L.Layer):
    def call(self, x):
        return x - keras.ops.mean(x, axis=0, keepdims=True)


def test_what_else_is_refused():
    cases = [
        (compiled(plain, quartic, {"micro_batch": 8}), "needs mse, a robust loss or"),
        (keras.Sequential([keras.Input([3], batch_size=20), L.Dense(2)]), "fixed batch size"),
        (masked(), "masks"),
        (keras.Sequential([keras.Input([3]), L.Dense(2), Custom()]), "a Custom"),
    ]
    for model, message in cases:
        if not model.compiled:
            model.compile(keras_fwd.GaussNewton(micro_batch=8), "mse")
        with pytest.raises(keras_fwd.ConfigurationError, match=message):
            model.train_on_batch(np.zeros([20, *model.input_shape[1:]]), Y)


def masked():
    return keras.Sequential([keras.Input([2, 1]), L.Masking(), L.Dense(1)])
