"""`GaussNewton` in stock `fit`: every way of Keras to train, each compared by numbers."""

import gc
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import leaking

import keras_fwd

layers = keras.layers


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


X, Y = draw(12, 3), draw(12, 1, seed=1)
LABELS = np.arange(12) % 3
SPARSE = "sparse_categorical_crossentropy"


def net(*stack, inputs=3):
    """A Sequential model with the same weights each time."""
    stack = stack or (layers.Dense(4, activation="tanh"), layers.Dense(1))
    fn = keras.Sequential([keras.Input((inputs,)), *stack])
    for i, variable in enumerate(fn.trainable_variables):
        variable.assign(draw(*variable.shape, seed=10 + i) / 2)
    return fn


def compiled(fn=None, loss="mse", optimizer=None, **arguments):
    fn = fn or net()
    # Damped enough for float32: a batch has fewer residuals than the net has weights.
    fn.compile(optimizer=optimizer or keras_fwd.GaussNewton(damping=0.1), loss=loss, **arguments)
    return fn


def fit(fn, *data, epochs=2, batch_size=6, **arguments):
    options = {"shuffle": False, "verbose": 0, **arguments}
    if isinstance(data[0], np.ndarray | list | dict):
        options["batch_size"] = batch_size
    return fn.fit(*data, epochs=epochs, **options).history


def flat(fn):
    return np.concatenate([np.ravel(v.numpy()) for v in fn.trainable_variables])


def trained(fn=None, x=X, y=Y, **arguments):
    """The weights after a fit."""
    fn = compiled(fn, **arguments)
    fit(fn, x, y)
    return flat(fn)


@pytest.fixture(scope="module")
def plain():
    """The weights that two epochs on two batches lead to."""
    return trained()


def same(left, right, rtol=2e-4):
    np.testing.assert_allclose(left, right, rtol=rtol, atol=1e-5)


def solution(x, y, weights=None):
    """Linear least squares with a bias: kernel and bias."""
    A = np.column_stack([x, np.ones(len(x))]).astype("float64")
    root = np.sqrt(np.ones(len(x)) if weights is None else weights)[:, None]
    return np.linalg.lstsq(root * A, root * np.reshape(y, (len(x), -1)), rcond=None)[0]


def undamped(**arguments):
    return keras_fwd.GaussNewton(damping=0.0, **arguments)


def kernel_and_bias(layer):
    return np.vstack([layer.kernel.numpy(), layer.bias.numpy()])


# --- ways to call ---------------------------------------------------------------------------------


def test_train_on_batch_is_fit(plain):
    fn = compiled()
    for _ in range(2):
        for start in (0, 6):
            fn.train_on_batch(X[start : start + 6], Y[start : start + 6])
    same(flat(fn), plain)


XLA = pytest.mark.slow


@pytest.mark.parametrize(
    "mode",
    [
        {"steps_per_execution": 8},
        {"run_eagerly": True},
        pytest.param({"jit_compile": True}, marks=XLA),
        pytest.param({"jit_compile": True, "steps_per_execution": 8}, marks=XLA),
    ],
    ids=lambda mode: " ".join(mode),
)
def test_every_mode_of_execution_trains_the_same(mode, plain):
    same(trained(**mode), plain)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return X[6 * index : 6 * index + 6], Y[6 * index : 6 * index + 6]


def test_every_form_of_data_trains_the_same(plain):
    for data in (tf.data.Dataset.from_tensor_slices((X, Y)).batch(6), Batches()):
        fn = compiled()
        fit(fn, data)
        same(flat(fn), plain)


class Subclassed(keras.Model):
    """Not built before `fit`, and without the argument `training`."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = layers.Dense(4, activation="tanh"), layers.Dense(1)

    def call(self, inputs):
        return self.out(self.hidden(inputs))


def functional(kind=keras.Model):
    inputs = keras.Input((3,))
    fn = kind(inputs, layers.Dense(1)(layers.Dense(4, activation="tanh")(inputs)))
    fn.set_weights(net().get_weights())
    return fn


def nested():
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.Sequential([net()])(inputs))


@pytest.mark.parametrize("build", [functional, nested, Subclassed])
def test_every_form_of_model_trains_the_same(build, plain):
    fn = compiled(build())
    if not fn.built:  # its weights are made, and so drawn, inside `fit`
        fit(fn, X, Y, epochs=1)
        fn.set_weights(net().get_weights())
        fn.optimizer.damping.assign(0.1)
    fit(fn, X, Y)
    same(flat(fn), plain)


def test_clone_has_an_optimizer_of_its_own(plain):
    fn = compiled()
    copy = keras.models.clone_model(fn)
    copy.compile(optimizer=fn.optimizer.from_config(fn.optimizer.get_config()), loss="mse")
    copy.set_weights(fn.get_weights())
    before = flat(fn)
    fit(copy, X, Y)
    same(flat(copy), plain)
    np.testing.assert_array_equal(flat(fn), before)


class OwnStep(keras.Model):
    def train_step(self, data):
        return self.optimizer.train_step(self, data)


class SuperStep(keras.Model):
    def train_step(self, data):
        return {**super().train_step(data), "seen": 1.0}


@pytest.mark.parametrize("kind", [OwnStep, SuperStep])
def test_a_train_step_of_ones_own_may_call_ours(kind, plain):
    fn = compiled(functional(kind))
    history = fit(fn, X, Y)
    same(flat(fn), plain)
    assert ("seen" in history) == (kind is SuperStep)


class Tape(keras.Model):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


class TapeOfKeras3(Tape):
    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=data[1], y_pred=self(data[0], training=True))
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


@pytest.mark.parametrize("kind", [Tape, TapeOfKeras3])
def test_a_train_step_with_a_tape_is_told_which_call_to_make(kind):
    fn = compiled(functional(kind))
    before = flat(fn)
    with pytest.raises(
        keras_fwd.ConfigurationError, match=r"return self\.optimizer\.train_step\(self, data\)"
    ):
        fit(fn, X, Y)
    np.testing.assert_array_equal(flat(fn), before)


# --- other optimizers -----------------------------------------------------------------------------


def test_other_optimizers_go_straight_to_keras():
    keras_fwd.GaussNewton()  # the hook is in place from now on
    stock = keras.Model.train_step.__wrapped__
    ends = []
    for kind in (keras.Model, type("Stock", (keras.Model,), {"train_step": stock})):
        fn = compiled(functional(kind), optimizer=keras.optimizers.Adam(0.1))
        history = fit(fn, X, Y)
        ends.append((flat(fn), history))
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


IN_A_FRESH_PROCESS = """
import keras, numpy as np
original = keras.Model.train_step, keras.Model.make_train_function

def run():
    keras.utils.set_random_seed(0)
    fn = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dropout(0.5),
                           keras.layers.BatchNormalization(), keras.layers.Dense(1)])
    fn.compile(optimizer="adam", loss="mse", metrics=["mae"])
    x = np.random.default_rng(0).normal(size=(20, 3))
    history = fn.fit(x, x[:, :1], epochs=3, batch_size=8, verbose=0).history
    return b"".join(v.numpy().tobytes() for v in fn.variables), repr(history)

before = run()
import keras_fwd
assert (keras.Model.train_step, keras.Model.make_train_function) == original, "changed by import"
imported = run()
keras_fwd.GaussNewton()
hooked = run()
print("SAME" if before == imported == hooked else "DIFFERENT")
"""


@pytest.mark.slow
def test_other_optimizers_are_bit_for_bit_as_before_the_import():
    run = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["SAME"]


def test_compiling_again_changes_the_optimizer():
    fn = compiled()
    fit(fn, X, Y)
    weights = fn.get_weights()
    compiled(fn, optimizer=keras.optimizers.SGD(0.1))
    history = fit(fn, X, Y)
    assert "damping" not in history
    expected = compiled(net(), optimizer=keras.optimizers.SGD(0.1))
    expected.set_weights(weights)
    fit(expected, X, Y)
    np.testing.assert_array_equal(flat(fn), flat(expected))


@pytest.mark.slow
def test_two_models_may_share_an_optimizer_and_its_damping():
    shared = keras_fwd.GaussNewton()
    fit(compiled(optimizer=shared), X, Y)
    alone = keras_fwd.GaussNewton(damping=float(shared.damping))
    ends = []
    for optimizer in (shared, alone):
        fn = compiled(net(layers.Dense(1)), optimizer=optimizer)
        fn.train_on_batch(X, Y)
        ends.append(flat(fn))
    same(*ends)


# --- what is counted ------------------------------------------------------------------------------


def with_everything():
    return net(
        layers.Dense(4, activation="tanh", activity_regularizer="l2"),
        layers.BatchNormalization(),
        layers.Dropout(0.4, seed=1),
        layers.Dense(3, activation="softmax", kernel_regularizer="l2"),
    )


@pytest.mark.slow
def test_logs_are_those_of_keras_before_anything_moves():
    # With a learning rate of zero, both optimizers only measure.
    arguments = {"metrics": ["accuracy"], "weighted_metrics": ["accuracy", SPARSE]}
    logs = []
    for optimizer in (keras_fwd.GaussNewton(0.0), keras.optimizers.SGD(0.0)):
        fn = compiled(with_everything(), SPARSE, optimizer, **arguments)
        weights = np.linspace(0, 2, 12)
        logs.append(fit(fn, X, LABELS, sample_weight=weights, batch_size=4))
    ours, theirs = logs
    assert set(ours) - set(theirs) == {"damping", "reduction_ratio", "solver_iterations"}
    for name, values in theirs.items():
        assert ours[name] == pytest.approx(values, rel=1e-5), name


@pytest.mark.slow
def test_batch_statistics_and_seeds_move_as_in_keras():
    ends = []
    for optimizer in (keras_fwd.GaussNewton(), keras.optimizers.SGD(0.1)):
        fn = compiled(with_everything(), SPARSE, optimizer)
        fn.train_on_batch(X, LABELS)
        ends.append([v.numpy() for v in fn.non_trainable_variables])
    for ours, theirs in zip(*ends, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert len(ends[0]) == 3  # mean, variance, seed


@pytest.mark.slow
def test_losses_of_single_outputs_are_logged_as_in_keras():
    inputs = keras.Input((3,))
    outputs = {"a": layers.Dense(1, name="a")(inputs), "b": layers.Dense(2, name="b")(inputs)}
    fn, logs = keras.Model(inputs, outputs), []
    start = fn.get_weights()
    for optimizer in (keras_fwd.GaussNewton(0.0), keras.optimizers.SGD(0.0)):
        fn.set_weights(start)
        compiled(fn, {"a": "mse", "b": "huber"}, optimizer, loss_weights={"a": 1.0, "b": 0.5})
        logs.append(fit(fn, X, {"a": Y, "b": X[:, :2]}, batch_size=4))
    for name in ("loss", "a_loss", "b_loss"):
        assert logs[0][name] == pytest.approx(logs[1][name], rel=1e-5), name


class OwnLoss(keras.Model):
    """As in the guide of Keras, with a metric that shows whether it is counted twice."""

    def __init__(self, *args, **arguments):
        super().__init__(*args, **arguments)
        self.total = keras.metrics.Sum(name="total")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        loss = tf.reduce_mean((y - y_pred) ** 2)
        self.total.update_state(loss)
        return loss


def test_an_overridden_compute_loss_trains_the_same_and_counts_once(plain):
    fn = compiled(functional(OwnLoss), loss=None)
    history = fit(fn, X, Y, epochs=1)
    assert history["total"] == pytest.approx([2 * history["loss"][0]], rel=1e-5)
    fit(fn, X, Y, epochs=1)
    same(flat(fn), plain)


def test_validation_is_that_of_evaluate():
    fn = compiled(metrics=["mae"])
    history = fit(fn, X, Y, validation_data=(X[:5], Y[:5]))
    expected = fn.evaluate(X[:5], Y[:5], verbose=0, return_dict=True)
    assert history["val_loss"][-1] == pytest.approx(expected["loss"], rel=1e-5)
    assert history["val_mae"][-1] == pytest.approx(expected["mae"], rel=1e-5)


# --- kinds of models and data ---------------------------------------------------------------------


def two_branches():
    a, b = keras.Input((3,), name="x1"), keras.Input((3,), name="x2")
    outputs = {"u": layers.Dense(1, name="u")(a), "v": layers.Dense(2, name="v")(b)}
    return keras.Model({"x1": a, "x2": b}, outputs)


def test_inputs_outputs_weights_and_loss_weights_by_name():
    fn = compiled(
        two_branches(),
        {"u": "mse", "v": "mse"},
        undamped(),
        loss_weights={"u": 1.0, "v": 0.25},
    )
    x, y = {"x1": X, "x2": X + 1}, {"u": Y, "v": X[:, :2] ** 2}
    weights = {"u": np.linspace(0.5, 2, 12), "v": np.linspace(2, 0.5, 12)}
    fit(fn, x, y, sample_weight=weights, epochs=1, batch_size=12)
    same(kernel_and_bias(fn.get_layer("u")), solution(X, Y, weights["u"]), rtol=2e-3)
    same(kernel_and_bias(fn.get_layer("v")), solution(X + 1, y["v"], weights["v"]), rtol=2e-3)


def test_an_output_without_loss_is_left_alone():
    fn = compiled(two_branches(), {"u": "mse", "v": None}, undamped())
    before = kernel_and_bias(fn.get_layer("v"))
    fit(fn, {"x1": X, "x2": X}, {"u": Y, "v": X[:, :2]}, epochs=1, batch_size=12)
    same(kernel_and_bias(fn.get_layer("u")), solution(X, Y), rtol=2e-3)
    np.testing.assert_array_equal(kernel_and_bias(fn.get_layer("v")), before)


def test_lists_of_outputs_with_different_losses():
    inputs = keras.Input((3,))
    heads = [layers.Dense(1), layers.Dense(3, activation="softmax")]
    fn = compiled(keras.Model(inputs, [head(inputs) for head in heads]), ["mse", SPARSE])
    history = fit(fn, X, [Y, LABELS], epochs=5, batch_size=12)
    same(kernel_and_bias(heads[0]), solution(X, Y), rtol=2e-2)
    assert history["loss"][-1] < history["loss"][0]


def test_frozen_layers_stay_and_the_others_reach_their_optimum():
    fn = net(layers.Dense(4, activation="tanh"), layers.BatchNormalization(), layers.Dense(1))
    fn.layers[0].trainable = fn.layers[1].trainable = False
    compiled(fn, optimizer=undamped())
    before = [v.numpy() for v in fn.non_trainable_variables]
    fit(fn, X, Y, epochs=1, batch_size=12)
    for variable, value in zip(fn.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    features = fn.layers[1](fn.layers[0](X)).numpy()
    same(kernel_and_bias(fn.layers[2]), solution(features, Y), rtol=1e-2)


def test_masked_steps_count_for_nothing():
    tokens = np.array([[1, 2, 0], [2, 0, 0], [3, 1, 2]])
    y = draw(3, 3, 1)
    table = draw(4, 2, seed=3)
    embedding = layers.Embedding(4, 2, mask_zero=True, weights=[table], trainable=False)
    head = layers.Dense(1)
    fn = compiled(keras.Sequential([keras.Input((3,)), embedding, head]), optimizer=undamped())
    fn.train_on_batch(tokens, y)
    present = tokens > 0
    same(kernel_and_bias(head), solution(table[tokens[present]], y[present]), rtol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
def test_a_recurrent_classifier_of_tokens_learns_its_data(kind):
    tokens = np.random.default_rng(0).integers(1, 6, size=(12, 4))
    tokens[:6, 3] = 0  # masked
    fn = net(
        layers.Embedding(6, 3, mask_zero=True),
        getattr(layers, kind)(3),
        layers.Dense(3, activation="softmax"),
        inputs=4,
    )
    history = fit(compiled(fn, SPARSE), tokens, LABELS, epochs=25, batch_size=12)
    assert history["loss"][-1] < 0.1 * history["loss"][0]


TARGETS = {
    "integers": (np.arange(12)[:, None] % 4, {}),
    "integers of one axis": (np.arange(12) % 4, {}),
    "one axis": (Y[:, 0], {}),
    "class weights": (np.arange(12) % 2, {"class_weight": {0: 1, 1: 3}}),
    "integer sample weights": (Y, {"sample_weight": np.arange(12)}),
}


@pytest.mark.parametrize("name", TARGETS)
def test_targets_and_weights_of_every_kind_give_least_squares(name):
    y, arguments = TARGETS[name]
    fn = compiled(net(layers.Dense(1)), optimizer=undamped())
    fn.train_on_batch(X, y, **arguments)
    weights = arguments.get("sample_weight")
    if "class_weight" in arguments:
        weights = np.where(y == 1, 3, 1)
    same(kernel_and_bias(fn.layers[0]), solution(X, y, weights), rtol=2e-3)


def test_a_last_batch_that_is_smaller_counts_like_any_other():
    # On noise-free data, each batch of four or more finds the weights; batches of one cannot.
    y = X @ np.array([[1.0], [-2.0], [0.5]], "float32") + 3
    for batch_size in (7, 12):
        fn = compiled(net(layers.Dense(1)), optimizer=undamped())
        fit(fn, X, y, epochs=1, batch_size=batch_size)
        same(kernel_and_bias(fn.layers[0])[:, 0], [1, -2, 0.5, 3], rtol=1e-3)


def test_a_batch_of_one_fits_its_example():
    fn = compiled(net(layers.Dense(1)), optimizer=undamped())
    before = flat(fn)
    fit(fn, X[:1], Y[:1], epochs=1, batch_size=1)
    a = np.append(X[0], 1)
    expected = before + a * (Y[0, 0] - a @ before) / (a @ a)
    same(flat(fn), expected)


@pytest.mark.slow
def test_mixed_bfloat16_trains():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        history = fit(compiled(), X, Y, epochs=6, batch_size=12)
    finally:
        keras.config.set_dtype_policy("float32")
    assert history["loss"][-1] < 0.7 * history["loss"][0]


# --- saving, callbacks, and the long run ----------------------------------------------------------


def test_training_goes_on_bit_for_bit_after_save_and_load(tmp_path):
    schedule = keras.optimizers.schedules.ExponentialDecay(1.0, 3, 0.9)
    fn = net(
        layers.BatchNormalization(), layers.Dropout(0.4), layers.Dense(3, activation="softmax")
    )
    compiled(fn, SPARSE, keras_fwd.GaussNewton(schedule, damping=0.02, solver="cg"))
    for _ in range(3):
        fn.train_on_batch(X, LABELS)
    fn.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    # Keras does not save the seeds of dropout.
    again.layers[1].seed_generator.state.assign(fn.layers[1].seed_generator.state)
    assert again.optimizer.get_config()["solver"] == "cg"
    fn.reset_metrics()  # which older versions of Keras keep from batch to batch
    for _ in range(3):
        ours, theirs = (f.train_on_batch(X, LABELS, return_dict=True) for f in (fn, again))
        assert ours == theirs
    variables = [*fn.variables, *fn.optimizer.variables]
    loaded = [*again.variables, *again.optimizer.variables]
    for ours, theirs in zip(variables, loaded, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)
    assert int(again.optimizer.iterations) == 6


def test_early_stopping_restores_the_best_weights():
    stop = keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)
    fn = compiled(net(layers.Dense(8, activation="tanh"), layers.Dense(1)))
    history = fit(fn, X[:6], Y[:6], epochs=12, validation_data=(X[6:], Y[6:]), callbacks=[stop])
    assert len(history["loss"]) < 12
    best = min(history["val_loss"])
    assert fn.evaluate(X[6:], Y[6:], verbose=0) == pytest.approx(best, rel=1e-5)


def test_learning_rate_scheduler_scales_the_steps():
    rates = [0.5, 0.25, 1.0]
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: rates[epoch])
    fn = compiled(net(layers.Dense(1)), optimizer=undamped())
    errors = [flat(fn) - solution(X, Y)[:, 0]]
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: errors.append(flat(fn) - solution(X, Y)[:, 0])
    )
    fit(fn, X, Y, epochs=3, batch_size=12, callbacks=[scheduler, watch])
    for rate, before, after in zip(rates, errors, errors[1:], strict=False):
        np.testing.assert_allclose(after, (1 - rate) * before, atol=2e-5)


@pytest.mark.slow
def test_three_epochs_trace_once_and_leave_nothing_behind():
    calls = []

    class Counting(layers.Layer):
        def call(self, inputs):
            calls.append(1)
            return inputs

    fn = compiled(net(Counting(), layers.Dense(1)), metrics=["mae"])
    counts, objects = [], []

    def on_epoch_end(*_):
        counts.append(len(calls))
        gc.collect()
        objects.append(len(gc.get_objects()))

    watch = keras.callbacks.LambdaCallback(on_epoch_end=on_epoch_end)
    fit(fn, X, Y, epochs=5, batch_size=5, callbacks=[watch])  # the last batch has two examples
    assert len(set(counts)) == 1
    assert objects[-1] - objects[-3] < 200


@pytest.mark.parametrize("kind", [keras_fwd.GaussNewton, keras_fwd.KFAC])
def test_the_variables_of_an_optimizer_cost_no_second_trace(kind):
    traces = []

    class Counted(keras.Sequential):
        def train_step(self, data):
            traces.append(1)
            return super().train_step(data)

    fn = Counted([keras.Input([X.shape[1]]), layers.Dense(1)])
    fn.compile(kind(), "mse")
    fit(fn, X, Y, epochs=2, batch_size=5)
    assert len(traces) == 1


# --- values that are not finite -------------------------------------------------------------------


def spoilt(where, value):
    """The second of four batches of three is spoilt: x, y, sample weights."""
    x, y, weights = X.copy(), Y.copy(), np.ones(12, "float32")
    {"inputs": x, "targets": y, "sample weights": weights}[where][4] = value
    return x, y, weights


class Watching(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.weights, self.dampings = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append(flat(self.model))
        self.dampings.append(float(self.model.optimizer.damping))


MODES = ["graph", pytest.param("xla", marks=pytest.mark.slow)]


@pytest.mark.parametrize("mode", MODES)
def test_one_bad_batch_is_left_out_and_counted(mode):
    fn = compiled(metrics=["mae"], jit_compile=mode == "xla")
    start = fn.get_weights()
    cases = [
        ("inputs", np.nan),
        ("inputs", np.inf),
        ("targets", np.inf),
        ("sample weights", np.nan),
    ]
    for count, (where, value) in enumerate(cases, 1):
        x, y, weights = spoilt(where, value)
        watch = Watching()
        fn.set_weights(start)
        fn.optimizer.damping.assign(0.1)
        history = fit(fn, x, y, sample_weight=weights, epochs=1, batch_size=3, callbacks=[watch])
        first, second, third, _ = watch.weights
        np.testing.assert_array_equal(second, first, err_msg=where)
        assert (third != second).all(), where
        assert watch.dampings[1] == pytest.approx(2 * watch.dampings[0]), where
        assert history["nonfinite_steps"] == [count]
        assert fn.optimizer.nonfinite_steps == count
        assert np.isfinite([*history["loss"], *history["mae"]]).all(), where


def test_metrics_are_those_of_the_good_batches():
    x, y, _ = spoilt("inputs", np.nan)
    fn = compiled(optimizer=keras_fwd.GaussNewton(0.0), metrics=["mae"])
    history = fit(fn, x, y, epochs=1, batch_size=3)
    good = np.r_[0:3, 6:12]
    expected = fn.evaluate(X[good], Y[good], batch_size=3, verbose=0, return_dict=True)
    for name in ("loss", "mae"):
        assert history[name] == pytest.approx([expected[name]], rel=1e-5)


def test_a_model_without_bad_batches_does_not_log_their_count():
    assert "nonfinite_steps" not in fit(compiled(), X, Y, epochs=1)


# what is spoilt: what the message names
BAD = {
    "inputs": r"NaN in inputs\['x1'\], at step 2\b",
    "targets": r"infinity in targets\['u'\], at step 24\b",
    "weight": r"NaN in weight 'u/kernel', at step 44\b",
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_twenty_bad_batches_in_a_row_stop_training_and_are_named(mode):
    fn = compiled(two_branches(), "mse", jit_compile=mode == "xla")
    for stops, (what, message) in enumerate(BAD.items(), 1):
        x = {"x1": np.tile(X, (2, 1)), "x2": np.tile(X, (2, 1))}
        y = {"u": np.tile(Y, (2, 1)), "v": np.tile(X[:, :2], (2, 1))}
        if what == "inputs":
            x["x1"][2:] = np.nan
        elif what == "targets":
            y["u"][2:] = np.inf
        else:
            fn.get_layer("u").kernel.assign(np.full((3, 1), np.nan))
        watch = Watching()
        with pytest.raises(keras_fwd.NumericalError, match=f"20 batches in a row.*{message}"):
            fit(fn, x, y, batch_size=1, callbacks=[watch])
        assert len(watch.weights) == (19 if what == "weight" else 21)  # the 20th raises
        np.testing.assert_array_equal(flat(fn), watch.weights[-19])
        assert fn.optimizer.nonfinite_steps == 20 * stops


def test_training_may_go_on_after_the_stop():
    fn = compiled()
    fn.optimizer.patience = 3
    with pytest.raises(keras_fwd.NumericalError, match="3 batches in a row"):
        fit(fn, X * np.nan, Y, batch_size=3)
    before = fn.evaluate(X, Y, verbose=0)
    fn.optimizer.damping.assign(0.1)
    fit(fn, X, Y, epochs=3, batch_size=12)
    assert fn.evaluate(X, Y, verbose=0) < before


def test_a_gradient_that_is_not_finite_is_named():
    # The loss is finite; the derivative of the square root at zero is not.
    class Root(layers.Layer):
        def call(self, inputs):
            return tf.sqrt(tf.abs(inputs))

    fn = net(layers.Dense(1, use_bias=False), Root())
    fn.set_weights([np.zeros((3, 1))])
    compiled(fn).optimizer.patience = 1
    with pytest.raises(keras_fwd.NumericalError, match=r"NaN in the gradient of weight '.*kernel'"):
        fit(fn, X, Y)
    np.testing.assert_array_equal(flat(fn), np.zeros(3))


# --- what cannot be trained -----------------------------------------------------------------------


def frozen():
    fn = net()
    fn.trainable = False
    return compiled(fn)


def add_loss_only():
    class Penalty(layers.Layer):
        def call(self, inputs):
            self.add_loss(tf.reduce_mean(inputs**2))
            return inputs

    return compiled(net(layers.Dense(1), Penalty()), loss=None)


def absolute(y, p):
    return tf.reduce_mean(tf.abs(y - p), axis=-1)


REFUSED = {
    "all layers frozen": (frozen, "must have trainable weights"),
    "add_loss alone": (add_loss_only, "must be compiled with a `loss`"),
    "mae": (lambda: compiled(loss="mae"), "twice differentiable.*'mean_absolute_error'"),
    "hinge": (lambda: compiled(loss="hinge"), "twice differentiable.*'hinge'"),
    "a loss of one's own": (lambda: compiled(loss=absolute), "must be twice differentiable"),
    "the same, eager": (
        lambda: compiled(loss=absolute, run_eagerly=True),
        "must be twice differentiable",
    ),
    "a layer that assigns its kernel": (
        lambda: compiled(net(layers.SpectralNormalization(layers.Dense(1)))),
        "must not assign trainable weights.*kernel",
    ),
    "one of two losses": (
        lambda: compiled(two_branches(), {"u": "mse", "v": "mae"}),
        "'mean_absolute_error'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_refused_and_nothing_changes(name):
    build, message = REFUSED[name]
    fn = build()
    before = [v.numpy() for v in fn.variables]
    x, y = (X, Y) if len(fn.outputs) == 1 else ({"x1": X, "x2": X}, {"u": Y, "v": X[:, :2]})
    with pytest.raises(keras_fwd.ConfigurationError, match=f"(?s){message}"):
        fit(fn, x, y)
    for variable, value in zip(fn.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert int(fn.optimizer.iterations) == 0


def test_empty_data_is_refused():
    fn = compiled()
    with pytest.raises(keras_fwd.ConfigurationError, match="at least one example"):
        fit(fn, X[:0], Y[:0])
    with pytest.raises(keras_fwd.ConfigurationError, match=r"one example.*float32\[0, 3\]"):
        fn.train_on_batch(X[:0], Y[:0])


def test_a_layer_that_leaks_is_named():
    fn = compiled(net(layers.Dense(2), layers.Activation(leaking, name="odd"), layers.Dense(1)))
    before = flat(fn)
    with pytest.raises(keras_fwd.LeakError, match=r"PyFunc.*odd"):
        fit(fn, X, Y)
    np.testing.assert_array_equal(flat(fn), before)
