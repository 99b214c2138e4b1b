"""Small models, and the oracles that their derivatives are compared with."""

import dataclasses
import functools
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

STEP = 1e-5  # of a central difference: its error is about STEP², that of rounding about 1e-16/STEP


@dataclasses.dataclass(frozen=True)
class Case:
    """A model with random weights and the shape of its inputs.

    Attributes:
        id: Name in the tests' ids.
        build: Returns a Keras model.
        shape: Of the input, with the batch.
        training: Whether the model is called with `training=True`.
        xla: Whether TensorFlow can compile it in float64.
        slow: Whether compiling it takes long.
    """

    id: str
    build: Callable
    shape: tuple
    training: bool = False
    xla: bool = True
    slow: bool = False

    def function(self):
        """`(fn, variables)`: the model as a function of its input, and what it is made of."""
        model = self.build()
        fn = (lambda x: model(x, training=True)) if self.training else model
        randomize(model)
        return fn, model.trainable_variables

    def inputs(self):
        return random(self.shape, seed=1)


def dense():
    layers = keras.layers
    return keras.Sequential([keras.Input([3]), layers.Dense(4, "tanh"), layers.Dense(2, "softmax")])


def conv():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input([6, 6, 2]),
            layers.Conv2D(3, 3, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def conv_max_pool():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input([6, 6, 1]),
            layers.Conv2D(2, 3, activation="gelu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def lstm():
    return keras.Sequential([keras.Input([4, 2]), keras.layers.LSTM(3), keras.layers.Dense(2)])


def attention():
    layers = keras.layers
    x = keras.Input([3, 4])
    attended = layers.MultiHeadAttention(num_heads=2, key_dim=2)(x, x)
    return keras.Model(x, layers.LayerNormalization()(x + attended))


def batch_normalization():
    layers = keras.layers
    return keras.Sequential(
        [keras.Input([3]), layers.Dense(4, "tanh"), layers.BatchNormalization(), layers.Dense(2)]
    )


CASES = [
    Case("dense", dense, (3, 3)),
    Case("conv", conv, (2, 6, 6, 2)),
    Case("conv_max_pool", conv_max_pool, (2, 6, 6, 1), xla=False),
    Case("lstm", lstm, (2, 4, 2), slow=True),
    Case("attention", attention, (2, 3, 4)),
    Case("batch_normalization", batch_normalization, (4, 3)),
    Case("batch_normalization_training", batch_normalization, (4, 3), training=True),
]


@pytest.fixture
def float64():
    """Keras layers and variables in float64."""
    yield from _dtype("float64")


@pytest.fixture
def float32():
    """Keras layers and variables in float32, whatever ran before."""
    yield from _dtype("float32")


def _dtype(name):
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx(name)
    keras.config.set_dtype_policy(name)
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


# By name: how a function of tensors is run. AutoGraph, which takes its time, has tests of its own.
MODES = {
    "eager": lambda f: f,
    "graph": functools.partial(tf.function, autograph=False),
    "xla": functools.partial(tf.function, autograph=False, jit_compile=True),
}


def random(shape, seed=0, dtype="float64"):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


def random_like(tensors, seed=0):
    """A list of random tensors with the shapes and dtypes of a list of tensors or variables."""
    return [random(t.shape, seed + i, t.dtype) for i, t in enumerate(tensors)]


def randomize(model):
    """Random weights for all variables: biases and moving statistics must not be 0 and 1."""
    for i, variable in enumerate(model.variables):
        if variable.dtype.startswith("float"):
            values = np.random.default_rng(100 + i).normal(size=variable.shape)
            positive = "variance" in variable.path
            variable.assign(np.abs(values) + 0.5 if positive else 0.5 * values)


def central_difference(fn, primals, tangents, variables=None):
    """(f(x + h u) − f(x − h u)) / 2h with respect to a tensor, or to variables that `fn` reads."""

    def at(step):
        if variables is None:
            return fn(primals + step * tangents)
        before = [tf.identity(v) for v in variables]
        for variable, value, tangent in zip(variables, before, tangents, strict=True):
            variable.assign(value + step * tangent)
        outputs = fn(primals)
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        return outputs

    return (at(STEP) - at(-STEP)) / (2 * STEP)


def relative_error(actual, expected):
    """‖actual − expected‖ / ‖expected‖ over a tensor or a list of tensors."""
    actual, expected = flat(actual), flat(expected)
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


def dot(x, y):
    return float(flat(x) @ flat(y))


def flat(tensors):
    """All components of a tensor or a list of tensors, in float64."""
    return np.concatenate(
        [np.asarray(t, "float64").ravel() for t in tf.nest.flatten(tensors) if t is not None]
    )


def leaking(x):
    """sin(x), by a function that TensorFlow cannot look into: no rule can mend it."""
    return tf.ensure_shape(tf.numpy_function(np.sin, [x], x.dtype), x.shape)
