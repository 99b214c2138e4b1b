"""What one row of a table is: a function, the point where it is differentiated, and what is due."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

THIRD = {"graph": 3, "eager": 2, "xla": 3}
LARGE = 100_000  # kernels are random anyway
# The highest order with respect to weights, where a case does not say less.
WEIGHTS = {"graph": 3, "eager": 1, "xla": 2}


@dataclasses.dataclass(frozen=True)
class Case:
    """One function, layer or model, and what its derivatives must do.

    Attributes:
        name: The public name, with the variant in parentheses.
        build: Returns a function of the inputs, a layer, a model, or `(function, variables)`.
        inputs: The point: NumPy arrays, or shapes of random ones.
        training: Whether a layer is called with `training=True`.
        call: How to call what `build` returns, if it is not `function(*inputs)`.
        wrt: What is differentiated by, of "inputs" and "weights"; weights only where there are any.
        orders: The highest order, by mode; a mode that is left out is not run.
        leak: The op that the `LeakError` must name; empty where the derivatives must be exact.
        leak_order: The lowest order at which it is raised.
        lean: Whether it is so large that each order is taken in one way alone.
        surrogate: The function whose derivative is declared instead of the true one, if one is.
        floatx: The precision that Keras is set to; layers that draw numbers may know no other.
        random: Whether XLA draws other numbers than TensorFlow.
        xla_fails: Why XLA fails in the derivatives though it compiles the forward pass, if it does.
        step: Of the central differences.
        tolerance: Of their relative error.
        fast: Whether the case belongs to the sample in the fast tests.
        note: For the reader of the coverage.
    """

    name: str
    build: Callable
    inputs: tuple = ()
    training: bool = False
    call: Callable | None = None
    wrt: tuple = ("inputs", "weights")
    orders: dict = dataclasses.field(default_factory=lambda: {"graph": 3, "eager": 2, "xla": 2})
    leak: str = ""
    leak_order: int = 1
    lean: bool = False
    surrogate: Callable | None = None
    floatx: str = "float64"
    random: bool = False
    xla_fails: str = ""
    step: float = 1e-5
    tolerance: float = 1e-6
    fast: bool = False
    note: str = ""

    def points(self):
        """The inputs as tensors."""
        generator = np.random.default_rng(len(self.name))
        return [
            tf.constant(self._array(generator.normal(size=v) if isinstance(v, tuple) else v))
            for v in self.inputs
        ]

    def _array(self, value):
        value = np.asarray(value)
        return value.astype(self.floatx) if value.dtype == "float64" else value

    def subject(self, points):
        """`(fn, variables)`: a function of a list of tensors, and the weights it reads."""
        built = self.build()
        function, variables = built if isinstance(built, tuple) else (built, [])
        call = self.call or _call_of(function, len(points), self.training)
        call(function, *points)  # builds the layer
        if isinstance(function, keras.layers.Layer):
            randomize(function)
            variables = function.trainable_variables
        return lambda xs: call(function, *xs), [getattr(v, "value", v) for v in variables]


def _call_of(function, count, training):
    if not isinstance(function, keras.layers.Layer):
        return lambda function, *xs: function(*xs)

    def call(layer, *xs):
        return layer(list(xs) if count > 1 else xs[0], training=training)

    return call


def stateless(layer, *xs):
    """A random layer in training, with the same seed in every call."""
    xs = list(xs) if len(xs) > 1 else xs[0]
    if not layer.built:
        layer(xs, training=True)
    variables = [v.value for v in layer.non_trainable_variables]
    weights = [v.value for v in layer.trainable_variables]
    return layer.stateless_call(weights, variables, xs, training=True)[0]


def randomize(layer):
    """Random weights for all variables: biases and moving statistics must not be 0 and 1."""
    generator = np.random.default_rng(7)
    for variable in layer.variables:
        if variable.dtype.startswith("float") and np.prod(variable.shape) < LARGE:
            fan_in = np.prod(variable.shape[:-1]) if len(variable.shape) > 1 else 4
            values = generator.normal(size=variable.shape) / np.sqrt(fan_in)
            positive = "variance" in variable.path
            variable.assign(np.abs(values) + 0.5 if positive else values)


def op(name, function, *inputs, **options):
    """The case of a plain function of its inputs."""
    return Case(name, lambda: function, inputs, **options)


@dataclasses.dataclass(frozen=True)
class Listed:
    """A name of a namespace for which there is nothing to check, and why."""

    name: str
    reason: str


def listed(reason, names):
    return [Listed(name, reason) for name in names.split()]


# --- points ---------------------------------------------------------------------------------------


def positive(*shape, seed=3):
    return np.random.default_rng(seed).uniform(0.5, 1.5, shape)


def unit(*shape, seed=4):
    """Between -0.9 and 0.9, away from zero."""
    generator = np.random.default_rng(seed)
    return generator.uniform(0.1, 0.9, shape) * generator.choice([-1, 1], shape)


def spread(*shape, seed=2):
    """Between -2 and 2, no two values close to each other."""
    values = np.linspace(-2.0, 2.0, int(np.prod(shape)))
    return np.random.default_rng(seed).permutation(values).reshape(shape)


def probabilities(*shape, seed=5):
    values = np.random.default_rng(seed).uniform(0.2, 1.0, shape)
    return values / values.sum(-1, keepdims=True)


def image(*shape, seed=6):
    """Between 0 and 1, as the preprocessing of images expects."""
    return np.random.default_rng(seed).uniform(0.1, 0.9, shape)


def spd(n, seed=8):
    """Symmetric, positive definite, distinct eigenvalues."""
    a = np.random.default_rng(seed).normal(size=(n, n))
    return a @ a.T / n + np.diag(np.arange(1.0, n + 1))


def well_conditioned(n, seed=9):
    return np.random.default_rng(seed).normal(size=(n, n)) / 2 + 2 * np.eye(n)
