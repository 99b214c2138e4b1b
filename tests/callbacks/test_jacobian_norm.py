"""The Jacobian norm callback: against dense Jacobians, and as the other callbacks see it."""

import csv
import itertools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import leaking

from keras_fwd._derivatives import example_jacobians
from keras_fwd._derivatives.jacobians import jacobian
from keras_fwd.callbacks import JacobianNormCallback
from keras_fwd.errors import ConfigurationError, KerasFwdError, LeakError, StructureError

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(24, 5))
Y = RANDOM.normal(size=(24, 1))


def dense(units, activation=None):
    return keras.layers.Dense(units, activation, dtype="float64", bias_initializer="normal")


def network(features=5, units=1, hidden=8):
    layers = [keras.Input([features], dtype="float64"), dense(hidden, "tanh"), dense(units)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model


def two_by_two():
    """Two inputs of different shapes and an integer one, and two outputs."""
    a = keras.Input([2, 2], dtype="float64", name="a")
    b = keras.Input([3], dtype="float64", name="b")
    k = keras.Input([1], dtype="int32", name="k")
    parts = [a, b, keras.layers.Embedding(4, 2, dtype="float64")(k)]
    flat = [keras.layers.Flatten(dtype="float64")(part) for part in parts]
    hidden = dense(6, "tanh")(keras.layers.Concatenate(dtype="float64")(flat))
    image = keras.layers.Reshape([2, 2], dtype="float64")(dense(4, "sigmoid")(hidden))
    model = keras.Model({"a": a, "b": b, "k": k}, {"flat": dense(2)(hidden), "image": image})
    model.compile(keras.optimizers.SGD(0.05), {"flat": "mse", "image": "mse"})
    return model


BRANCHED = {
    "a": RANDOM.normal(size=(24, 2, 2)),
    "b": RANDOM.normal(size=(24, 3)),
    "k": RANDOM.integers(0, 4, (24, 1)),
}
TARGETS = {"flat": RANDOM.normal(size=(24, 2)), "image": RANDOM.normal(size=(24, 2, 2))}


def matrices(model, x):
    """The dense Jacobians, `[examples, outputs, inputs]`."""
    x = tf.nest.map_structure(tf.constant, x)
    if not isinstance(x, dict):
        return jacobian(model, x, per_example=True).numpy().reshape(len(x), -1, x.shape[1])
    blocks = jacobian(model, x, per_example=True)
    rows = [
        [np.reshape(block[key], (24, -1, np.prod(x[key].shape[1:]))) for key in ("a", "b")]
        for block in (blocks["flat"], blocks["image"])
    ]
    return np.concatenate([np.concatenate(row, axis=2) for row in rows], axis=1)


def exact(model, x, norm):
    order = {"frobenius": "fro", "spectral": 2}[norm]
    return np.linalg.norm(matrices(model, x), order, axis=(1, 2)).mean()


class Recorder(keras.callbacks.Callback):
    """Keeps what the logs held, and the exact norm by `data` at that time."""

    def __init__(self, data=None, norm="frobenius"):
        super().__init__()
        self.data, self.norm = data, norm
        self.epochs, self.batches, self.expected = [], [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(dict(logs))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(dict(logs))
        if self.data is not None:
            self.expected.append(exact(self.model, self.data, self.norm))


def fit(model, callbacks, x=X, y=Y, epochs=2, **arguments):
    arguments = {"verbose": 0, "batch_size": 8, **arguments}
    return model.fit(x, y, epochs=epochs, callbacks=callbacks, **arguments).history


@pytest.mark.parametrize("norm", ["frobenius", "spectral"])
@pytest.mark.parametrize(("features", "units"), [(5, 1), (5, 9), (12, 7)])
def test_history_has_the_norm_of_the_dense_jacobians(norm, features, units):
    x, y = RANDOM.normal(size=(24, features)), np.zeros((24, units))
    model, recorder = network(features, units), Recorder(x, norm)
    history = fit(model, [JacobianNormCallback(x, norm), recorder], x, y)
    np.testing.assert_allclose(history["jacobian_norm"], recorder.expected, rtol=1e-7)
    assert "jacobian_norm_stderr" not in history
    assert recorder.expected[0] != recorder.expected[1]


@pytest.mark.parametrize("norm", ["frobenius", "spectral"])
def test_several_inputs_and_outputs_are_one_jacobian(norm):
    model, recorder = two_by_two(), Recorder(BRANCHED, norm)
    history = fit(model, [JacobianNormCallback(BRANCHED, norm), recorder], BRANCHED, TARGETS)
    np.testing.assert_allclose(history["jacobian_norm"], recorder.expected, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["frobenius", "spectral"])
def test_a_recurrent_model_is_measured(norm):
    x = RANDOM.normal(size=(6, 4, 1))
    layers = [keras.Input([4, 1], dtype="float64"), keras.layers.GRU(3, dtype="float64")]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    history = fit(model, [JacobianNormCallback(x, norm)], x, np.zeros((6, 3)), epochs=1)
    dense_jacobians = jacobian(model, x, per_example=True).numpy().reshape(6, 3, 4)
    order = {"frobenius": "fro", "spectral": 2}[norm]
    expected = np.linalg.norm(dense_jacobians, order, axis=(1, 2)).mean()
    np.testing.assert_allclose(history["jacobian_norm"], expected, rtol=1e-6)


def jacobians_of(model, x):
    """`ExampleJacobians` can only be used in the graph that builds it."""
    return example_jacobians.ExampleJacobians(model, tf.constant(x))


@pytest.mark.parametrize(("features", "units"), [(6, 9), (9, 6)])
def test_squared_norm_estimates_are_unbiased(features, units):
    model, x = network(features, units), RANDOM.normal(size=(4, features))
    draws = tf.function(
        lambda: example_jacobians.squared_norm_estimates(jacobians_of(model, x), 2000, 3)
    )()
    expected = np.square(matrices(model, x)).sum(axis=(1, 2))
    stderr = np.std(draws, axis=0, ddof=1) / np.sqrt(2000)
    assert draws.shape == (2000, 4)
    assert (np.abs(np.mean(draws, axis=0) - expected) < 3 * stderr).all()


def test_squared_norm_estimates_are_exact_for_orthogonal_columns():
    """On the sphere the length of u carries no noise."""
    rotation = np.linalg.qr(RANDOM.normal(size=(7, 7)))[0]
    model = keras.Sequential([keras.Input([7], dtype="float64"), dense(7)])
    model.set_weights([3 * rotation, np.zeros(7)])
    x = RANDOM.normal(size=(4, 7))
    draws = tf.function(
        lambda: example_jacobians.squared_norm_estimates(jacobians_of(model, x), 5, 0)
    )()
    np.testing.assert_allclose(draws, 63.0, rtol=1e-12)


def test_bias_correction_and_standard_error_of_the_estimated_norm():
    """Over 400 seeds: the mean is right, the plain root of the mean square is not, and the spread
    is what the standard error says."""
    model, x = network(12, 9), np.random.default_rng(1).normal(size=(4, 12))
    truth = np.linalg.norm(matrices(model, x), axis=(1, 2))

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32)])
    def both(seed):
        jacobians = jacobians_of(model, x)
        plain = tf.sqrt(
            tf.reduce_mean(example_jacobians.squared_norm_estimates(jacobians, 4, seed), axis=0)
        )
        return (plain, *example_jacobians.frobenius_norms(jacobians, 4, seed))

    plain, corrected, variance = map(np.stack, zip(*map(both, range(400)), strict=True))
    bias = [(values / truth - 1).mean() for values in (plain, corrected)]
    noise = (corrected / truth).std() / np.sqrt(corrected.size)
    assert bias[0] < -4 * noise
    assert abs(bias[1]) < abs(bias[0]) / 2
    np.testing.assert_allclose(variance.mean(axis=0), corrected.var(axis=0), rtol=0.35)


def test_a_large_jacobian_is_estimated_with_a_standard_error():
    x, y = RANDOM.normal(size=(24, 12)), np.zeros((24, 9))
    recorder = Recorder(x)
    history = fit(network(12, 9), [JacobianNormCallback(x, num_probes=4), recorder], x, y, epochs=3)
    values, errors = np.array(history["jacobian_norm"]), np.array(history["jacobian_norm_stderr"])
    assert (errors > 0).all()
    assert (np.abs(values - recorder.expected) < 4 * errors).all()
    exactly = fit(network(12, 9), [JacobianNormCallback(x, num_probes=9)], x, y)
    assert "jacobian_norm_stderr" not in exactly


def test_float32_and_mixed_precision_are_measured():
    for policy, tolerance in (("float32", 1e-5), ("mixed_float16", 1e-2)):
        layer = keras.layers.Dense(3, dtype=policy)
        model = keras.Sequential([keras.Input([5]), layer])
        model.compile("sgd", "mse")
        for norm, order in (("frobenius", "fro"), ("spectral", 2)):
            history = fit(model, [JacobianNormCallback(X, norm)], X, np.zeros((24, 3)), epochs=1)
            expected = np.linalg.norm(layer.kernel.numpy(), order)
            np.testing.assert_allclose(history["jacobian_norm"], expected, rtol=tolerance)


def test_a_jacobian_of_zero_has_norm_zero():
    model = network()
    model.set_weights([0 * weight for weight in model.get_weights()])
    for norm in ("frobenius", "spectral"):
        history = fit(model, [JacobianNormCallback(X, norm)], X, 0 * Y, epochs=1)
        assert history["jacobian_norm"] == [0.0]


def test_only_the_first_examples_are_used():
    model, recorder = network(), Recorder(X[:10])
    history = fit(model, [JacobianNormCallback(X, max_examples=10), recorder])
    np.testing.assert_allclose(history["jacobian_norm"], recorder.expected, rtol=1e-10)


FORMS = {
    "x_y": (X, Y),
    "x_y_w": (X, Y, Y),
    "dataset": tf.data.Dataset.from_tensor_slices((X, Y)).batch(7),
    "endless": tf.data.Dataset.from_tensor_slices((X, Y)).batch(7).take(4).repeat(),
    "float32": X.astype("float32"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_is_read(form):
    keras.utils.set_random_seed(1)
    history = fit(network(), [JacobianNormCallback(FORMS[form], max_examples=24)])
    keras.utils.set_random_seed(1)
    expected = fit(network(), [JacobianNormCallback(X)])
    np.testing.assert_allclose(history["jacobian_norm"], expected["jacobian_norm"], rtol=1e-6)


def test_every_n_batches_writes_batch_logs_and_the_last_value_into_the_epoch():
    recorder = Recorder()
    fit(network(), [JacobianNormCallback(X, every=2), recorder], epochs=3)  # 3 batches each
    written = ["jacobian_norm" in logs for logs in recorder.batches]
    assert written == [False, True, False, True, False, True, False, True, False]
    values = [logs.get("jacobian_norm") for logs in recorder.batches]
    of_epochs = [logs["jacobian_norm"] for logs in recorder.epochs]
    assert of_epochs == [values[1], values[5], values[7]]


def test_an_epoch_without_a_measurement_takes_one_at_its_end():
    recorder = Recorder(X)
    fit(network(), [JacobianNormCallback(X, every=100), recorder], epochs=2)
    assert not any("jacobian_norm" in logs for logs in recorder.batches)
    of_epochs = [logs["jacobian_norm"] for logs in recorder.epochs]
    np.testing.assert_allclose(of_epochs, recorder.expected, rtol=1e-10)


def test_an_epoch_does_not_repeat_the_value_of_another():
    recorder = Recorder(X)
    fit(network(), [JacobianNormCallback(X, every=5), recorder], epochs=3)  # 3 batches each
    of_epochs = [logs["jacobian_norm"] for logs in recorder.epochs]
    np.testing.assert_allclose(of_epochs[::2], recorder.expected[::2], rtol=1e-10)
    assert of_epochs[1] == recorder.batches[4]["jacobian_norm"] != recorder.expected[1]


def test_frequency_counts_batches_with_several_steps_per_execution():
    model, recorder = network(), Recorder()
    model.compile("sgd", "mse", steps_per_execution=3)
    fit(model, [JacobianNormCallback(X, every=4), recorder], epochs=2, batch_size=2)
    written = ["jacobian_norm" in logs for logs in recorder.batches]  # after 3, 6, …, 24
    assert written == [False, True, True, True] * 2


def test_an_execution_of_many_steps_leaves_no_arrears():
    model, recorder = network(), Recorder()
    model.compile("sgd", "mse", steps_per_execution=9)
    callbacks = [JacobianNormCallback(X, every=4), recorder]
    fit(model, callbacks, X[:22], Y[:22], epochs=1, batch_size=2)
    assert ["jacobian_norm" in logs for logs in recorder.batches] == [True, False]  # 9, 11


def test_it_is_traced_once():
    callback = JacobianNormCallback(X, "spectral", every=1)
    fit(network(), [callback], epochs=3)
    assert callback._measure.experimental_get_tracing_count() == 1


def test_it_can_serve_a_second_fit_and_another_model():
    callback = JacobianNormCallback(X, every=2)
    for model in (network(), network(units=3)):
        recorder = Recorder()
        fit(model, [callback, recorder], y=np.zeros((24, model.output_shape[-1])), epochs=1)
        assert ["jacobian_norm" in logs for logs in recorder.batches] == [False, True, False]
        fit(model, [callback, recorder], y=np.zeros((24, model.output_shape[-1])), epochs=1)


def test_the_same_seed_gives_the_same_values_and_another_one_does_not():
    x = RANDOM.normal(size=(24, 12))

    def values(seed):
        keras.utils.set_random_seed(2)
        callback = JacobianNormCallback(x, num_probes=3, seed=seed)
        return fit(network(12, 9), [callback], x, np.zeros((24, 9)))["jacobian_norm"]

    assert values(5) == values(5)
    assert values(5) != values(6)


def noisy_model():
    layers = [dense(8, "tanh"), keras.layers.BatchNormalization(dtype="float64")]
    layers += [keras.layers.Dropout(0.5, dtype="float64"), dense(1)]
    model = keras.Sequential([keras.Input([5], dtype="float64"), *layers])
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model


def test_training_is_the_same_with_and_without_it():
    weights = []
    for norm in (None, "frobenius", "spectral"):
        keras.utils.set_random_seed(3)
        model = noisy_model()
        fit(model, [JacobianNormCallback(X, norm, every=1)] if norm else [])
        after = [tf.random.normal([3]), keras.random.normal([3]), np.random.normal(size=3)]
        weights.append([*model.get_weights(), *map(np.asarray, after)])
    for ours in weights[1:]:
        for got, expected in zip(ours, weights[0], strict=True):
            np.testing.assert_array_equal(got, expected)


def test_early_stopping_sees_it():
    stop = keras.callbacks.EarlyStopping("jacobian_norm", mode="min", patience=1, min_delta=1e9)
    history = fit(network(), [JacobianNormCallback(X), stop], epochs=10)
    assert len(history["jacobian_norm"]) == 2


def test_csv_logger_sees_it(tmp_path):
    path = tmp_path / "log.csv"
    callbacks = [JacobianNormCallback(X), keras.callbacks.CSVLogger(str(path))]
    history = fit(network(), callbacks)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["jacobian_norm"]) for row in rows] == history["jacobian_norm"]


@pytest.mark.parametrize("verbose", [1, 2])
def test_the_progress_bar_shows_it_at_the_end_of_the_epoch(capsys, verbose):
    history = fit(network(), [JacobianNormCallback(X)], epochs=1, verbose=verbose)
    last_line = capsys.readouterr().out.strip().splitlines()[-1]
    assert f"jacobian_norm: {history['jacobian_norm'][0]:.4f}" in last_line


def test_name_is_the_key_in_the_logs():
    x = RANDOM.normal(size=(24, 12))
    callback = JacobianNormCallback(x, num_probes=3, name="reach")
    history = fit(network(12, 9), [callback], x, np.zeros((24, 9)), epochs=1)
    assert {"reach", "reach_stderr"} <= set(history)


BAD = {
    "norm": ({"norm": "nuclear"}, "`norm` must be"),
    "every_text": ({"every": "batch"}, "`every` must be"),
    "every_zero": ({"every": 0}, "`every` must be a whole number"),
    "every_bool": ({"every": True}, "Received: every=True"),
    "num_probes": ({"num_probes": 0}, "`num_probes` must be a whole number"),
    "max_examples": ({"max_examples": None}, "`max_examples` must be a whole number"),
    "seed": ({"seed": -1}, "`seed` must be a whole number of at least 0"),
    "name": ({"name": ""}, "`name` must be a text"),
    "empty": ({"data": X[:0]}, "at least one example"),
    "nan": ({"data": X * np.nan}, "`data` must be finite"),
    "text": ({"data": "train"}, "`data` must be an array"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_argument_is_named_at_construction(case):
    arguments, message = BAD[case]
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        JacobianNormCallback(**{"data": X, **arguments})


def token_model():
    tokens = keras.Input([4], dtype="int32")
    return keras.Model(tokens, dense(1)(keras.layers.Embedding(5, 3, dtype="float64")(tokens)))


def leaking_model():
    layer = keras.layers.Dense(3, leaking, dtype="float64")
    return keras.Sequential([keras.Input([5], dtype="float64"), layer])


UNFIT = {
    "integers": (token_model, {"data": np.ones((3, 4), int)}, ConfigurationError, "floating-point"),
    "one_probe": (lambda: network(12, 9), {"num_probes": 1}, ConfigurationError, "at least 2"),
    "shape": (network, {"data": X[:, 0]}, StructureError, "must fit the model's input"),
    "leak": (leaking_model, {}, LeakError, "PyFunc"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_model_it_cannot_work_for_is_refused_before_training(case):
    build, arguments, error, message = UNFIT[case]
    model = build()
    x = np.ones((8, *model.input_shape[1:]))
    model.compile("sgd", "mse")
    before = model.get_weights()
    with pytest.raises(error, match=message) as raised:
        fit(
            model,
            [JacobianNormCallback(**{"data": x, **arguments})],
            x,
            model.predict(x, verbose=0),
        )
    assert isinstance(raised.value, KerasFwdError)
    for old, new in itertools.zip_longest(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)
