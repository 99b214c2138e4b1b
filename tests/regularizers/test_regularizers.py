"""Penalties on derivatives by the inputs: values, gradients, what they refuse."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import MODES, random, randomize

from keras_fwd import regularizers as R

L = keras.layers
#: Central differences of fourth and eighth order: (f(−2h) − 8 f(−h) + 8 f(h) − f(2h)) / 12h.
FOURTH = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}
EIGHTH = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}
EIGHTH |= {-step: -weight for step, weight in EIGHTH.items()}


@dataclasses.dataclass(frozen=True)
class Net:
    """A small model.

    Attributes:
        layers: Returns it.
        shape: Of its inputs, with the batch.
        step: Of the differences by the weights.
        step_by_inputs: Of those by the inputs.
        stencil: Of both.
    """

    layers: Callable
    shape: tuple
    step: float = 1e-6
    step_by_inputs: float = 1e-4
    stencil: dict = dataclasses.field(default_factory=lambda: FOURTH)


def attention():
    x = keras.Input([3, 4])
    y = L.MultiHeadAttention(num_heads=2, key_dim=2)(x, x)
    return keras.Model(x, L.Dense(2)(L.Flatten()(y)))


def sequential(*layers):
    return keras.Sequential([*layers, L.Flatten(), L.Dense(2)])


def upsampling(activation):
    # TensorFlow resizes in float32, whatever it is given: differences over long steps alone have
    # enough digits.
    return Net(
        lambda: sequential(
            keras.Input([2, 2, 2]),
            L.UpSampling2D(2, interpolation="bilinear"),
            L.Conv2D(2, 3, activation=activation),
        ),
        (3, 2, 2, 2),
        step=0.1,
        step_by_inputs=0.1,
        stencil=EIGHTH,
    )


NETS = {
    "dense": Net(lambda: sequential(keras.Input([3]), L.Dense(4, "tanh")), (3, 3)),
    "conv": Net(
        lambda: sequential(
            keras.Input([4, 4, 2]),
            L.Conv2D(2, 3, padding="same", activation="tanh"),
            L.BatchNormalization(),
            L.MaxPooling2D(2),
        ),
        (3, 4, 4, 2),
    ),
    "layer norm": Net(
        lambda: sequential(keras.Input([4]), L.Dense(4, "tanh"), L.LayerNormalization()), (3, 4)
    ),
    "group norm": Net(
        lambda: sequential(keras.Input([4]), L.Dense(8, "tanh"), L.GroupNormalization(2)), (3, 4)
    ),
    "lstm": Net(lambda: sequential(keras.Input([3, 2]), L.LSTM(3)), (3, 3, 2)),
    "attention": Net(attention, (3, 3, 4)),
    "upsampling": upsampling("tanh"),
    "linear upsampling": upsampling(None),
}

PENALTIES = {
    "JacobianNorm": lambda: R.JacobianNorm(0.5, num_projections=2),
    "JacobianNorm exact": lambda: R.JacobianNorm(0.5, num_projections="exact"),
    "JacobianNorm weights": lambda: R.JacobianNorm(0.5, "exact", features={0: 3.0}),
    "SpectralJacobian": lambda: R.SpectralJacobian(0.5, num_iterations=200),
    "Lipschitz": lambda: R.Lipschitz(0.5, bound=1e-3, num_iterations=200),
    "Directional": lambda: R.Directional(0.5, lambda x: tf.stack([tf.ones_like(x), tf.cos(x)])),
    "InputGradient": lambda: R.InputGradient(0.5),
    "GradientPenalty": lambda: R.GradientPenalty(0.5, target=0.1),
    "Contractive": lambda: R.Contractive(0.5),
    "LocalLinearity": lambda: R.LocalLinearity(0.5, epsilon=0.3),
    "Curvature": lambda: R.Curvature(0.5, step=0.3),
    "Monotonic": lambda: R.Monotonic(0.5, [0, 1], [1, -1]),
}


def setting(penalty, net):
    """`(regularizer, model, x, targets)`."""
    model = NETS[net].layers()
    if penalty == "GradientPenalty":
        model = keras.Sequential([model, L.Dense(1)])
    randomize(model)
    model.compile(loss="mse")
    x = random(NETS[net].shape, 8 if penalty == "Monotonic" else 1)  # away from its kinks
    regularizer = PENALTIES[penalty]()
    if net == "conv" and hasattr(regularizer, "num_iterations"):
        regularizer.num_iterations = 2000  # it converges slowly where examples are mixed
    return regularizer, model, x, random([len(x), model.output_shape[-1]], 2)


def slow_unless(fast, *values):
    return pytest.param(*values, marks=[] if fast else pytest.mark.slow)


LONG = ("SpectralJacobian", "Lipschitz")  # power iterations to the last digit


# Not smooth over steps as long as those of an upsampling.
KINKS = ("Curvature", "GradientPenalty", "LocalLinearity", "Monotonic")


def due(penalty, net, mode):
    """Whether a combination is run: all in graphs, and of the other modes those that differ."""
    if "upsampling" in net and (net == "linear upsampling") != (penalty == "LocalLinearity"):
        return False  # where steps along signs are long and the loss is no parabola, it jumps
    if mode == "eager":
        return net == "dense" or (net == "conv" and penalty not in LONG)
    if mode == "xla":
        # TensorFlow compiles no third derivative of a loop: not `Directional` of an LSTM.
        compiled = ("JacobianNorm", "InputGradient", "SpectralJacobian")
        return net in ("dense", "attention") or (net == "lstm" and penalty in compiled)
    return True


@pytest.mark.parametrize(
    ("penalty", "net", "mode"),
    [
        slow_unless(mode == "graph" and net in ("dense", "conv"), penalty, net, mode)
        for penalty in PENALTIES
        for net in NETS
        for mode in MODES
        if due(penalty, net, mode)
    ],
)
def test_the_gradient_by_every_weight_is_exact(penalty, net, mode, float64):
    regularizer, model, x, targets = setting(penalty, net)
    variables = [v.value for v in model.trainable_variables]

    def value_and_gradient(x, targets):
        with tf.GradientTape() as tape:
            value = regularizer(model, x, targets, training=True, seed=3)
        return value, tape.gradient(value, variables, unconnected_gradients="zero")

    h = 0.02 if "upsampling" in net and penalty in KINKS else NETS[net].step
    run = MODES[mode](value_and_gradient)
    value, gradient = run(x, targets)
    # Values at other weights are of a graph, where they take no time.
    again = run if mode != "eager" else tf.function(lambda x, y: [value_and_gradient(x, y)[0]])
    np.testing.assert_allclose(again(x, targets)[0], value, rtol=1e-10)
    for variable, slope in zip(model.trainable_variables, gradient, strict=True):
        u = random(variable.shape, 5)
        u /= tf.norm(u)
        start = tf.identity(variable.value)
        difference = 0.0
        for steps, weight in NETS[net].stencil.items():
            variable.assign(start + steps * h * u)
            difference += weight * float(again(x, targets)[0]) / h
        variable.assign(start)
        found = float(tf.reduce_sum(slope * u))
        scale = max(abs(difference), float(value))
        assert abs(found - difference) < 1e-5 * scale, variable.path


def dense_jacobian(function, x, step=1e-4, stencil=FOURTH):
    """∂y/∂x of a whole batch by central differences, `[batch, out, batch, in]`."""
    x = np.array(x)
    columns = []
    for index in np.ndindex(x.shape):
        column = 0.0
        for steps, weight in stencil.items():
            at = x.copy()
            at[index] += steps * step
            column += weight * np.asarray(function(tf.constant(at))) / step
        columns.append(column)
    batch = len(x)
    J = np.stack(columns, axis=-1).reshape([batch, -1, batch, x[0].size])
    return J


def per_example(function, x, *difference):
    J = dense_jacobian(function, x, *difference)
    return np.stack([J[i, :, i] for i in range(len(J))])


def loss_gradient(model, x, targets, *difference):
    def losses(x):
        y = model(x, training=False)
        return tf.reduce_mean((y - targets) ** 2, axis=1)[:, None]

    return losses, per_example(losses, x, *difference)[:, 0]


def expected(name, regularizer, model, x, targets, *difference):
    """The penalty by dense Jacobians from central differences, in NumPy."""
    function = tf.function(lambda x: model(x, training=False))
    J = per_example(function, x, *difference)
    if name in ("JacobianNorm exact", "Contractive"):
        return np.mean(np.sum(J**2, axis=(1, 2)))
    if name == "JacobianNorm weights":
        weights = np.ones(x.shape[1:])
        weights[..., 0] = 3
        return np.mean(np.sum(J**2 * weights.ravel(), axis=(1, 2)))
    sigma = np.linalg.norm(J, ord=2, axis=(1, 2))
    if name == "SpectralJacobian":
        return np.mean(sigma)
    if name == "Lipschitz":
        return np.mean(np.maximum(sigma - regularizer.bound, 0) ** 2)
    flat = np.reshape(x, [len(x), -1])
    if name == "Directional":
        return sum(
            np.mean(np.sum(np.einsum("boi,bi->bo", J, t) ** 2, axis=1))
            for t in (np.ones_like(flat), np.cos(flat))
        )
    if name == "Monotonic":
        J = J.reshape([*J.shape[:2], *x.shape[1:]])
        wrong = np.maximum(-J[..., 0], 0) ** 2, np.maximum(J[..., 1], 0) ** 2
        return np.mean(np.sum(np.sum(wrong, axis=0).reshape([len(x), -1]), axis=1))
    _, g = loss_gradient(model, x, targets, *difference)
    if name == "InputGradient":
        return np.mean(np.sum(g**2, axis=1))
    assert name == "Curvature"
    z = np.sign(g) / np.linalg.norm(np.sign(g), axis=1, keepdims=True)
    moved = x + regularizer.step * z.reshape(x.shape)
    _, there = loss_gradient(model, moved, targets, *difference)
    return np.mean(np.sum((there - g) ** 2, axis=1))


ORACLES = [
    name
    for name in PENALTIES
    if name not in ("JacobianNorm", "GradientPenalty", "LocalLinearity")  # they draw at random
]


@pytest.mark.parametrize(
    ("penalty", "net"),
    [
        slow_unless(net in ("dense", "conv"), penalty, net)
        for penalty in ORACLES
        for net in NETS
        if due(penalty, net, "graph")
    ],
)
def test_values_are_those_of_dense_jacobians(penalty, net, float64):
    regularizer, model, x, targets = setting(penalty, net)
    difference = NETS[net].step_by_inputs, NETS[net].stencil
    wanted = 0.5 * expected(penalty, regularizer, model, x, targets, *difference)
    found = float(tf.function(regularizer)(model, x, targets))
    assert abs(found - wanted) < 1e-5 * abs(wanted)


def test_interpolates_of_a_critic(float64):
    critic = keras.Sequential([keras.Input([3]), L.Dense(4, "tanh"), L.Dense(1)])
    a, b = random([5, 3], 1), random([5, 3], 2)
    epsilon = np.asarray(tf.random.stateless_uniform([5], [7, 8], dtype=tf.float64))[:, None]
    J = per_example(critic, np.asarray(a + epsilon * (b - a)))[:, 0]
    wanted = 3.0 * np.mean((np.linalg.norm(J, axis=1) - 0.5) ** 2)
    found = R.GradientPenalty(3.0, target=0.5).between(critic, a, b, seed=[7, 8])
    assert abs(float(found) - wanted) < 1e-6


def test_in_fit_the_interpolates_lie_between_the_halves_of_a_batch(float64):
    # Linear between two constants: the gradient has length 1 between the halves alone.
    critic = L.Lambda(lambda x: tf.where(tf.abs(x) < 1.0, x, 5.0 * x))
    x = tf.constant([[-1.0], [-1.0], [1.0], [1.0]], tf.float64)
    assert float(R.GradientPenalty(1.0)(critic, x)) < 1e-12


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_local_linearity_of_a_quadratic_loss(weight, float64):
    model = keras.Sequential([keras.Input([2]), L.Dense(1, use_bias=False)])
    model.compile(loss="mse")
    model.layers[0].kernel.assign([[1.0], [-2.0]])
    x, y = random([4, 2], 1), random([4, 1], 2)
    # ℓ(x + δ) − ℓ(x) − δᵀ∇ℓ = (wᵀδ)², largest in a corner of the box: (0.1 · 3)². There
    # δᵀ∇ℓ = ±0.3 · 2 (wᵀx − y).
    wanted = 0.09 + weight * 0.6 * np.mean(np.abs(model(x) - y))
    found = R.LocalLinearity(1.0, epsilon=0.1, gradient_weight=weight)(model, x, y)
    assert abs(float(found) - wanted) < 1e-10


@pytest.mark.parametrize("features", [None, {0: 4.0}])
@pytest.mark.parametrize("shape", [(2, 5), (5, 2)])
def test_random_projections_are_unbiased(shape, features, float64):
    layer = L.Dense(shape[1], "tanh")
    x = random([3, shape[0]])
    exact = float(R.JacobianNorm(1.0, "exact", features)(layer, x))
    estimate = tf.function(lambda seed: R.JacobianNorm(1.0, 1, features)(layer, x, seed=seed))
    draws = np.array([float(estimate(tf.constant(seed))) for seed in range(2000)])
    error = draws.std(ddof=1) / np.sqrt(len(draws))
    assert error > 0 and abs(draws.mean() - exact) < 3 * error


def test_random_projections_are_unbiased_where_examples_are_mixed(float64):
    model = keras.Sequential([keras.Input([2]), L.Dense(3, "tanh"), L.BatchNormalization()])
    x = random([4, 2])
    J = dense_jacobian(tf.function(lambda x: model(x, training=True)), x)
    for penalty in (R.JacobianNorm(1.0), R.JacobianNorm(1.0, "exact")):
        estimate = tf.function(lambda seed, p=penalty: p(model, x, training=True, seed=seed))
        draws = np.array([float(estimate(tf.constant(seed))) for seed in range(500)])
        error = draws.std(ddof=1) / np.sqrt(len(draws))
        assert error > 0 and abs(draws.mean() - np.sum(J**2) / 4) < 3 * error
