"""Loss Hessians, their roots and the Gauss-Newton matrix, against slow dense oracles."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_fwd
from keras_fwd._curvature import loss_hessian, weight_penalties
from keras_fwd._models import model_losses
from keras_fwd._models import training_pass as model
from keras_fwd._spaces import nest

layers = keras.layers
losses = keras.losses


pytestmark = pytest.mark.usefixtures("float64")


def net(*stack, inputs=3):
    shape = inputs if isinstance(inputs, tuple) else (inputs,)
    return keras.Sequential([keras.Input(shape), *stack])


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def make(name, **arguments):
    """A loss object to be made later: it keeps the float type that is set at that time."""
    return name, arguments


def made_loss(loss):
    return getattr(losses, loss[0])(**loss[1]) if isinstance(loss, tuple) else loss


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def jacobian(function, variables):
    """Dense, `[outputs, weights]`, by reverse mode: it shares no code with `linearize`."""
    with tf.GradientTape() as tape:
        outputs = tf.reshape(function(), [-1])
    columns = tape.jacobian(outputs, variables)
    return np.concatenate([c.numpy().reshape(len(outputs), -1) for c in columns], axis=1)


def hessian(function, point):
    """Dense Hessian of a scalar function at a tensor."""
    with tf.GradientTape() as outer:
        outer.watch(point)
        with tf.GradientTape() as inner:
            inner.watch(point)
            value = function(point)
        gradient = tf.reshape(inner.gradient(value, point), [-1])
    return outer.jacobian(gradient, point).numpy().reshape(len(gradient), -1)


def values(variables):
    return [variable.value for variable in variables]


# --- gauss_newton ---------------------------------------------------------------------------------

LABELS = np.array([0, 2, 1, 2, 0])
ONE_HOT = np.eye(3)[LABELS]
BINARY = np.array([[0.0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 1]])
POSITIVE = np.abs(draw(5, 3, seed=2)) + 0.1

# name: (activation of the outputs, loss, targets, loss of the leaf: outputs or logits)
ORACLES = {
    "mse": (None, "mse", BINARY, lambda z, y: tf.reduce_mean((z - y) ** 2)),
    "mse of a sum": (
        None,
        make("MeanSquaredError", reduction="sum"),
        BINARY,
        lambda z, y: tf.reduce_sum((z - y) ** 2) / 3,
    ),
    "huber": (
        None,
        make("Huber", delta=0.7),
        3 * BINARY,
        lambda z, y: tf.reduce_mean(
            tf.where(abs(z - y) < 0.7, (z - y) ** 2 / 2, 0.7 * abs(z - y) - 0.245)
        ),
    ),
    "log-cosh": (
        None,
        "log_cosh",
        BINARY,
        lambda z, y: tf.reduce_mean(tf.math.log(tf.cosh(z - y))),
    ),
    "poisson": (
        "exponential",
        "poisson",
        POSITIVE,
        lambda p, y: tf.reduce_mean(p - y * tf.math.log(p + 1e-7)),
    ),
    "a function": (
        None,
        lambda y, z: tf.reduce_mean((z - y) ** 4, axis=-1),
        BINARY,
        lambda z, y: tf.reduce_mean((z - y) ** 4),
    ),
}


def cross_entropy(z, y):
    return -tf.reduce_sum(y * tf.nn.log_softmax(z)) / 5


def binary_cross_entropy(z, y):
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=z))


SMOOTH = 0.8 * ONE_HOT + 0.2 / 3
AT_LOGITS = {
    "sparse, logits": (
        None,
        make("SparseCategoricalCrossentropy", from_logits=True),
        LABELS,
        ONE_HOT,
        cross_entropy,
    ),
    "sparse, softmax": (
        "softmax",
        "sparse_categorical_crossentropy",
        LABELS,
        ONE_HOT,
        cross_entropy,
    ),
    "one-hot, logits": (
        None,
        make("CategoricalCrossentropy", from_logits=True),
        ONE_HOT,
        ONE_HOT,
        cross_entropy,
    ),
    "one-hot, softmax": ("softmax", "categorical_crossentropy", ONE_HOT, ONE_HOT, cross_entropy),
    "smoothed, softmax": (
        "softmax",
        make("CategoricalCrossentropy", label_smoothing=0.2),
        ONE_HOT,
        SMOOTH,
        cross_entropy,
    ),
    "binary, logits": (
        None,
        make("BinaryCrossentropy", from_logits=True),
        BINARY,
        BINARY,
        binary_cross_entropy,
    ),
    "binary, sigmoid": (
        "sigmoid",
        "binary_crossentropy",
        BINARY,
        BINARY,
        binary_cross_entropy,
    ),
    "binary smoothed, sigmoid": (
        "sigmoid",
        make("BinaryCrossentropy", label_smoothing=0.2),
        BINARY,
        0.8 * BINARY + 0.1,
        binary_cross_entropy,
    ),
}
ORACLES |= {
    name: (activation, loss, targets, lambda z, _, y=y, f=f: f(z, y))
    for name, (activation, loss, targets, y, f) in AT_LOGITS.items()
}


def dense_oracle(name, hidden, head, x):
    activation, _, targets, loss = ORACLES[name]

    def leaf():
        z = head(hidden(x))
        return tf.exp(z) if activation == "exponential" else z

    J = jacobian(leaf, values([*hidden.trainable_variables, *head.trainable_variables]))
    return J.T @ hessian(lambda z: loss(z, tf.constant(targets, "float64")), leaf()) @ J


#: Pairs of these differ by the head or the targets alone.
MORE = ("mse of a sum", "one-hot, logits", "one-hot, softmax", "smoothed, softmax")
MORE += ("binary smoothed, sigmoid",)


@pytest.mark.parametrize(
    "name", [pytest.param(k, marks=[pytest.mark.slow] if k in MORE else []) for k in ORACLES]
)
def test_ggn_equals_the_dense_oracle(name):
    x = tf.constant(draw(5, 4))
    hidden, head = layers.Dense(2, activation="tanh"), layers.Dense(3)
    activation, loss, targets, _ = ORACLES[name]
    fn = net(hidden, head, layers.Activation(activation or "linear"), inputs=4)
    G = keras_fwd.gauss_newton(fn, made_loss(loss), x, targets).to_dense().numpy()
    np.testing.assert_allclose(G, dense_oracle(name, hidden, head, x), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", ["huber", "sparse, softmax", "poisson"])
def test_ggn_is_symmetric_and_positive_semi_definite(name):
    activation, loss, targets, _ = ORACLES[name]
    fn = net(layers.Dense(2, activation="tanh"), layers.Dense(3, activation=activation), inputs=4)
    G = keras_fwd.gauss_newton(fn, made_loss(loss), draw(5, 4), targets)
    dense = G.to_dense().numpy()
    np.testing.assert_allclose(dense, dense.T, atol=1e-14)
    assert np.linalg.eigvalsh(dense).min() > -1e-14
    u = [tf.constant(draw(*v.shape, seed=i)) for i, v in enumerate(fn.trainable_variables)]
    np.testing.assert_allclose(nest.ravel(G(u)), dense @ nest.ravel(u).numpy(), rtol=1e-10)


def test_ggn_equals_hessian_for_piecewise_linear_nets():
    # The Hessian of a relu net is JᵀHJ plus residual-weighted terms that mix two layers; in the
    # weights of one layer alone the net is linear, and both are the same.
    x, y = tf.constant(draw(6, 4)), tf.constant(draw(6, 2, seed=1))
    first, second = layers.Dense(3, activation="relu"), layers.Dense(2)
    fn = net(first, second, inputs=4)
    for layer in (first, second):
        variables = values([layer.kernel, layer.bias])
        G = keras_fwd.gauss_newton(fn, "mse", x, y, wrt=variables).to_dense().numpy()

        def gradient(layer=layer):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((fn(x) - y) ** 2)
            gradients = tape.gradient(loss, values([layer.kernel, layer.bias]))
            return np.concatenate([np.ravel(g) for g in gradients])

        columns = []
        for variable in variables:  # central differences of the gradient
            for index in np.ndindex(*variable.shape):
                saved = variable.numpy()
                ends = []
                for sign in (1, -1):
                    moved = saved.copy()
                    moved[index] += sign * 1e-6
                    variable.assign(moved)
                    ends.append(gradient())
                variable.assign(saved)
                columns.append((ends[0] - ends[1]) / 2e-6)
        np.testing.assert_allclose(G, np.stack(columns), atol=1e-8)


def test_ggn_equals_hessian_where_the_residuals_are_zero():
    x = tf.constant(draw(6, 4))
    fn = net(layers.Dense(3, activation="tanh"), layers.Dense(2), inputs=4)
    y = fn(x)
    variables = values(fn.trainable_variables)
    G = keras_fwd.gauss_newton(fn, "mse", x, y).to_dense()
    H = keras_fwd.hessian(lambda x: tf.reduce_mean((fn(x) - y) ** 2), x, wrt=variables).to_dense()
    np.testing.assert_allclose(G, H, atol=1e-13)


def test_ggn_of_several_outputs_is_the_sum():
    x, y = tf.constant(draw(5, 4)), draw(5, 2, seed=1)
    inputs = keras.Input((4,))
    trunk = layers.Dense(3, activation="tanh")(inputs)
    a, b = layers.Dense(2)(trunk), layers.Dense(3, activation="softmax")(trunk)
    entropy = "sparse_categorical_crossentropy"
    both = keras.Model(inputs, {"a": a, "b": b})
    variables = values(both.trainable_variables)
    G = keras_fwd.gauss_newton(both, {"a": "mse", "b": entropy}, x, {"a": y, "b": LABELS})
    parts = [
        keras_fwd.gauss_newton(lambda x: both(x)["a"], "mse", x, y, wrt=variables),
        keras_fwd.gauss_newton(lambda x: both(x)["b"], entropy, x, LABELS, wrt=variables),
    ]
    total = sum(part.to_dense().numpy() for part in parts)
    np.testing.assert_allclose(G.to_dense(), total, atol=1e-14)


def test_ggn_works_inside_a_graph_and_xla():
    x, y = tf.constant(draw(5, 4)), draw(5, 2, seed=1)
    fn = net(layers.Dense(2, activation="tanh"), layers.Dense(2), inputs=4)
    expected = keras_fwd.gauss_newton(fn, "mse", x, y).to_dense()
    for jit in (False, True):

        @tf.function(jit_compile=jit)
        def product(u):
            return keras_fwd.gauss_newton(fn, "mse", x, y)(u)

        u = [tf.ones_like(v) for v in values(fn.trainable_variables)]
        ones = np.ones(expected.shape[1])
        np.testing.assert_allclose(nest.ravel(product(u)), expected.numpy() @ ones, rtol=1e-10)


# --- losses without curvature ---------------------------------------------------------------------

FLAT = {
    "mae": "mae",
    "mape": "mape",
    "hinge": "hinge",
    "categorical hinge": "categorical_hinge",
    "an object": make("MeanAbsoluteError"),
    "absolute value": lambda y, p: tf.reduce_mean(tf.abs(y - p)),
    "hinge by hand": lambda y, p: tf.reduce_mean(keras.ops.maximum(1 - y * p, 0)),
    "quantile": lambda y, p: tf.reduce_mean(tf.where(y > p, 0.9 * (y - p), 0.1 * (p - y))),
    "linear": lambda y, p: tf.reduce_mean(y * p),
}


def hinge_by_relu(y, p):
    return tf.reduce_mean(tf.nn.relu(1 - y * p))


def test_a_hinge_by_relu_is_refused():
    fn = net(layers.Dense(3), inputs=4)
    with pytest.raises(keras_fwd.ConfigurationError):
        keras_fwd.gauss_newton(fn, hinge_by_relu, draw(5, 4), draw(5, 3))


@pytest.mark.parametrize("name", FLAT)
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_loss_without_curvature_is_refused(name, mode):
    fn, x, y = net(layers.Dense(3), inputs=4), draw(5, 4), draw(5, 3)

    def build():
        return keras_fwd.gauss_newton(fn, made_loss(FLAT[name]), x, y)(
            values(fn.trainable_variables)
        )

    with pytest.raises(keras_fwd.ConfigurationError, match=r"`loss`.*twice differentiable"):
        build() if mode == "eager" else tf.function(build)()


def test_one_loss_for_two_outputs_is_refused():
    inputs = keras.Input((4,))
    fn = keras.Model(inputs, [layers.Dense(1)(inputs), layers.Dense(1)(inputs)])
    with pytest.raises(keras_fwd.StructureError, match=r"one loss for each output.*Received: 1"):
        keras_fwd.gauss_newton(fn, "mse", draw(5, 4), [draw(5, 1), draw(5, 1)])


KINDS = [
    ("mse", False, "squares"),
    (make("MeanSquaredError"), False, "squares"),
    ("binary_crossentropy", True, "sigmoid"),
    ("binary_crossentropy", False, "entrywise"),
    (make("SparseCategoricalCrossentropy", from_logits=True), True, "softmax"),
    ("categorical_crossentropy", True, "softmax"),
    ("categorical_crossentropy", False, "general"),
    (make("CategoricalCrossentropy", axis=1), True, "general"),
    ("huber", False, "entrywise"),
    ("kl_divergence", False, "entrywise"),
    (make("CategoricalFocalCrossentropy"), True, "general"),
    pytest.param(lambda y, p: p, False, "general", id="a function-False-general"),
    (None, False, "general"),
]


@pytest.mark.parametrize(("loss", "at_logits", "kind"), KINDS)
def test_a_closed_form_is_used_only_where_it_holds(loss, at_logits, kind):
    loss = made_loss(loss)
    assert loss_hessian.loss_kind(loss and losses.get(loss), at_logits) == kind


# --- roots of the Hessian -------------------------------------------------------------------------


def training_pass(fn, loss, x, y, sample_weight=None, **compile_arguments):
    """The leaves of a compiled model on a batch, its pass, and the Hessian in the leaves."""
    fn.compile(optimizer="sgd", loss=made_loss(loss), **compile_arguments)
    made = model.TrainingPass(fn)
    batch = (x, y, sample_weight)
    made.batch = tuple(None if part is None else tf.convert_to_tensor(part) for part in batch)
    leaves = made(values(made.variables))["outputs"]
    return made, leaves, loss_hessian.loss_hessian(made.loss_of_leaves, leaves)


def root_squared(made, leaf, H):
    """The kind and `SᵀS`, with `S` the root applied to the unit vectors."""
    output = nest.flatten(made.outputs)[0]
    kind = loss_hessian.loss_kind(
        made.losses[0], model_losses.is_logits(leaf, output, made.losses[0])
    )
    size = int(tf.size(leaf))
    units = tf.reshape(tf.eye(size, dtype=leaf.dtype), [*leaf.shape, size])
    S = loss_hessian.hessian_root(kind, leaf, lambda vector: H._mv([vector])[0], units)
    S = S.numpy().reshape(-1, size)
    return kind, S.T @ S


def blocks(z, coefficients):
    """`c (diag(p) − p pᵀ)` for each row, as one matrix."""
    p = softmax(z).reshape(-1, z.shape[-1])
    total = np.zeros((z.size, z.size))
    for i, (row, c) in enumerate(zip(p, np.ravel(coefficients), strict=True)):
        where = slice(i * len(row), (i + 1) * len(row))
        total[where, where] = c * (np.diag(row) - np.outer(row, row))
    return total


def spread(z):
    s = 1 / (1 + np.exp(-z))
    return (s * (1 - s)).ravel()


W5 = np.array([0.5, 2.0, 0.0, 1.0, 3.0])
# name: (activations after Dense(3), loss, targets, sample weights, kind, Hessian at the logits)
ROOTS = {
    "mse": ([], "mse", BINARY, None, "squares", lambda z: np.eye(15) * 2 / 15),
    "mse, weighted": (
        [],
        "mse",
        BINARY,
        W5,
        "squares",
        lambda z: np.diag(np.repeat(W5, 3)) * 2 / 15,
    ),
    "softmax": (
        ["softmax"],
        "sparse_categorical_crossentropy",
        LABELS,
        None,
        "softmax",
        lambda z: blocks(z, np.ones(5) / 5),
    ),
    "softmax, weighted": (
        ["softmax"],
        "sparse_categorical_crossentropy",
        LABELS,
        W5,
        "softmax",
        lambda z: blocks(z, W5 / 5),
    ),
    "softmax, smoothed": (
        [],
        make("CategoricalCrossentropy", from_logits=True, label_smoothing=0.3),
        ONE_HOT,
        None,
        "softmax",
        lambda z: blocks(z, np.ones(5) / 5),
    ),
    "softmax of a sum": (
        [],
        make("SparseCategoricalCrossentropy", from_logits=True, reduction="sum"),
        LABELS,
        W5,
        "softmax",
        lambda z: blocks(z, W5),
    ),
    "sigmoid": (
        ["sigmoid"],
        "binary_crossentropy",
        BINARY,
        None,
        "sigmoid",
        lambda z: np.diag(spread(z)) / 15,
    ),
    "sigmoid, weighted": (
        [],
        make("BinaryCrossentropy", from_logits=True, label_smoothing=0.1),
        BINARY,
        W5,
        "sigmoid",
        lambda z: np.diag(spread(z) * np.repeat(W5, 3)) / 15,
    ),
}


@pytest.mark.parametrize("name", ROOTS)
def test_root_squared_is_the_hessian(name):
    activations, loss, y, weights, expected_kind, formula = ROOTS[name]
    head = layers.Dense(3)
    fn = net(head, *map(layers.Activation, activations), inputs=4)
    x = draw(5, 4)
    made, leaves, H = training_pass(fn, loss, x, y, weights)
    kind, squared = root_squared(made, leaves[0], H)
    assert kind == expected_kind
    expected = formula(head(x).numpy())
    np.testing.assert_allclose(squared, expected, atol=1e-12)
    np.testing.assert_allclose(H.to_dense(), expected, atol=1e-12)


def test_root_of_a_softmax_for_each_time_step_is_block_diagonal():
    head = layers.Dense(3)
    fn = net(head, layers.Activation("softmax"), inputs=(2, 4))
    x, y = draw(5, 2, 4), np.arange(10).reshape(5, 2) % 3
    weights = np.linspace(0, 1, 10).reshape(5, 2)
    made, leaves, H = training_pass(fn, "sparse_categorical_crossentropy", x, y, weights)
    kind, squared = root_squared(made, leaves[0], H)
    assert kind == "softmax"
    np.testing.assert_allclose(squared, blocks(head(x).numpy(), weights / 10), atol=1e-12)


@pytest.mark.parametrize("loss", ["mse", "categorical_crossentropy"])
def test_masked_steps_have_no_curvature(loss):
    x = draw(3, 4, 2)
    x[0, 2:] = x[1, 1:] = 0.0
    present = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1.0]])
    head = layers.Dense(3, activation="softmax" if loss != "mse" else None)
    fn = net(layers.Masking(), head, inputs=(4, 2))
    made, leaves, H = training_pass(fn, loss, x, np.eye(3)[np.arange(12).reshape(3, 4) % 3])
    _, squared = root_squared(made, leaves[0], H)
    # Keras averages over the steps that are present.
    if loss == "mse":
        expected = np.diag(np.repeat(present.ravel(), 3)) * 2 / 3 / present.sum()
    else:
        expected = blocks(leaves[0].numpy(), present / present.sum())
    np.testing.assert_allclose(squared, expected, atol=1e-12)


def test_loss_weights_scale_the_hessian():
    x, y = draw(5, 4), draw(5, 3)
    made, leaves, H = training_pass(net(layers.Dense(3), inputs=4), "mse", x, y, loss_weights=[3.0])
    np.testing.assert_allclose(root_squared(made, leaves[0], H)[1], np.eye(15) * 6 / 15, atol=1e-12)


def test_root_of_a_certain_softmax_is_finite_and_right():
    z = np.array([[800.0, 0, 0], [0.0, 0, 0], [-800, 0, 0], [40, 0, 0], [0, 1, 2.0]])
    fn = net(layers.Activation("linear"))
    fn.add(layers.Dense(3, kernel_initializer="identity"))
    entropy = make("SparseCategoricalCrossentropy", from_logits=True)
    made, leaves, H = training_pass(fn, entropy, z, LABELS)
    _, squared = root_squared(made, leaves[0], H)
    np.testing.assert_allclose(squared, blocks(z, np.ones(5) / 5), atol=1e-12)


def test_two_losses_on_one_output_add_up():
    inputs = keras.Input((4,))
    shared = layers.Dense(3)(inputs)
    fn = keras.Model(inputs, [shared, shared])
    x, y = draw(5, 4), BINARY
    fn.compile(optimizer="sgd", loss=["mse", "huber"])
    made = model.TrainingPass(fn)
    made.batch = (tf.constant(x), [tf.constant(y), tf.constant(y)], None)
    leaves = made(values(made.variables))["outputs"]
    total = loss_hessian.loss_hessian(made.loss_of_leaves, leaves).to_dense().numpy()
    together = total.reshape(2, 15, 2, 15).sum(axis=(0, 2))
    quadratic = np.abs(leaves[0].numpy() - y).ravel() < 1
    np.testing.assert_allclose(together, np.diag(2.0 + quadratic) / 15, atol=1e-12)


def test_softmax_outputs_with_from_logits_count_as_keras_counts_them():
    # Keras warns, and goes back to the logits all the same.
    head = layers.Dense(3)
    fn = net(head, layers.Activation("softmax"), inputs=4)
    x = draw(5, 4)
    entropy = make("SparseCategoricalCrossentropy", from_logits=True)
    with pytest.warns(UserWarning, match="does not represent logits"):
        made, leaves, H = training_pass(fn, entropy, x, LABELS)
        kind, squared = root_squared(made, leaves[0], H)
    assert kind == "softmax"
    np.testing.assert_allclose(squared, blocks(head(x).numpy(), np.ones(5) / 5), atol=1e-12)


def test_curvature_of_regularizers_is_that_of_their_l2_part():
    fn = net(
        layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.3), bias_regularizer="l1"),
        layers.Dense(2, kernel_regularizer=keras.regularizers.L1L2(0.1, 0.2)),
        inputs=2,
    )
    variables = fn.trainable_variables
    found = weight_penalties.diagonal(variables, values(variables))
    for entries, expected in zip(found, [0.6, 0.0, 0.4, 0.0], strict=True):
        np.testing.assert_allclose(entries, np.full(entries.shape, expected))
