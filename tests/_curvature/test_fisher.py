"""`fisher`: against closed forms and sums over all targets, with Jacobians of plain tapes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_fwd

losses = keras.losses
pytestmark = pytest.mark.usefixtures("float64")

N, D, K = 5, 2, 3
RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(N, D))
LABELS = np.array([0, 2, 1, 2, 0])
ONE_HOT = np.eye(K)[LABELS]
BINARY = np.array([[0.0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 1]])
COUNTS = RANDOM.poisson(2.0, size=(N, K)).astype(float)


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def normal(z):
    return 2 / (N * K) * np.eye(K) + 0 * z[:, :, None]


def categorical(z):
    p = softmax(z)
    return (np.einsum("nk,kl->nkl", p, np.eye(K)) - np.einsum("nk,nl->nkl", p, p)) / N


def bernoulli(z):
    p = sigmoid(z)
    return np.einsum("nk,kl->nkl", p * (1 - p), np.eye(K)) / (N * K)


def poisson(rate):
    # Keras takes the logarithm of the rate and 1e-7, which tells in the seventh digit.
    return np.einsum("nk,kl->nkl", rate / (rate + 1e-7) ** 2, np.eye(K)) / (N * K)


def made(name, **options):
    """A loss to be made later, in the float type of that time."""
    return lambda: getattr(losses, name)(**options)


# name: (activation, loss, targets, information in the leaf, whether the leaf is before activation)
CASES = {
    "mse": (None, lambda: "mse", BINARY, normal, True),
    "mse of a sum": (
        None,
        made("MeanSquaredError", reduction="sum"),
        BINARY,
        lambda z: N * normal(z),
        True,
    ),
    "classes at logits": (
        None,
        made("SparseCategoricalCrossentropy", from_logits=True),
        LABELS,
        categorical,
        True,
    ),
    "classes summed": (
        None,
        made("CategoricalCrossentropy", from_logits=True, reduction="sum"),
        ONE_HOT,
        lambda z: N * categorical(z),
        True,
    ),
    "smoothed labels": (
        "softmax",
        made("CategoricalCrossentropy", label_smoothing=0.2),
        ONE_HOT,
        categorical,
        True,
    ),
    "softmax": ("softmax", lambda: "sparse_categorical_crossentropy", LABELS, categorical, True),
    "sigmoid": ("sigmoid", lambda: "binary_crossentropy", BINARY, bernoulli, True),
    "Bernoulli at logits": (
        None,
        made("BinaryCrossentropy", from_logits=True),
        BINARY,
        bernoulli,
        True,
    ),
    "poisson": ("exponential", lambda: "poisson", COUNTS, poisson, False),
}
CANONICAL = [name for name in CASES if name != "poisson"]


def net(activation, seed=0):
    keras.utils.set_random_seed(seed)
    hidden = keras.layers.Dense(3, activation="tanh", bias_initializer="normal")
    last = keras.layers.Dense(K, bias_initializer="normal", name="last")
    model = keras.Sequential([keras.Input((D,)), hidden, last])
    model.logits = keras.Model(model.inputs[0], last.output)
    if activation:
        model.add(keras.layers.Activation(activation))
    return model


def jacobian(function, variables):
    """`[examples, outputs, weights]`, by reverse mode."""
    with tf.GradientTape() as tape:
        y = function()
    parts = tape.jacobian(y, variables, unconnected_gradients="zero")
    return np.concatenate([np.reshape(part, (*y.shape, -1)) for part in parts], axis=-1)


def in_weights(J, blocks):
    return np.einsum("nkw,nkl,nlv->wv", J, blocks, J)


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("name", CASES)
def test_type_2_is_the_closed_form(name, mode):
    activation, loss, _, information, before = CASES[name]
    model, loss = net(activation), loss()
    leaf = model.logits if before else model
    J = jacobian(lambda: leaf(X), [v.value for v in model.trainable_variables])
    expected = in_weights(J, information(leaf(X).numpy()))

    def dense():
        return keras_fwd.fisher(model, loss, tf.constant(X)).to_dense()

    run = dense if mode == "eager" else tf.function(dense, jit_compile=mode == "xla")
    np.testing.assert_allclose(run(), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", CANONICAL)
def test_type_2_is_the_gauss_newton_matrix_for_canonical_outputs(name):
    activation, loss, targets, _, _ = CASES[name]
    model, loss = net(activation), loss()
    F = keras_fwd.fisher(model, loss, X).to_dense()
    G = keras_fwd.gauss_newton(model, loss, X, targets).to_dense()
    np.testing.assert_allclose(F, G, rtol=1e-9, atol=1e-14)


def log_likelihoods(model, x, variables, targets):
    """Gradients of log p(target) of one example, for each target: `[targets, weights]`."""

    def log_p():
        return tf.gather(tf.nn.log_softmax(model.logits(x[None])[0]), targets)

    return jacobian(log_p, variables)


def test_type_2_is_the_sum_over_all_classes():
    model = net("softmax")
    variables = [v.value for v in model.trainable_variables]
    expected = 0.0
    for x in X:
        g = log_likelihoods(model, x, variables, np.arange(K))
        expected += np.einsum("c,cw,cv->wv", model(x[None])[0].numpy(), g, g) / N
    F = keras_fwd.fisher(model, "sparse_categorical_crossentropy", X)
    np.testing.assert_allclose(F.to_dense(), expected, rtol=1e-8, atol=1e-13)


def test_type_2_of_probabilities_without_logits():
    """Keras divides by their sum, so the information is that of the normalized outputs."""
    q = np.abs(RANDOM.normal(size=(N, K))) + 0.2
    loss = losses.CategoricalCrossentropy()
    F = keras_fwd.fisher(tf.identity, loss, q, wrt="outputs").to_dense().numpy()
    total = q.sum(axis=1, keepdims=True)
    blocks = np.einsum("nk,kl->nkl", 1 / (q * total), np.eye(K)) - 1 / total[..., None] ** 2
    for n in range(N):
        here = slice(n * K, (n + 1) * K)
        np.testing.assert_allclose(F[here, here], blocks[n] / N, rtol=1e-6, atol=1e-12)


# The loss of an example as a log-likelihood is that of Keras times its independent entries.
@pytest.mark.parametrize(
    ("name", "entries"),
    [("classes at logits", 1), ("softmax", 1), ("mse", K), ("sigmoid", K), ("poisson", K)],
)
def test_empirical_is_the_mean_of_outer_products_of_gradients(name, entries):
    activation, loss, targets, _, _ = CASES[name]
    model, loss = net(activation), loss()
    variables = [v.value for v in model.trainable_variables]
    expected = 0.0
    for x, y in zip(X, targets, strict=True):
        value = keras.losses.get(loss)
        (g,) = jacobian(
            lambda x=x, y=y, value=value: tf.reshape(value(y[None], model(x[None])), [1]),
            variables,
        )
        expected += entries * np.outer(g, g) / N
    F = keras_fwd.fisher(model, loss, X, kind="empirical", targets=targets)
    np.testing.assert_allclose(F.to_dense(), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("name", CASES)
def test_monte_carlo_is_unbiased(name, mode):
    """Of 20 000 equal examples, in the mean, against the exact one of them."""
    if name == "poisson" and mode == "xla":
        pytest.skip("TensorFlow has no kernel for Poisson numbers under XLA")
    activation, loss, _, _, _ = CASES[name]
    model, loss = net(activation), loss()
    many = tf.constant(np.repeat(X[:1], 20000, axis=0))

    def dense(kind):
        return keras_fwd.fisher(model, loss, many, wrt=[model.layers[1].bias], kind=kind).to_dense()

    run = dense if mode == "eager" else tf.function(dense, jit_compile=mode == "xla")
    found, exact = run("monte-carlo").numpy(), dense("type-2").numpy()
    np.testing.assert_allclose(found, exact, atol=0.04 * abs(exact).max())


def test_monte_carlo_draws_by_its_seed():
    model = net("softmax")

    def drawn(seed):
        loss = "sparse_categorical_crossentropy"
        return keras_fwd.fisher(model, loss, X, kind="monte-carlo", seed=seed).to_dense().numpy()

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert np.abs(drawn(1) - drawn(2)).max() > 1e-3
    assert np.linalg.matrix_rank(drawn(1)) <= N


@pytest.mark.parametrize("kind", ["type-2", "monte-carlo"])
@pytest.mark.parametrize("z", [[0.0, 0.0, 0.0], [40.0, 0.0, -40.0], [800.0, 0.0, 0.0]])
def test_probabilities_near_0_and_1_stay_finite_and_right(z, kind):
    z = np.array([z])
    for activation, loss, closed in (
        (keras.activations.softmax, "categorical_crossentropy", categorical),
        (keras.activations.sigmoid, "binary_crossentropy", bernoulli),
    ):
        F = keras_fwd.fisher(activation, loss, z, wrt="outputs", kind=kind).to_dense().numpy()
        assert np.all(np.isfinite(F))
        assert np.linalg.eigvalsh(F).min() >= -1e-15
        if kind == "type-2":
            with np.errstate(over="ignore"):
                expected = N * closed(z)[0]  # of a single example
            np.testing.assert_allclose(F, expected, rtol=1e-9, atol=1e-16)


def test_several_outputs_are_independent():
    inputs = keras.Input((D,))
    hidden = keras.layers.Dense(3, activation="tanh")(inputs)
    a = keras.layers.Dense(K, name="a")(hidden)
    b = keras.layers.Dense(K, activation="softmax", name="b")(hidden)
    model = keras.Model(inputs, {"a": a, "b": b})
    variables = [v.value for v in model.trainable_variables]
    loss = {"a": "mse", "b": "sparse_categorical_crossentropy"}
    F = keras_fwd.fisher(model, loss, X)
    Ja = jacobian(lambda: model(X)["a"], variables)
    z = np.log(model(X)["b"].numpy())  # the logits, but for a number that softmax does not see
    Jb = jacobian(lambda: tf.math.log(model(X)["b"]), variables)
    # log softmax: its Jacobian differs from that of the logits by what the information removes.
    expected = in_weights(Ja, normal(z)) + in_weights(Jb, categorical(z))
    np.testing.assert_allclose(F.to_dense(), expected, rtol=1e-8, atol=1e-13)
    H = keras_fwd.fisher(model, loss, X, wrt="outputs")
    assert set(H.in_spec) == {"a", "b"}
    v = {"a": RANDOM.normal(size=(N, K)), "b": RANDOM.normal(size=(N, K))}
    product = H(v)
    np.testing.assert_allclose(product["a"], 2 / (N * K) * v["a"], rtol=1e-9)
    np.testing.assert_allclose(
        product["b"], np.einsum("nkl,nl->nk", categorical(z), v["b"]), rtol=1e-8
    )


def test_masked_steps_of_sequences_are_left_out():
    """Of the sum and of what it is divided by, exact or drawn."""
    x = RANDOM.normal(size=(2000, 4, 1))
    x[:, 3] = 0.0
    inputs = keras.Input((4, 1))
    masked = keras.layers.Masking()(inputs)
    outputs = keras.layers.Dense(2, activation="softmax")(masked)
    model = keras.Model(inputs, outputs)
    loss = losses.CategoricalCrossentropy()
    exact = keras_fwd.fisher(model, loss, x).to_dense().numpy()
    drawn = keras_fwd.fisher(model, loss, x, kind="monte-carlo").to_dense().numpy()
    np.testing.assert_allclose(drawn, exact, atol=0.1 * abs(exact).max())
    p = model(x).numpy()[:, :3]
    F = np.einsum("ntk,kl->kl", p, np.eye(2)) - np.einsum("ntk,ntl->kl", p, p)
    np.testing.assert_allclose(exact[-2:, -2:], F / (2000 * 3), rtol=1e-6)


def test_the_hessian_of_the_loss_in_the_outputs():
    """`gauss_newton(wrt="outputs")`, of a loss that is no likelihood."""
    y = X[:, :1]

    def loss(target, output):
        return tf.reduce_mean((target - output) ** 4, axis=-1)

    H = keras_fwd.gauss_newton(lambda x: 2 * x, loss, X[:, 1:], y, wrt="outputs")
    expected = np.diag(12 * (2 * X[:, 1] - X[:, 0]) ** 2 / N)
    np.testing.assert_allclose(H.to_dense(), expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "exact"}, "`kind` must be one of 'type-2'"),
        ({"kind": "empirical"}, "needs `targets`"),
        ({"targets": BINARY}, "takes the targets that the model predicts"),
        ({"loss": "huber"}, "negative log-likelihood.*Received: loss='?huber"),
        ({"loss": "kl_divergence"}, "negative log-likelihood"),
        ({"seed": -1}, "`seed` must be a whole number"),
        ({"wrt": "bias"}, '`wrt` must be "inputs"'),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    options = {"loss": "mse", **arguments}
    with pytest.raises(keras_fwd.ConfigurationError, match=message):
        keras_fwd.fisher(net(None), options.pop("loss"), X, **options)


def test_a_loss_that_leaves_a_class_out_needs_targets():
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    with pytest.raises(keras_fwd.ConfigurationError, match="ignore_class"):
        keras_fwd.fisher(net(None), loss, X)
