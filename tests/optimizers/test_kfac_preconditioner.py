"""`KFACPreconditioner`: the natural gradient in the hands of stock Keras optimizers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_fwd
from keras_fwd.optimizers import KFAC, GaussNewton, KFACPreconditioner

L = keras.layers
O = keras.optimizers  # noqa: E741 - as short as L
DAMPING = 0.125
#: The factors are those of the batch; a decay that float32 holds without rounding.
EXACT = {"damping": DAMPING, "fisher": "type-2", "factor_decay": 0.5}


def data(count=32, dtype="float32"):
    random = np.random.default_rng(0)
    x = random.normal(size=(count, 4)) * [1, 2, 0.5, 3]
    return x.astype(dtype), np.sin(x @ random.normal(size=(4, 2))).astype(dtype)


def deep():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input([4]), L.Dense(8, "tanh"), L.Dense(2)])


def linear():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input([4]), L.Dense(2)])


def fitted(optimizer, make=deep, epochs=5, callbacks=(), **compiled):
    """The whole of the data is the one batch of an epoch."""
    model = make()
    model.compile(optimizer, "mse", **compiled)
    x, y = data(dtype=keras.config.floatx())
    fit = {"batch_size": len(x), "verbose": 0, "shuffle": False, "callbacks": list(callbacks)}
    return model, model.fit(x, y, epochs=epochs, **fit).history


def check_same_weights(model, other, rtol=0.0, atol=0.0):
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


# -- steps


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_with_plain_sgd_it_takes_the_steps_of_kfac(request, dtype):
    request.getfixturevalue(dtype)
    one, _ = fitted(KFACPreconditioner(O.SGD(0.5), damping=DAMPING))
    other, _ = fitted(KFAC(0.5, damping=DAMPING, momentum=0.0, kl_clip=None))
    rtol = {"float32": 1e-5, "float64": 1e-12}[dtype]
    check_same_weights(one, other, rtol, rtol)
    fresh = deep()
    assert np.abs(one.get_weights()[0] - fresh.get_weights()[0]).max() > 0.01


INNER = {
    "sgd": lambda: O.SGD(0.5),
    "momentum": lambda: O.SGD(0.3, momentum=0.9),
    "nesterov, clipped by norm": lambda: O.SGD(0.3, momentum=0.9, nesterov=True, clipnorm=0.1),
    "clipped by value": lambda: O.SGD(0.3, clipvalue=0.05),
    "weight decay": lambda: O.SGD(0.3, weight_decay=0.1),
    "adam": lambda: O.Adam(0.05),
    "adamw": lambda: O.AdamW(0.05, weight_decay=0.1),
    "schedule": lambda: O.SGD(O.schedules.ExponentialDecay(0.5, 2, 0.5)),
    "averages": lambda: O.SGD(0.3, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3),
    "accumulation": lambda: O.SGD(0.5, gradient_accumulation_steps=2),
}


def natural_gradient(model, x, y):
    """Of a linear model and mse, in NumPy: the exact factors, with the damping split."""
    x1 = np.column_stack([x, np.ones(len(x))])
    w = np.vstack(model.get_weights())
    gradient = 2 * x1.T @ (x1 @ w - y) / y.size
    left, right = x1.T @ x1 / len(x), np.eye(2) * 2 / 2
    pi = np.sqrt((np.trace(left) / 5) / (np.trace(right) / 2))
    left += pi * np.sqrt(DAMPING) * np.eye(5)
    right += np.sqrt(DAMPING) / pi * np.eye(2)
    return gradient, np.linalg.solve(left, gradient) @ np.linalg.inv(right)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", INNER)
def test_the_inner_optimizer_does_what_it_does_with_these_gradients(kind):
    model, _ = fitted(KFACPreconditioner(INNER[kind](), **EXACT), linear, 5)
    x, y = data(dtype="float64")
    by_hand, optimizer = linear(), INNER[kind]()
    optimizer.build(by_hand.trainable_variables)
    for _ in range(5):
        _, natural = natural_gradient(by_hand, x, y)
        kernel, bias = tf.constant(natural[:-1]), tf.constant(natural[-1])
        optimizer.apply([kernel, bias], by_hand.trainable_variables)
    optimizer.finalize_variable_values(by_hand.trainable_variables)  # as `fit` does
    check_same_weights(model, by_hand, rtol=1e-9)
    for a, b in zip(model.optimizer.inner.variables, optimizer.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-8, atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("kl_clip", "rate"), [(1e-4, None), (1e9, 0.5)])
def test_kl_clip_bounds_the_change_of_the_predictions(kl_clip, rate):
    optimizer = KFACPreconditioner(O.SGD(0.5), kl_clip=kl_clip, **EXACT)
    model, _ = fitted(optimizer, linear, 1)
    before = linear()
    gradient, natural = natural_gradient(before, *data(dtype="float64"))
    rate = rate or np.sqrt(kl_clip / np.sum(gradient * natural))
    assert rate <= 0.5
    moved = np.vstack(model.get_weights()) - np.vstack(before.get_weights())
    np.testing.assert_allclose(moved, -rate * natural, rtol=1e-6)


def test_weights_left_out_of_weight_decay():
    sgd = O.SGD(0.0, weight_decay=0.5)
    optimizer = KFACPreconditioner(sgd)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    assert not sgd._use_weight_decay(linear().trainable_variables[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"run_eagerly": True}, pytest.param({"jit_compile": True}, marks=pytest.mark.slow)],
)
def test_graph_eager_and_xla_take_the_same_steps(options):
    def make():
        return KFACPreconditioner(O.SGD(0.3, momentum=0.9), fisher="type-2")

    reference, _ = fitted(make())
    model, _ = fitted(make(), **options)
    check_same_weights(model, reference, rtol=2e-3, atol=2e-3)


def test_the_second_step_is_not_traced_again():
    traces = []

    class Counted(keras.Sequential):
        def train_step(self, data):
            traces.append(1)
            return super().train_step(data)

    model, _ = fitted(KFACPreconditioner("adam"), lambda: Counted(deep().layers), epochs=1)
    count = len(traces)
    x, y = data()
    model.fit(x, y, batch_size=len(x), epochs=3, verbose=0)
    assert len(traces) == count


def test_constraints_hold():
    def make():
        model = keras.Sequential([keras.Input([4]), L.Dense(2, kernel_constraint="non_neg")])
        model.layers[0].kernel.assign(np.full([4, 2], 0.1))
        return model

    model, _ = fitted(KFACPreconditioner(O.SGD(0.5)), make)
    assert model.get_weights()[0].min() == 0.0


# -- callbacks, state


def test_learning_rate_is_that_of_the_inner_optimizer():
    sgd = O.SGD(0.5)
    optimizer = KFACPreconditioner(sgd)
    assert float(optimizer.learning_rate) == 0.5
    optimizer.learning_rate = 0.25
    assert float(sgd.learning_rate) == 0.25


def test_callbacks_of_keras_set_the_learning_rate():
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    model, history = fitted(KFACPreconditioner(O.SGD(0.5)), callbacks=[schedule], epochs=3)
    assert float(model.optimizer.inner.learning_rate) == 0.0625
    assert history["learning_rate"] == [0.25, 0.125, 0.0625]
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=1, min_delta=1e9)
    model, _ = fitted(KFACPreconditioner(O.SGD(0.5)), callbacks=[plateau], epochs=3)
    np.testing.assert_allclose(model.optimizer.learning_rate, 0.005, rtol=1e-6)


def test_averages_are_swapped_in_by_the_callback_of_keras():
    class Seen(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.trained = self.model.get_weights()[0]

        def on_epoch_end(self, epoch, logs=None):
            self.averaged = self.model.get_weights()[0]

    sgd, seen = O.SGD(0.3, use_ema=True, ema_momentum=0.5), Seen()
    callbacks = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True), seen]
    fitted(KFACPreconditioner(sgd), callbacks=callbacks)
    assert np.abs(seen.averaged - seen.trained).max() > 1e-4


def test_a_batch_that_is_not_finite_is_left_out_and_counted():
    sgd = O.SGD(0.3, momentum=0.9, use_ema=True, ema_momentum=0.5, weight_decay=0.1)
    model, _ = fitted(KFACPreconditioner(sgd), epochs=2)
    kept = [*model.trainable_variables, *sgd.variables]
    kept += [v for v in model.optimizer.variables if "block" in v.path or "damping" in v.path]
    before = [v.numpy() for v in kept]
    x, y = data()
    model.train_on_batch(np.full_like(x, np.nan), y)
    assert model.optimizer.nonfinite_steps == 1
    for variable, value in zip(kept, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    model.train_on_batch(x, y)
    assert int(sgd.iterations) == 3


def test_a_first_batch_that_is_not_finite_does_no_harm():
    x, y = data()
    model = deep()
    model.compile(KFACPreconditioner(O.SGD(0.5)), "mse")
    model.train_on_batch(np.full_like(x, np.nan), y)
    losses = model.fit(x, y, batch_size=32, epochs=10, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


SAVED = {
    "momentum": lambda: KFACPreconditioner(O.SGD(0.3, momentum=0.9), kl_clip=1e-2),
    "adam": lambda: KFACPreconditioner(
        O.Adam(0.01, use_ema=True, gradient_accumulation_steps=2), inverse="eigen"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [pytest.param(name, marks=[pytest.mark.slow] * (name == "adam")) for name in SAVED]
)
def test_a_saved_model_goes_on_to_the_same_weights(tmp_path, kind):
    model, _ = fitted(SAVED[kind](), epochs=3)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x, y = data()
    for trained in (model, again):
        trained.fit(x, y, batch_size=32, epochs=4, verbose=0, shuffle=False)
    check_same_weights(model, again)
    pairs = zip(model.optimizer.variables, again.optimizer.variables, strict=True)
    for a, b in pairs:
        np.testing.assert_array_equal(a.numpy(), b.numpy())


# -- configuration


@pytest.mark.parametrize(
    "inner",
    ["adam", O.Adam(), O.serialize(O.Adam()), {"class_name": "Adam", "config": {}}],
    ids=["name", "object", "serialized", "short config"],
)
def test_inner_may_be_given_in_every_way_that_compile_knows(inner):
    assert isinstance(KFACPreconditioner(inner).inner, O.Adam)


def test_config_holds_every_argument():
    options = {
        "damping": 0.5,
        "kl_clip": 0.25,
        "fisher": "empirical",
        "inverse": "eigen",
        "shared": "reduce",
        "factor_decay": 0.5,
        "factor_every": 3,
        "inverse_every": 5,
        "seed": 7,
        "name": "mine",
    }
    schedule = O.schedules.CosineDecay(0.5, 100)
    made = KFACPreconditioner(O.SGD(schedule, momentum=0.9, weight_decay=0.1), **options)
    config = made.get_config()
    inner = config.pop("inner")
    assert config == options
    again = O.deserialize(O.serialize(made))
    assert isinstance(again, KFACPreconditioner)
    assert again.get_config() == made.get_config() == {**options, "inner": inner}
    again.inner.iterations.assign(100)
    assert again.inner.momentum == 0.9 and float(again.learning_rate) == 0.0


REFUSED = [
    ({"inner": None}, "`inner` must be a Keras optimizer"),
    ({"inner": 0.1}, "`inner` must be a Keras optimizer"),
    ({"inner": "sdg"}, "`inner` must be a Keras optimizer"),
    ({"inner": O.SGD}, "`inner` must be a Keras optimizer"),
    ({"inner": KFAC()}, "`inner`.*KFAC has curvature of its own"),
    ({"inner": GaussNewton()}, "`inner`.*GaussNewton has curvature of its own"),
    ({"inner": KFACPreconditioner("sgd")}, "`inner`.*KFACPreconditioner has curvature"),
    ({"inner": O.LossScaleOptimizer(O.SGD())}, "`inner`.*without loss scaling"),
    ({"inner": O.SGD(loss_scale_factor=2.0)}, "`inner`.*without loss scaling"),
    ({"learning_rate": 0.1, "weight_decay": 0.2}, "go to `inner`.*weight_decay=0.2"),
    ({"gradient_accumulation_steps": 2}, "go to `inner`.*gradient_accumulation_steps=2"),
    ({"damping": -1.0}, "`damping`"),
    ({"kl_clip": 0.0}, "`kl_clip`"),
    ({"fisher": "exact"}, "`fisher`"),
    ({"factor_every": 0}, "`factor_every`"),
]


@pytest.mark.parametrize(("options", "named"), REFUSED)
def test_arguments_out_of_range(options, named):
    with pytest.raises(keras_fwd.ConfigurationError, match=named) as caught:
        KFACPreconditioner(**{"inner": "sgd", **options})
    assert "KFACPreconditioner: " in str(caught.value) and "Received: " in str(caught.value)
