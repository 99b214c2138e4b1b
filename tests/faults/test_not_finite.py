"""Values that are not finite, in all places and of all kinds: left out, counted, and survived.

The steps that one spoils change no weight, training goes on when good batches return, and what
stays spoilt ends it with a `NumericalError` that says where.
"""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_fwd
from keras_fwd import KFAC, GaussNewton
from keras_fwd.optimizers import CG, KFACPreconditioner

pytestmark = pytest.mark.slow
L = keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(24, 3)).astype("float32")
Y = np.sin(X[:, :1]).astype("float32")
VALUES = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "overflow": 1e38}
GRADIENT, SOLUTION = (tf.Variable(1.0, dtype="float32", trainable=False) for _ in range(2))


@keras_fwd.custom_jvp
def with_bad_slope(x):
    """The identity; its derivative is multiplied by what spoils it."""
    return tf.identity(x)


@with_bad_slope.defjvp
def _(x, dx):
    return tf.identity(x), dx * GRADIENT


class Sloped(L.Layer):
    def call(self, inputs):
        return with_bad_slope(inputs)


def spoils_its_solution(kind):
    """A kind of optimizer whose solution of the damped system is multiplied by what spoils it."""

    class Spoils(kind):
        def parts(self, model_pass, expansion):
            parts = super().parts(model_pass, expansion)
            solve = parts.system.solve

            def spoilt(damping, *gradient):
                found = solve(damping, *gradient)
                spoil = lambda value: value * tf.cast(SOLUTION, value.dtype)  # noqa: E731
                return found._replace(value=tf.nest.map_structure(spoil, found.value))

            parts.system.solve = spoilt
            return parts

    return Spoils


OPTIMIZERS = {
    "GaussNewton dense": (GaussNewton, {}),
    "GaussNewton dual": (GaussNewton, {"solver": "dual"}),
    "GaussNewton cg": (GaussNewton, {"solver": "cg"}),
    "GaussNewton cg kfac": (GaussNewton, {"solver": CG(preconditioner="kfac")}),
    "KFAC": (KFAC, {}),
    "KFAC eigen": (KFAC, {"inverse": "eigen", "fisher": "type-2"}),
    "KFAC rate": (KFAC, {"learning_rate": 0.1}),
    "KFACPreconditioner": (
        KFACPreconditioner,
        {"inner": {"class_name": "SGD", "config": {"learning_rate": 0.1}}},
    ),
}
WITH_FACTORS = [name for name in OPTIMIZERS if name.startswith("KFAC")]


def trained(name, spoils=lambda kind: kind, layers=()):
    """A model that has had a few good batches, and its weights before them."""
    keras.utils.set_random_seed(0)
    kind, options = OPTIMIZERS[name]
    stack = [L.Dense(4, "tanh"), *layers, L.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *stack])
    model.compile(spoils(kind)(**options), "mse", metrics=["mae"])
    start = model.get_weights()
    fit(model, 3)
    return model, start


def fit(model, epochs, x=X, y=Y, weights=None):
    """One batch an epoch."""
    options = {"batch_size": len(x), "epochs": epochs, "shuffle": False, "verbose": 0}
    return model.fit(x, y, sample_weight=weights, **options).history


def assert_left_out(model, before, count):
    """The weights of before, counted, and nothing in the optimizer's state that is not finite."""
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.optimizer.nonfinite_steps == count
    for variable in model.optimizer._variables:
        if variable.name != "last_step":  # the record of the last step: infinite ratios, say
            assert np.isfinite(variable.numpy()).all(), variable.path


def assert_goes_on(model, start):
    """From the weights of before any fault, with whatever state the faults left behind."""
    model.set_weights(start)
    history = fit(model, 60)
    assert history["loss"][-1] < 0.7 * history["loss"][0], history["loss"]
    assert all(np.isfinite(values).all() for values in history.values() if values is not None)


def spoilt(place, value):
    """A batch with one bad value."""
    batch = {"inputs": X.copy(), "targets": Y.copy(), "sample weights": np.ones(len(X), "float32")}
    batch[place][5] = value
    if (place, value) == ("sample weights", VALUES["overflow"]):
        batch["targets"][5] = 1e3  # whose square times the weight overflows
    return batch.values()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_batch_with_a_bad_value_is_left_out(name):
    """Every value in every place, with a good batch between, on one model: it is traced once."""
    (model, start), ones = trained(name), np.ones(len(X), "float32")
    for place in ("inputs", "targets", "sample weights"):
        for label, value in VALUES.items():
            fit(model, 1, weights=ones)
            before, count = model.get_weights(), model.optimizer.nonfinite_steps
            logs = fit(model, 1, *spoilt(place, value))
            if (place, label) == ("inputs", "overflow"):
                # None for this model: tanh makes one of it, and its derivative is zero.
                assert all(np.isfinite(w).all() for w in model.get_weights())
            else:
                assert_left_out(model, before, count + 1)
                assert logs["nonfinite_steps"] == [count + 1], (place, label)
    assert_goes_on(model, start)


INSIDE = ["GaussNewton dense", "GaussNewton cg", *WITH_FACTORS]


@pytest.mark.parametrize("name", INSIDE)
def test_a_bad_value_inside_of_a_step_is_left_out(name):
    """In the Jacobian and so in the gradient; in the solution of the damped system.

    A gradient or a step times 1e38 may be finite: then the batch is one like any other, and what
    norms, averages and momentum keep of it they forget by their own rules, not at once. What is
    asked of it is only that no weight becomes infinite.
    """
    model, start = trained(name, spoils_its_solution, [Sloped()])

    def spoil(variable, value):
        before, count = model.get_weights(), model.optimizer.nonfinite_steps
        variable.assign(value)
        fit(model, 1)
        variable.assign(1.0)
        return before, count

    for variable in (GRADIENT, SOLUTION):
        for value in (np.nan, np.inf, -np.inf):
            before, count = spoil(variable, value)
            assert_left_out(model, before, count + 1)
            fit(model, 1)
    assert_goes_on(model, start)
    for variable in (GRADIENT, SOLUTION):
        spoil(variable, VALUES["overflow"])
        assert all(np.isfinite(w).all() for w in model.get_weights())
        model.set_weights(start)


@pytest.mark.parametrize("name", WITH_FACTORS)
def test_a_bad_factor_ends_training_aloud(name):
    """No batch can mend it: training ends although every loss and gradient is finite."""
    model, start = trained(name)
    blocks = [v for v in model.optimizer._variables if v.name.startswith("block_")]
    blocks.append(model.optimizer.damping)  # which the rejected steps have raised
    good = [v.numpy() for v in blocks]
    for value in (np.nan, np.inf, -np.inf):
        blocks[0].assign(np.full(blocks[0].shape, value))
        with pytest.raises(keras_fwd.NumericalError, match="in the direction, at step"):
            fit(model, 100)
        assert all(np.isfinite(w).all() for w in model.get_weights())
        for variable, mended in zip(blocks, good, strict=True):
            variable.assign(mended)
    assert_goes_on(model, start)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_report_leaves_out_and_counts(value):
    """The derivative of a square overflows where its input nearly does."""
    model = keras.Sequential([keras.Input((3,)), L.Dense(2, tf.square)])
    bad = X.copy()
    bad[5, 1] = value
    found = keras_fwd.sensitivity_report(model, bad)
    expected = keras_fwd.sensitivity_report(model, np.delete(X, 5, axis=0))
    assert (found.left_out, found.examples) == (1, len(X) - 1)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-6)
    json.loads(found.to_json(), parse_constant=pytest.fail)  # neither NaN nor Infinity


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [keras_fwd.JacobianNormCallback, keras_fwd.CurvatureCallback])
def test_a_callback_refuses_bad_data(kind, value):
    bad = X.copy()
    bad[5, 1] = value
    data = bad if kind is keras_fwd.JacobianNormCallback else (bad, Y)
    with pytest.raises(keras_fwd.ConfigurationError, match=r"finite.*Received: "):
        kind(data)
