"""The curvature callback: against dense oracles in float64, and as the other callbacks see it."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import STEP, leaking

import keras_fwd
from keras_fwd import spectrum
from keras_fwd.callbacks import CurvatureCallback, curvature
from keras_fwd.errors import ConfigurationError, KerasFwdError, LeakError, StructureError

pytestmark = pytest.mark.usefixtures("float64")
layers = keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(12, 3))
Y = 1 + X[:, :2] + 0.5 * RANDOM.normal(size=(12, 2))
LABELS = RANDOM.integers(0, 2, 12)
WEIGHTS = RANDOM.uniform(0.5, 2.0, 12)


def network(*stack, loss="mse", **arguments):
    stack = stack or (layers.Dense(4, "tanh", bias_initializer="normal"), layers.Dense(2))
    model = keras.Sequential([keras.Input([3]), *stack])
    model.compile(keras.optimizers.SGD(0.05), loss, **arguments)
    return model


def fit(model, callbacks, x=X, y=Y, epochs=1, **arguments):
    arguments = {"verbose": 0, "batch_size": 4, **arguments}
    return model.fit(x, y, epochs=epochs, callbacks=callbacks, **arguments).history


def measured(model, data=(X, Y), **arguments):
    """The logs of the model as it is: nothing is trained."""
    callback = CurvatureCallback(data, **{"num_iterations": 100, **arguments})
    callback.set_model(model)
    callback.on_train_begin()
    logs = {}
    callback.on_epoch_end(0, logs)
    return logs


# --- oracles --------------------------------------------------------------------------------------


def loss_at(model, values, x, y, w=None):
    """The total loss by Keras itself, at these weights and `training=False`."""
    model.set_weights(values)
    outputs = model(x, training=False)
    return float(model.compute_loss(x, y, outputs, w, training=False))


def gradient_at(model, values, x, y, w=None):
    """The gradient of the total loss by a plain tape, by the trainable weights, raveled."""
    model.set_weights(values)
    with tf.GradientTape() as tape:
        outputs = model(x, training=False)
        loss = model.compute_loss(x, y, outputs, w, training=False)
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    return np.concatenate([np.ravel(g) for g in gradients])


def dense_hessian(model, x=X, y=Y, w=None):
    """By central differences of plain gradients; all weights are trainable, in order."""
    start = model.get_weights()
    flat = np.concatenate([np.ravel(value) for value in start])
    cuts = np.cumsum([value.size for value in start])[:-1]

    def at(point):
        parts = np.split(point, cuts)
        values = [part.reshape(v.shape) for part, v in zip(parts, start, strict=True)]
        return gradient_at(model, values, x, y, w)

    rows = [(at(flat + STEP * e) - at(flat - STEP * e)) / (2 * STEP) for e in np.eye(len(flat))]
    model.set_weights(start)
    return (np.array(rows) + np.array(rows).T) / 2


def dense_ggn(model, H, leaf=lambda model: model(X)):
    """`Jᵀ H J` with J by reverse mode of a plain tape."""
    with tf.GradientTape() as tape:
        outputs = tf.reshape(leaf(model), [-1])
    columns = tape.jacobian(outputs, [v.value for v in model.trainable_variables])
    J = np.concatenate([np.reshape(c, (len(outputs), -1)) for c in columns], axis=1)
    return J.T @ H @ J


def noise_scale(gradients):
    """tr Σ / |g|² from the rows, as the covariance matrix has it."""
    N = len(gradients)
    spread = np.trace(np.cov(gradients, rowvar=False))
    return spread / (np.sum(gradients.mean(axis=0) ** 2) - spread / N)


def rows_of(model, x=X, y=Y, w=None):
    values = model.get_weights()
    singles = [slice(i, i + 1) for i in range(len(x))]
    return np.array(
        [gradient_at(model, values, x[i], y[i], None if w is None else w[i]) for i in singles]
    )


# --- the figures ----------------------------------------------------------------------------------


def regularized():
    first = layers.Dense(4, "tanh", kernel_regularizer="l2", activity_regularizer="l2")
    return network(first, layers.LayerNormalization(), layers.Dense(2, "softplus"))


MODELS = {
    "tanh": (network, Y),
    "layer normalization, regularizers": (regularized, Y),
    "cross-entropy": (
        lambda: network(layers.Dense(2, "softmax"), loss="sparse_categorical_crossentropy"),
        LABELS,
    ),
    "huber": (lambda: network(loss="huber"), Y),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_hessian_is_that_of_finite_differences(name):
    build, y = MODELS[name]
    model = build()
    expected = np.linalg.eigvalsh(dense_hessian(model, X, y))
    logs = measured(model, (X, y), quantities=["top_eigenvalues", "trace"], num_eigenvalues=3)
    names = ["hessian_top_eigenvalue", "hessian_top_eigenvalue_2", "hessian_top_eigenvalue_3"]
    np.testing.assert_allclose([logs[n] for n in names], expected[::-1][:3], atol=1e-7)
    assert logs["hessian_top_eigenvalue_error"] < 1e-9
    assert abs(logs["hessian_trace"] - expected.sum()) < 4 * logs["hessian_trace_stderr"] + 1e-7
    exact = measured(model, (X, y), quantities=["trace"], num_probes=200)
    np.testing.assert_allclose(exact["hessian_trace"], expected.sum(), atol=1e-7)
    assert exact["hessian_trace_stderr"] == 0.0


def test_sample_weights_are_in_the_loss():
    model = network()
    expected = np.linalg.eigvalsh(dense_hessian(model, X, Y, WEIGHTS))
    logs = measured(model, (X, Y, WEIGHTS), quantities="top_eigenvalues")
    np.testing.assert_allclose(logs["hessian_top_eigenvalue"], expected[-1], atol=1e-7)
    assert abs(measured(model)["hessian_top_eigenvalue"] - expected[-1]) > 1e-3


SQUARES = np.eye(24) / 12  # mse of 12 examples with 2 outputs


@pytest.mark.parametrize("matrix", ["ggn", "fisher"])
def test_the_matrix_of_mse_is_the_dense_one(matrix):
    model = network()
    expected = dense_ggn(model, SQUARES)
    logs = measured(model, quantities=["top_eigenvalues", "trace"], matrix=matrix, num_probes=200)
    np.testing.assert_allclose(logs[f"{matrix}_top_eigenvalue"], np.linalg.eigvalsh(expected)[-1])
    np.testing.assert_allclose(logs[f"{matrix}_trace"], np.trace(expected))
    assert abs(np.trace(expected) - np.trace(dense_hessian(model))) > 1e-3


def test_the_fisher_of_a_cross_entropy_is_the_expected_square_of_its_gradients():
    """E over labels drawn from the model itself of the squared gradient of −log p."""
    model = network(
        layers.Dense(4, "tanh"), layers.Dense(2, "softmax"), loss="sparse_categorical_crossentropy"
    )
    p = model(X).numpy()
    squares = sum(
        p[i, k] * np.sum(rows_of(model, X[i : i + 1], np.array([k])) ** 2) / len(X)
        for i in range(len(X))
        for k in range(2)
    )
    logs = measured(model, (X, LABELS), quantities="trace", matrix="fisher", num_probes=200)
    np.testing.assert_allclose(logs["fisher_trace"], squares, rtol=1e-10)


def test_l2_is_in_the_ggn_and_not_in_the_fisher():
    model = network(layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.5)))
    expected = dense_ggn(model, SQUARES)
    traces = {
        matrix: measured(model, quantities="trace", matrix=matrix)[f"{matrix}_trace"]
        for matrix in ("hessian", "ggn", "fisher")
    }
    np.testing.assert_allclose(traces["fisher"], np.trace(expected))
    np.testing.assert_allclose(traces["ggn"], np.trace(expected) + 6)  # 2 · 0.5 for 6 weights
    # A linear model with mse: the GGN is the Hessian.
    np.testing.assert_allclose(traces["hessian"], traces["ggn"])


NOISY = {
    "tanh": (network, (X, Y)),
    "weights": (network, (X, Y, WEIGHTS)),
    "regularizers": (regularized, (X, Y)),
    "sum": (lambda: network(loss=keras.losses.MeanSquaredError(reduction="sum")), (X, Y)),
    "normalization of batches": (
        lambda: network(layers.Dense(3), layers.BatchNormalization(), layers.Dense(2)),
        (X, Y),
    ),
}


@pytest.mark.parametrize("name", NOISY)
def test_the_noise_scale_is_that_of_explicit_gradients(name):
    build, data = NOISY[name]
    model = build()
    expected = noise_scale(rows_of(model, *data))
    logs = measured(model, data, quantities="gradient_noise")
    assert list(logs) == ["gradient_noise"]
    assert expected > 0
    np.testing.assert_allclose(logs["gradient_noise"], expected, rtol=1e-9)


def test_the_noise_scale_is_unbiased_in_its_parts():
    """For gradients a + b ε: the covariance of a mean over N, subtracted, leaves |a|²."""
    model = network(layers.Dense(2, use_bias=False, kernel_initializer="zeros"))
    signal, x = np.array([[3.0, -2.0]]), np.ones((4000, 3))
    y = signal + RANDOM.normal(size=(4000, 2))
    logs = measured(model, (x, y), quantities="gradient_noise", max_examples=4000)
    # g_i = −(y_i ⊗ x_i) · 2/2: tr Σ = 2 · 3, |g|² = 13 · 3.
    np.testing.assert_allclose(logs["gradient_noise"], 2 / 13, rtol=0.1)


def test_the_noise_scale_of_an_attention_layer():
    """Vectorized over examples it would end the process: TensorFlow's kernels on a CPU."""
    x = keras.Input([3, 4])
    model = keras.Model(x, layers.Dense(2)(layers.MultiHeadAttention(2, 3)(x, x)))
    model.compile("sgd", "mse")
    x, y = RANDOM.normal(size=(6, 3, 4)), 1 + RANDOM.normal(size=(6, 3, 2))
    found = measured(model, (x, y), quantities="gradient_noise")["gradient_noise"]
    np.testing.assert_allclose(found, noise_scale(rows_of(model, x, y)), rtol=1e-9)


def test_a_model_that_is_not_built_yet_is_built_as_fit_does():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.p, self.q = layers.Dense(1), layers.Dense(2)

        def call(self, x):
            return {"p": self.p(x), "q": self.q(x)}

    weights = []
    for callbacks in ([], [CurvatureCallback((X, {"p": X[:, 0], "q": Y}), "trace")]):
        keras.utils.set_random_seed(4)
        model = Net()
        model.compile("sgd", {"p": "mse", "q": "huber"})
        history = fit(model, callbacks, y={"p": X[:, 0], "q": Y})
        weights.append(model.get_weights())
    assert np.isfinite(history["hessian_trace"]).all()
    for got, expected in zip(*weights, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_noise_that_hides_the_gradient_is_infinite():
    model = network(layers.Dense(1, use_bias=False, kernel_initializer="zeros"))
    x, y = np.ones((4, 3)), np.array([[1.0], [-1.0], [1.0], [-1.0]])
    assert measured(model, (x, y), quantities="gradient_noise")["gradient_noise"] == np.inf


def test_several_inputs_and_outputs():
    a, b = keras.Input([3], name="a"), keras.Input([2], name="b")
    hidden = layers.Dense(3, "tanh")(layers.Concatenate()([a, b]))
    outputs = {"p": layers.Dense(1, name="p")(hidden), "q": layers.Dense(2, name="q")(hidden)}
    model = keras.Model({"a": a, "b": b}, outputs)
    model.compile("sgd", {"p": "mse", "q": "huber"}, loss_weights={"p": 2.0, "q": 0.5})
    x, y = {"a": X, "b": Y}, {"p": X[:, :1], "q": Y}
    expected = np.linalg.eigvalsh(dense_hessian(model, x, y))
    logs = measured(model, (x, y))
    np.testing.assert_allclose(logs["hessian_top_eigenvalue"], expected[-1], atol=1e-7)
    rows = [
        gradient_at(model, model.get_weights(), *(cut(i, part) for part in (x, y)))
        for i in range(12)
    ]
    np.testing.assert_allclose(logs["gradient_noise"], noise_scale(np.array(rows)), rtol=1e-9)


def cut(i, arrays):
    return {name: array[i : i + 1] for name, array in arrays.items()}


def test_float32_agrees_with_float64():
    model = network(layers.Dense(4, "tanh"), layers.Dense(2))
    narrow = keras.Sequential(
        [keras.Input([3]), layers.Dense(4, "tanh", dtype="float32"), layers.Dense(2)]
    )
    narrow.compile("sgd", "mse")
    narrow.set_weights(model.get_weights())
    wide, narrow = measured(model), measured(narrow)
    for name, value in wide.items():
        if not name.endswith(("error", "stderr")):
            np.testing.assert_allclose(narrow[name], value, rtol=1e-4)


# --- the logs -------------------------------------------------------------------------------------


def test_the_names_in_the_logs():
    callbacks = [
        CurvatureCallback((X, Y), num_eigenvalues=2),
        CurvatureCallback((X, Y), ["trace"], matrix="ggn", prefix="val_"),
    ]
    history = fit(network(), callbacks)
    assert set(history) - {"loss"} == {
        "hessian_top_eigenvalue",
        "hessian_top_eigenvalue_2",
        "hessian_top_eigenvalue_error",
        "hessian_trace",
        "hessian_trace_stderr",
        "gradient_noise",
        "val_ggn_trace",
        "val_ggn_trace_stderr",
    }


class Recorder(keras.callbacks.Callback):
    """Whether the logs of each batch held a trace, and those of each epoch."""

    def __init__(self):
        super().__init__()
        self.batches, self.epochs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(logs.get("hessian_trace"))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(logs["hessian_trace"])


def test_every_n_batches_is_in_the_logs_of_the_batch_and_the_last_in_those_of_the_epoch():
    recorder = Recorder()
    callback = CurvatureCallback((X, Y), "trace", every=2)
    fit(network(), [callback, recorder], epochs=2)  # 3 batches each
    written = [value is not None for value in recorder.batches]
    assert written == [False, True, False, True, False, True]
    assert recorder.epochs == [recorder.batches[1], recorder.batches[5]]
    assert callback._measure.experimental_get_tracing_count() == 1


def test_several_steps_per_execution():
    recorder, model = Recorder(), network()
    model.compile("sgd", "mse", steps_per_execution=2)
    fit(model, [CurvatureCallback((X, Y), "trace", every=3), recorder], batch_size=2)
    assert [value is not None for value in recorder.batches] == [False, True, True]  # 2, 4, 6


def test_it_is_traced_once_over_epochs_and_values_change():
    callback = CurvatureCallback((X, Y))
    history = fit(network(), [callback], epochs=3)
    assert callback._measure.experimental_get_tracing_count() == 1
    for name in ("hessian_top_eigenvalue", "hessian_trace", "gradient_noise"):
        assert len(set(history[name])) == 3


@pytest.mark.slow
def test_training_is_the_same_with_and_without_it():
    after = []
    for matrix in (None, "hessian", "ggn"):
        keras.utils.set_random_seed(3)
        stack = [layers.Dense(4, "tanh"), layers.BatchNormalization(), layers.Dropout(0.5)]
        model = network(*stack, layers.Dense(2))
        fit(model, [CurvatureCallback((X, Y), matrix=matrix, every=1)] if matrix else [], epochs=2)
        state = [v.value.numpy() for v in [*model.variables, *model.optimizer.variables]]
        noise = [tf.random.normal([3]), keras.random.normal([3]), np.random.normal(size=3)]
        after.append([*state, *map(np.asarray, noise)])
    for ours in after[1:]:
        for got, expected in zip(ours, after[0], strict=True):
            np.testing.assert_array_equal(got, expected)


FORMS = {
    "x_y": (X, Y),
    "dataset": tf.data.Dataset.from_tensor_slices((X, Y)).batch(5),
    "endless": tf.data.Dataset.from_tensor_slices((X, Y)).batch(5).repeat(),
    "float32": (X.astype("float32"), Y.astype("float32")),
    "weights of one": (X, Y, np.ones(12)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_is_read(form):
    model = network()
    found, expected = (
        measured(model, FORMS[form], max_examples=10),
        measured(model, (X[:10], Y[:10])),
    )
    assert set(found) == set(expected)
    np.testing.assert_allclose(found["hessian_trace"], expected["hessian_trace"], rtol=1e-6)
    np.testing.assert_allclose(found["gradient_noise"], expected["gradient_noise"], rtol=1e-4)


EXPENSIVE = {
    "top_eigenvalues": (spectrum, "top_eigenvalues"),
    "trace": (spectrum, "trace"),
    "gradient_noise": (curvature, "ExampleGradients"),
}


@pytest.mark.parametrize("quantity", EXPENSIVE)
def test_only_what_is_asked_for_is_computed(quantity, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("not asked for")

    for name, place in EXPENSIVE.items():
        if name != quantity:
            monkeypatch.setattr(*place, refuse)
    if quantity == "gradient_noise":
        monkeypatch.setattr(curvature, "curvature_matrix", refuse)
    assert measured(network(), quantities=quantity)


def test_weights_that_are_not_finite_are_logged_as_nan():
    model = network()
    callback = CurvatureCallback((X, Y))
    callback.set_model(model)
    callback.on_train_begin()
    model.set_weights([value * np.nan for value in model.get_weights()])
    logs = {}
    callback.on_epoch_end(0, logs)
    assert len(logs) == 5 and np.isnan(list(logs.values())).all()


# --- what is refused ------------------------------------------------------------------------------

BAD = {
    "quantity": ({"quantities": ["trace", "rank"]}, "`quantities` must be names"),
    "no quantity": ({"quantities": ()}, "at least one"),
    "matrix": ({"matrix": "kfac"}, "`matrix` must be one of"),
    "every": ({"every": 0}, "`every` must be a whole number"),
    "every text": ({"every": "batch"}, '`every` must be "epoch"'),
    "max_examples": ({"max_examples": 0}, "`max_examples` must be"),
    "num_eigenvalues": ({"num_eigenvalues": 41}, "`num_eigenvalues` must be"),
    "num_iterations": ({"num_iterations": 0}, "`num_iterations` must be"),
    "num_probes": ({"num_probes": 1}, "`num_probes` must be"),
    "prefix": ({"prefix": None}, "`prefix` must be a text"),
    "seed": ({"seed": -1}, "`seed` must be"),
    "empty": ({"data": (X[:0], Y[:0])}, "at least one example"),
    "nan": ({"data": (X * np.nan, Y)}, "`data` must be finite"),
    "nan targets": ({"data": (X, Y * np.nan)}, "`data` must be finite"),
    "text": ({"data": ("x", "y")}, "`data` must be an array"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_argument_is_named_at_construction(case):
    arguments, message = BAD[case]
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        CurvatureCallback(**{"data": (X, Y), **arguments})


def frozen():
    model = network()
    model.trainable = False
    model.compile("sgd", "mse")
    return model


def with_added_loss_alone():
    return network(layers.Dense(2, activity_regularizer="l2"), loss=None)


def weighted_mean():
    return network(loss=keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"))


def contrastive(y, outputs):
    return (outputs - tf.reduce_mean(outputs, axis=0)) ** 2


def through_numpy():
    return network(layers.Dense(3, leaking), layers.Dense(2))


UNFIT = {
    "not compiled": (lambda: keras.Sequential([keras.Input([3]), layers.Dense(2)]), {}, "compiled"),
    "no loss": (with_added_loss_alone, {}, "`loss`"),
    "frozen": (frozen, {}, "trainable weights"),
    "no targets": (network, {"data": X}, "targets"),
    "flat": (lambda: network(loss="mae"), {"matrix": "ggn"}, "twice differentiable"),
    "no likelihood": (lambda: network(loss="huber"), {"matrix": "fisher"}, "likelihood"),
    "one example": (network, {"data": (X[:1], Y[:1])}, "at least two examples"),
    "weighted mean": (weighted_mean, {"data": (X, Y, WEIGHTS)}, "mean of the losses"),
    "contrastive": (lambda: network(loss=contrastive), {}, "mean of the losses"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_model_it_cannot_work_for_is_refused_when_training_begins(case):
    build, arguments, message = UNFIT[case]
    callback = CurvatureCallback(**{"data": (X, Y), **arguments})
    callback.set_model(build())
    with pytest.raises(ConfigurationError, match=message):
        callback.on_train_begin()


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
def test_a_leak_is_refused_before_training(matrix):
    model = through_numpy()
    before = model.get_weights()
    with pytest.raises(LeakError, match="PyFunc"):
        fit(model, [CurvatureCallback((X, Y), ["trace"], matrix)])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_wrong_shape_is_named():
    callback = CurvatureCallback((X[:, 0], Y))
    callback.set_model(network())
    with pytest.raises(StructureError, match="must fit the model's input") as raised:
        callback.on_train_begin()
    assert isinstance(raised.value, KerasFwdError)


def test_it_is_public():
    assert keras_fwd.CurvatureCallback is CurvatureCallback
