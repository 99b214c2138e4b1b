"""`KFAC` in `compile` and `fit`: every kind of model, state, bad input and bad data."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_fwd
from keras_fwd.optimizers._kronecker.factors import growing_period
from keras_fwd.optimizers.kfac import KFAC

L = keras.layers


def data(count=64, inputs=4, outputs=2):
    random = np.random.default_rng(0)
    x = random.normal(size=(count, inputs)).astype("float32")
    return x, np.sin(x @ random.normal(size=(inputs, outputs))).astype("float32")


def sequential(activation="tanh"):
    return keras.Sequential([keras.Input([4]), L.Dense(8, activation), L.Dense(2)])


def functional():
    x = keras.Input([4])
    shared = L.Dense(4, "tanh")
    return keras.Model(x, L.Dense(2)(shared(L.LayerNormalization()(shared(x)))))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = L.Dense(8, "tanh")
        self.read = L.Dense(2)

    def call(self, x):
        return self.read(self.hidden(x))


MODELS = {"sequential": sequential, "functional": functional, "subclassed": Subclassed}


def fitted(optimizer, make=sequential, epochs=30, loss="mse", **compiled):
    keras.utils.set_random_seed(0)
    model = make()
    model.compile(optimizer, loss, **compiled)
    x, y = data()
    history = model.fit(x, y, batch_size=64, epochs=epochs, verbose=0, shuffle=False)
    return model, history.history


WAYS = [{}, {"jit_compile": True}, {"run_eagerly": True}]
CASES = [
    (name, options) for name in MODELS for options in WAYS if name != "subclassed" or not options
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [pytest.param(n, o, marks=[pytest.mark.slow] * bool(o), id=f"{n} {o}") for n, o in CASES],
)
def test_every_kind_of_model_trains(name, options):
    model, history = fitted(KFAC(), MODELS[name], 30, **options)
    _, adam = fitted("adam", MODELS[name], 30)
    assert history["loss"][-1] < (0.5 if name == "functional" else 0.05) * adam["loss"][-1]
    assert history["damping"][-1] > 0 and all(np.isfinite(history["reduction_ratio"]))
    assert model.optimizer.nonfinite_steps == 0


@pytest.mark.slow
def test_graph_eager_and_xla_take_the_same_steps():
    reference, _ = fitted(KFAC(fisher="type-2"), epochs=5)
    for options in ({"jit_compile": True}, {"run_eagerly": True}):
        model, _ = fitted(KFAC(fisher="type-2"), epochs=5, **options)
        for a, b in zip(model.get_weights(), reference.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)


def test_the_second_step_is_not_traced_again():
    traces = []

    class Counted(keras.Sequential):
        def train_step(self, data):
            traces.append(1)
            return super().train_step(data)

    model, _ = fitted(KFAC(), lambda: Counted(sequential().layers), epochs=1)
    count = len(traces)
    x, y = data()
    model.fit(x, y, batch_size=64, epochs=3, verbose=0)
    assert len(traces) == count


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": 0.3, "kl_clip": None},
        {"learning_rate": keras.optimizers.schedules.CosineDecay(0.5, 100), "kl_clip": None},
        {"learning_rate": 0.5, "kl_clip": None, "max_trials": 4},
        {"inverse": "eigen"},
        {"fisher": "type-2"},
        {"fisher": "empirical"},
        {"shared": "reduce"},
        {"weight_decay": 1e-5},
        {"clipnorm": 1.0},
        {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 5},
    ],
    ids=lambda options: " ".join(options),
)
def test_every_option_trains(options):
    _, history = fitted(KFAC(**options))
    _, adam = fitted("adam")
    assert history["loss"][-1] < 0.3 * adam["loss"][-1]
    copy = KFAC.from_config(KFAC(**options).get_config())
    assert copy.get_config() == KFAC(**options).get_config()


@pytest.mark.slow
def test_several_outputs_and_sample_weights():
    x = keras.Input([4])
    h = L.Dense(8, "tanh")(x)
    outputs = {"value": L.Dense(1)(h), "kind": L.Dense(3, "softmax")(h)}
    model = keras.Model(x, outputs)
    model.compile(KFAC(), {"value": "mse", "kind": "sparse_categorical_crossentropy"})
    inputs, targets = data()
    y = {"value": targets[:, :1], "kind": np.argmax(inputs[:, :3], 1)}
    weights = {"value": np.ones(64), "kind": np.linspace(0, 1, 64)}
    history = model.fit(inputs, y, sample_weight=weights, batch_size=64, epochs=30, verbose=0)
    assert history.history["loss"][-1] < 0.1 * history.history["loss"][0]


@pytest.mark.slow
def test_batches_of_unknown_size():
    x, y = data(20)
    known, unknown = (sequential() for _ in range(2))
    unknown.set_weights(known.get_weights())
    for model, is_known in ((known, True), (unknown, False)):
        model.compile(KFAC(curvature_batch=8), "mse")
        batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(20, drop_remainder=is_known)
        model.fit(batches, verbose=0)
    for a, b in zip(known.get_weights(), unknown.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_regularized_models_train():
    keras.utils.set_random_seed(0)
    penalty = keras_fwd.regularizers.JacobianNorm(1e-3)
    model = keras_fwd.regularize(sequential(), penalty)
    model.compile(KFAC(), "mse")
    x, y = data()
    history = model.fit(x, y, batch_size=64, epochs=30, verbose=0).history
    assert history["loss"][-1] < 0.2 * history["loss"][0]
    assert all(row.block == "Kronecker" for row in KFAC().blocks(model, x))


def test_weight_decay_shrinks_and_ema_averages():
    x, y = data()
    model = sequential()
    optimizer = KFAC(0.0, weight_decay=0.5, use_ema=True, ema_momentum=0.5)
    model.compile(optimizer, "mse")
    before = model.get_weights()
    model.train_on_batch(x, y)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])  # times a rate of zero
    optimizer = KFAC(1e-6, weight_decay=1e5, kl_clip=None)
    model.compile(optimizer, "mse")
    model.train_on_batch(x, y)
    np.testing.assert_allclose(model.get_weights()[0], 0.9 * before[0], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [KFAC, lambda: KFAC(0.1), lambda: KFAC(inverse="eigen")],
    ids=["damped", "rate", "eigen"],
)
def test_a_saved_model_goes_on_to_the_same_weights(tmp_path, kind):
    x, y = data()
    model, _ = fitted(kind(), epochs=7)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for trained in (model, again):
        trained.fit(x, y, batch_size=64, epochs=30, verbose=0, shuffle=False)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)]
)
def test_mixed_precision(policy, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model, history = fitted(KFAC(), epochs=30)
        assert history["loss"][-1] < 0.1 * history["loss"][0]
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
    finally:
        keras.config.set_dtype_policy(before)
    x, y = data()
    for trained in (model, again):
        trained.fit(x, y, batch_size=64, epochs=3, verbose=0, shuffle=False)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_scale_of_the_loss_follows_overflow():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = sequential()
        scaled = keras.optimizers.LossScaleOptimizer(KFAC(), 2.0**24, dynamic_growth_steps=3)
        model.compile(scaled, "mse")
    finally:
        keras.config.set_dtype_policy(before)
    x, y = data()
    scales = []
    for _ in range(14):
        weights = model.get_weights()
        model.train_on_batch(x, 10 * y)
        scales.append(float(scaled.dynamic_scale.numpy()))
        same = all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))
        assert same == (scales[-1] < (scales[-2] if len(scales) > 1 else 2.0**24))
    assert min(scales) < 2.0**24 and max(np.diff(scales)) > 0  # down, and up again


# -- data that is hard


@pytest.mark.slow
def test_a_batch_that_is_not_finite_is_left_out_and_counted():
    x, y = data()
    model, _ = fitted(KFAC(), epochs=2)
    before = model.get_weights()
    model.train_on_batch(np.full_like(x, np.nan), y)
    assert model.optimizer.nonfinite_steps == 1
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    factors = [v for v in model.optimizer._variables if "block" in v.path]
    assert factors and all(np.isfinite(v.numpy()).all() for v in factors)
    losses = model.fit(x, y, batch_size=64, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_a_first_batch_that_is_not_finite_does_no_harm():
    x, y = data()
    model = sequential()
    model.compile(KFAC(), "mse")
    model.train_on_batch(np.full_like(x, np.nan), y)
    losses = model.fit(x, y, batch_size=64, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("inverse", ["cholesky", "eigen"])
@pytest.mark.parametrize("options", [{}, {"damping": 0.0}, {"learning_rate": 0.1}])
@pytest.mark.parametrize("case", ["dead relu", "zero activations", "constant inputs", "one"])
def test_singular_factors(case, options, inverse):
    x, y = data()
    model = sequential("relu")
    if case == "dead relu":
        model.layers[0].bias.assign(np.full(8, -100.0))
    if case == "zero activations":
        model.layers[0].kernel.assign(np.zeros((4, 8)))
    if case == "constant inputs":
        x = np.ones_like(x)
    if case == "one":
        x, y = x[:1], y[:1]
    model.compile(KFAC(inverse=inverse, **options), "mse")
    losses = model.fit(x, y, batch_size=64, epochs=20, verbose=0).history["loss"]
    assert losses[-1] <= losses[0] and np.isfinite(losses).all()
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_a_learning_rate_of_zero_moves_nothing():
    model = sequential()
    model.compile(KFAC(0.0), "mse")
    before = model.get_weights()
    model.fit(*data(), epochs=2, verbose=0)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_model_without_matrices_is_trained_with_a_warning():
    model = keras.Sequential([keras.Input([3, 4]), L.LSTM(2)])
    model.compile(KFAC(), "mse")
    x = np.random.default_rng(0).normal(size=(32, 3, 4)).astype("float32")
    y = np.tanh(x.sum(1)[:, :2])
    with pytest.warns(UserWarning, match="no weight of the model is used as a matrix"):
        losses = model.fit(x, y, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


# -- what is refused

REFUSED = [
    ({"damping": -1.0}, "`damping`"),
    ({"damping": float("nan")}, "`damping`"),
    ({"momentum": 1.0}, "`momentum`"),
    ({"momentum": -0.1}, "`momentum`"),
    ({"kl_clip": 0.0}, "`kl_clip`"),
    ({"fisher": "exact"}, "`fisher`"),
    ({"inverse": "lu"}, "`inverse`"),
    ({"shared": "sum"}, "`shared`"),
    ({"factor_decay": 1.0}, "`factor_decay`"),
    ({"factor_every": 0}, "`factor_every`"),
    ({"inverse_every": 2.5}, "`inverse_every`"),
    ({"max_trials": 0}, "`max_trials`"),
    ({"seed": -1}, "`seed`"),
    ({"gradient_accumulation_steps": 2}, "gradient accumulation"),
]


@pytest.mark.parametrize(("options", "named"), REFUSED, ids=str)
def test_arguments_out_of_range(options, named):
    with pytest.raises(keras_fwd.ConfigurationError, match=named) as caught:
        KFAC(**options)
    assert "Received: " in str(caught.value)


def test_one_optimizer_for_two_models():
    x, y = data()
    optimizer = KFAC()
    for model, message in ((sequential(), None), (functional(), "one model")):
        model.compile(optimizer, "mse")
        if message is None:
            model.train_on_batch(x, y)
            continue
        with pytest.raises((keras_fwd.ConfigurationError, ValueError)):
            model.train_on_batch(x, y)


# -- blocks


def test_the_table_of_blocks():
    x = keras.Input([6, 4])
    y = L.MultiHeadAttention(2, 3)(x, x)
    y = L.GRU(3)(L.LayerNormalization()(y))
    model = keras.Model(x, L.Dense(2, name="read")(y))
    report = KFAC().blocks(model)
    kinds = [row.block for row in report]
    assert kinds.count("Kronecker") == 5 and kinds.count("scale and shift") == 2
    assert kinds.count("diagonal") == 3
    text = str(report)
    assert "query/kernel" in text and "matrix in BatchMatMulV2" in text
    (read,) = [row for row in report if row.weights == "read/kernel, read/bias"]
    assert (read.left, read.right) == ((1, 4, 4), (1, 2, 2))


def test_blocks_of_a_sequential_model_need_no_batch():
    model = keras.Sequential([keras.Input((4,)), L.Dense(3), L.Dense(1)])
    assert [row.block for row in KFAC().blocks(model)] == ["Kronecker", "Kronecker"]


def test_blocks_of_a_model_without_input_shape():
    model = Subclassed()
    with pytest.raises(keras_fwd.ConfigurationError, match="must be built"):
        KFAC().blocks(model)
    x, _ = data()
    model(x)
    with pytest.raises(keras_fwd.ConfigurationError, match="pass a batch"):
        KFAC().blocks(model)
    assert [row.block for row in KFAC().blocks(model, x)] == ["Kronecker", "Kronecker"]


def test_periods_grow_to_what_was_asked_for():
    periods = [int(growing_period(tf.constant(step), 10)) for step in range(300)]
    assert periods[0] == 1 and periods[-1] == 10
    assert sorted(set(periods)) == [1, 2, 4, 8, 10]
    assert periods == sorted(periods)
    assert {int(growing_period(tf.constant(step), 1)) for step in range(300)} == {1}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [KFAC, keras_fwd.GaussNewton])
def test_weights_stay_inside_their_constraints(kind):
    keras.utils.set_random_seed(0)
    positive = L.Dense(8, "tanh", kernel_constraint=keras.constraints.NonNeg())
    positive.build([None, 4])
    positive.kernel.assign(np.abs(positive.kernel.numpy()))
    _, history = fitted(kind(), lambda: keras.Sequential([positive, L.Dense(2)]), 20)
    assert positive.kernel.numpy().min() == 0.0  # where it would have gone below
    assert history["loss"][-1] < history["loss"][0]
