"""`regularize` and `SensitivityPenalty`: in `fit`, saved and loaded, and what they refuse."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import random, relative_error

import keras_fwd
from keras_fwd import ConfigurationError, LeakError, StructureError, regularize
from keras_fwd import regularizers as R
from keras_fwd._models.model_losses import example_losses
from keras_fwd.layers import SensitivityPenalty
from keras_fwd.regularizers import directional

L = keras.layers


@keras.saving.register_keras_serializable("tests")
def tilted(x):
    return tf.stack([tf.ones_like(x), tf.cos(x)])


def schedule():
    return keras.optimizers.schedules.ExponentialDecay(0.3, 1, 0.5)


PENALTIES = {
    "JacobianNorm": lambda: R.JacobianNorm(schedule(), 2, features={1: 2.0, "x[2]": 0.0}),
    "JacobianNorm, array": lambda: R.JacobianNorm(0.3, "exact", features=[1.0, 2.0, 0.0]),
    "SpectralJacobian": lambda: R.SpectralJacobian(0.3, num_iterations=3),
    "Lipschitz": lambda: R.Lipschitz(0.3, bound=0.2),
    "Directional": lambda: R.Directional(0.3, [tilted, np.array([1.0, 0.0, -1.0])]),
    "InputGradient": lambda: R.InputGradient(0.3),
    "GradientPenalty": lambda: R.GradientPenalty(0.3, target=0.5),
    "Contractive": lambda: R.Contractive(0.3, num_projections=1),
    "LocalLinearity": lambda: R.LocalLinearity(0.3, 0.2, 1, 0.5),
    "Curvature": lambda: R.Curvature(0.3, step=0.5),
    "Monotonic": lambda: R.Monotonic(0.3, [0, "x[1]"], [1, -1]),
}


def net(outputs=1, mixes=True):
    layers = [L.Dense(4, "tanh"), *[L.BatchNormalization()] * mixes, L.Dense(outputs)]
    return keras.Sequential([keras.Input([3]), *layers])


def data(count=16):
    return np.asarray(random([count, 3], 1)), np.asarray(random([count, 1], 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", PENALTIES)
def test_a_model_saved_in_training_goes_on_to_the_same_weights(name, tmp_path):
    model = regularize(net(), PENALTIES[name](), seed=3)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    x, y = data()
    model.fit(x, y, batch_size=8, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.regularizer.get_config() == model.regularizer.get_config()
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    histories = [m.fit(x, y, batch_size=8, shuffle=False, verbose=0) for m in (model, loaded)]
    assert histories[0].history == histories[1].history
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", PENALTIES)
def test_the_penalty_is_in_the_loss_and_in_a_metric_of_its_own(name):
    regularizer = PENALTIES[name]()
    model = regularize(net(), regularizer)
    model.compile("sgd", "mse")
    x, y = data()
    logs = model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True)
    penalty = logs[regularizer.name]
    expected = np.mean((model.predict(x, verbose=0) - y) ** 2)
    assert penalty > 0
    np.testing.assert_allclose(logs["loss"], expected + 0.3 * penalty, rtol=1e-5)
    history = model.fit(x, y, batch_size=8, epochs=2, verbose=0, validation_data=(x, y)).history
    assert set(history) == {
        "loss",
        regularizer.name,
        "val_loss",
        f"val_{regularizer.name}",
    }
    assert np.isfinite(list(history.values())).all()


def test_layers_weights_and_outputs_are_those_of_the_model():
    model = net()
    regularized = regularize(model, R.SpectralJacobian(0.1))
    x, y = data()
    assert [id(layer) for layer in regularized.layers] == [id(layer) for layer in model.layers]
    assert [id(w) for w in regularized.weights] == [id(w) for w in model.weights]
    assert regularized.get_layer(model.layers[0].name) is model.layers[0]
    assert regularized.count_params() == model.count_params()
    np.testing.assert_array_equal(regularized(x), model(x))
    regularized.compile("sgd", "mse")
    before = model.get_weights()
    regularized.fit(x, y, verbose=0)
    assert not np.allclose(before[0], model.get_weights()[0])
    regularized.save_weights  # noqa: B018 - offered
    regularized.summary(print_fn=lambda text: None)


def test_a_step_does_what_a_loop_of_ones_own_does(float64):
    x, y = data()
    model, twin = net(), net()
    twin.set_weights(model.get_weights())
    regularizer = R.JacobianNorm(0.3, "exact")
    regularized = regularize(model, regularizer)
    regularized.compile(keras.optimizers.SGD(0.1), "mse")
    regularized.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((twin(x, training=True) - y) ** 2)
        loss += regularizer(twin, x, training=True, seed=0)
    variables = [v.value for v in twin.trainable_variables]
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        variable.assign_sub(0.1 * gradient)
    for a, b in zip(model.trainable_weights, twin.trainable_weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


@pytest.mark.parametrize("how", [{"run_eagerly": True}, {"jit_compile": True}])
@pytest.mark.parametrize("name", ["JacobianNorm, array", "SpectralJacobian", "InputGradient"])
def test_eager_and_compiled_steps_do_the_same(name, how):  # but XLA draws other random numbers
    x, y = data()
    results = []
    for options in ({"jit_compile": False}, how):
        keras.utils.set_random_seed(0)
        model = regularize(net(mixes=False), PENALTIES[name]())
        model.compile("sgd", "mse", **options)
        model.fit(x, y, batch_size=8, shuffle=False, epochs=2, verbose=0)
        results.append(model.get_weights())
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_statistics_and_dropout_move_once_in_a_step():
    x, y = data()
    layers = [L.BatchNormalization(momentum=0.5), L.Dropout(0.5, seed=1), L.Dense(1)]
    means = []
    for wrap in (lambda m: m, lambda m: regularize(m, R.Curvature(0.1))):
        keras.utils.set_random_seed(0)
        inner = keras.Sequential(
            [keras.Input([3]), *[type(layer).from_config(layer.get_config()) for layer in layers]]
        )
        model = wrap(inner)
        model.compile("sgd", "mse")
        model.fit(x, y, batch_size=16, verbose=0)
        means.append([inner.layers[0].moving_mean, inner.layers[1].seed_generator.state])
    for a, b in zip(*means, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_gauss_newton_trains_a_regularized_model(float64):
    x = np.linspace(-1, 1, 32)[:, None]
    y = np.sin(3 * x)
    norms = {}
    for strength in (0.0, 0.1):
        keras.utils.set_random_seed(0)
        model = regularize(
            keras.Sequential([keras.Input([1]), L.Dense(8, "tanh"), L.Dense(1)]),
            R.JacobianNorm(strength, "exact"),
        )
        model.compile(keras_fwd.GaussNewton(), "mse")
        history = model.fit(x, y, batch_size=32, epochs=30, verbose=0).history
        norms[strength] = history["jacobian_norm"][-1]
        assert history["loss"][-1] < history["loss"][0]
    assert norms[0.1] < 0.8 * norms[0.0]


def test_two_penalties():
    model = regularize(regularize(net(), R.JacobianNorm(0.1)), R.InputGradient(0.1))
    model.compile("adam", "mse")
    x, y = data()
    history = model.fit(x, y, verbose=0, validation_data=(x, y)).history
    assert {"jacobian_norm", "input_gradient", "val_jacobian_norm"} <= set(history)
    assert np.isfinite(list(history.values())).all()
    with pytest.raises(ConfigurationError, match="must be the outermost one"):
        regularize(model, R.JacobianNorm(0.1))


def test_a_strength_that_changes():
    x, y = data()
    strength = keras.Variable(0.0)
    model = regularize(net(mixes=False), R.JacobianNorm(strength, "exact"))
    model.compile(keras.optimizers.SGD(0.0), "mse")

    class Raise(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            strength.assign(float(epoch))

    losses = model.fit(x, y, batch_size=16, epochs=3, verbose=0, callbacks=[Raise()]).history
    steps = np.diff(losses["loss"])
    np.testing.assert_allclose(steps, losses["jacobian_norm"][0], rtol=1e-4)
    assert model.regularizer.get_config()["strength"] == 2.0
    decaying = R.JacobianNorm(schedule())
    assert [float(decaying.factor(step)) for step in (0, 1)] == pytest.approx([0.3, 0.15])


def test_the_carried_direction_converges():
    x, _ = data()
    inner = keras.Sequential([keras.Input([3]), L.Dense(2, use_bias=False)])
    inner.layers[0].kernel.assign([[1.0, 0.0], [0.0, 0.9], [0.0, 0.0]])
    model = regularize(inner, R.SpectralJacobian(0.1, num_iterations=1))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x, y = x[:1].repeat(16, 0), np.zeros([16, 2])
    values = model.fit(x, y, epochs=30, verbose=0).history["spectral_jacobian"]
    assert values[0] < 0.999
    np.testing.assert_allclose(values[-1], 1.0, rtol=1e-3)


def test_a_part_of_a_model(tmp_path):
    x = keras.Input([3])
    encoder = L.Dense(2, "sigmoid")
    code = SensitivityPenalty(encoder, R.Contractive(0.5))(x)
    model = keras.Model(x, L.Dense(3)(code))
    model.compile("adam", "mse")
    data_, _ = data()
    history = model.fit(data_, data_, verbose=0, validation_data=(data_, data_)).history
    assert history["contractive"][0] > 0
    assert np.isnan(history["val_contractive"][0])  # not measured, and so not 0
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(data_), model(data_))
    for m in (model, loaded):
        m.fit(data_, data_, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_behind_an_embedding_with_a_mask():
    tail = L.LSTM(1)
    x = keras.Input([5], dtype="int32")
    embedded = L.Embedding(7, 3, mask_zero=True)(x)
    model = keras.Model(x, SensitivityPenalty(tail, R.JacobianNorm(0.1))(embedded))
    model.compile("adam", "mse", jit_compile=False)
    ids = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 0, 0]])
    assert np.isfinite(model.fit(ids, np.ones([2, 1]), verbose=0).history["loss"][0])
    expected = tail(model.layers[1](ids), mask=ids > 0)
    np.testing.assert_allclose(model(ids), expected, rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = regularize(net(), R.JacobianNorm(0.1))
        model.compile("adam", "mse")
        x, y = data()
        history = model.fit(x, y, verbose=0).history
    finally:
        keras.config.set_dtype_policy(before)
    assert np.isfinite(list(history.values())).all()


def test_several_inputs_by_name():
    a, b, c = (
        keras.Input([2], name="a"),
        keras.Input([1], name="b"),
        keras.Input([1], name="c", dtype="int32"),
    )
    y = L.Dense(1)(L.Concatenate()([a, b, L.Flatten()(L.Embedding(3, 2)(c))]))
    model = keras.Model({"a": a, "b": b, "c": c}, y)
    x = {
        "a": random([4, 2], 1, "float32"),
        "b": random([4, 1], 2, "float32"),
        "c": tf.constant([[0], [1], [2], [0]]),
    }
    kernel = model.layers[-1].kernel.numpy()[:3, 0]
    norm = R.JacobianNorm(1.0, "exact", features={"b": 5.0, "a[0]": 0.0})
    np.testing.assert_allclose(norm(model, x), kernel[1] ** 2 + 5 * kernel[2] ** 2, rtol=1e-5)
    slope = R.Monotonic(1.0, "b")
    np.testing.assert_allclose(slope(model, x), max(-kernel[2], 0) ** 2, rtol=1e-5, atol=1e-9)
    model = regularize(model, R.SpectralJacobian(0.1))
    model.compile("adam", "mse")
    model.fit(x, np.ones([4, 1]), verbose=0)


def test_the_loss_is_differentiated_by_the_logits():
    # At these logits the probabilities are rounded to 0 and 1, where Keras clips them.
    model = keras.Sequential(
        [keras.Input([1]), L.Dense(1, use_bias=False), L.Activation("sigmoid")]
    )
    model.layers[0].kernel.assign([[1.0]])
    model.compile(loss="binary_crossentropy")
    x, y = tf.constant([[30.0]]), tf.constant([[0.0]])
    np.testing.assert_allclose(R.InputGradient(1.0)(model, x, y), 1.0, rtol=1e-5)


def test_sample_weights_losses_and_masks_count_as_in_fit(float64):
    x = keras.Input([4, 2])
    y = L.Dense(1)(L.LSTM(3, return_sequences=True)(L.Masking()(x)))
    model = keras.Model(x, {"a": y, "b": L.Dense(1)(L.Flatten()(x))})
    model.compile(loss={"a": "mse", "b": "mae"}, loss_weights={"a": 1.0, "b": 3.0})
    x = np.array(random([3, 4, 2], 1))
    x[0, 2:] = 0
    targets = {"a": random([3, 4, 1], 2), "b": random([3, 1], 3)}
    weights = {"a": random([3, 4], 4) ** 2, "b": random([3], 5) ** 2}
    outputs = model(x)
    total = float(model.compute_loss(x, targets, outputs, weights))
    values = example_losses(model, outputs, targets, weights)
    np.testing.assert_allclose(tf.reduce_mean(values), total, rtol=1e-9)


def test_image_tangents_move_images():
    rows, columns = np.meshgrid(np.arange(21.0) - 10, np.arange(21.0) - 10, indexing="ij")

    def image(r, c):
        return np.exp(-((r - 2) ** 2 / 40 + (c + 1) ** 2 / 60))[None, ..., None]

    h = 1e-4
    inner = (slice(None), slice(None), slice(3, -3), slice(3, -3))
    cases = {
        "shift": [image(rows - h, columns), image(rows, columns - h)],
        # Counter-clockwise on a screen, whose rows run downwards.
        "rotation": [
            image(rows * np.cos(h) + columns * np.sin(h), columns * np.cos(h) - rows * np.sin(h))
        ],
        "scale": [image(rows / (1 + h), columns / (1 + h))],
    }
    for name, moved in cases.items():
        found = directional.TANGENTS[name](tf.constant(image(rows, columns)))
        wanted = (np.stack(moved) - image(rows, columns)) / h
        assert relative_error(found[inner], wanted[inner]) < 0.02, name


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), "much", None, True and [1.0]])
def test_a_strength_is_a_finite_number(bad):
    with pytest.raises(ConfigurationError, match="`strength` must be a finite number"):
        R.JacobianNorm(bad)


def test_arguments_are_checked():
    cases = {
        "`num_projections` must be a whole number": lambda: R.JacobianNorm(1.0, 0),
        '"exact"': lambda: R.JacobianNorm(1.0, "all"),
        "`features` must be a dict": lambda: R.JacobianNorm(1.0, features="age"),
        "at least 0": lambda: R.JacobianNorm(1.0, features={"age": -1.0}),
        "`num_iterations` must be": lambda: R.SpectralJacobian(1.0, num_iterations=0),
        "`bound` must be a finite number above 0": lambda: R.Lipschitz(1.0, bound=0),
        "`directions` must be an array": lambda: R.Directional(1.0, "up"),
        "`directions` must hold finite": lambda: R.Directional(1.0, [np.nan]),
        "`target` must be": lambda: R.GradientPenalty(1.0, target=-1),
        "`epsilon` must be": lambda: R.LocalLinearity(1.0, epsilon=0),
        "`step` must be": lambda: R.Curvature(1.0, step=-1),
        "`sign` must be 1 or -1": lambda: R.Monotonic(1.0, 0, sign=2),
        "a feature must be a name": lambda: R.Monotonic(1.0, 0.5),
        "`model` must be a Keras model": lambda: regularize(L.Dense(1), R.JacobianNorm(1.0)),
        "`regularizer` must be one of": lambda: regularize(net(), keras.regularizers.L2()),
        "does not see: use `keras_fwd.regularize": lambda: SensitivityPenalty(
            L.Dense(1), R.InputGradient(1.0)
        ),
        "`seed` must be a whole number of at least 0 and at most 4294967295": lambda: regularize(
            net(), R.JacobianNorm(1.0), seed=2**32
        ),
        "not on weights": lambda: R.JacobianNorm(1.0)(tf.ones([2, 2])),
    }
    for message, call in cases.items():
        with pytest.raises(ConfigurationError) as raised:
            call()
        assert message in str(raised.value)


def first_step(model, regularizer, x=None, y=None):
    model = regularize(model, regularizer)
    model.compile("adam", "mse")
    before = model.get_weights()
    given, wanted = data()
    try:
        model.fit(given if x is None else x, wanted if y is None else y, verbose=0)
    finally:
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_does_not_fit_the_model_is_refused_before_training():
    with pytest.raises(ConfigurationError, match="'age'; the model has 'x'"):
        first_step(net(), R.JacobianNorm(0.1, features={"age": 1.0}))
    with pytest.raises(ConfigurationError, match="Received: 7"):
        first_step(net(), R.Monotonic(0.1, 7))
    with pytest.raises(StructureError, match="`directions` must have the shape of one example"):
        first_step(net(), R.Directional(0.1, np.ones(4)))
    with pytest.raises(StructureError, match="needs one input of images"):
        first_step(net(), R.Directional(0.1, "rotation"))
    with pytest.raises(StructureError, match="`features` must have the shape"):
        first_step(net(), R.JacobianNorm(0.1, features=[1.0, 2.0]))
    with pytest.raises(StructureError, match="must have one output for each example"):
        first_step(net(outputs=2), R.GradientPenalty(0.1), y=np.ones([16, 2]))


def test_a_penalty_on_the_loss_is_the_outermost():
    part = regularize(net(), R.InputGradient(0.1))
    model = keras.Sequential([keras.Input([3]), part])
    model.compile("adam", "mse")
    with pytest.raises(ConfigurationError, match="must be the outermost one"):
        model.fit(*data(), verbose=0)
    model.evaluate(*data(), verbose=0)  # which has no penalty to lose


@pytest.mark.slow
def test_large_seeds_draw_different_numbers():
    values = set()
    for seed in (0, 2**11, 2**32 - 2**12, 2**32 - 1):
        keras.utils.set_random_seed(1)  # of the weights
        model = regularize(net(2, mixes=False), R.JacobianNorm(1.0), seed=seed)
        model.compile("adam", "mse")
        values.add(model.fit(data()[0], np.ones([16, 2]), verbose=0).history["jacobian_norm"][0])
    assert len(values) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SpectralJacobian", "Lipschitz"])
def test_a_second_derivative_at_fixed_vectors_is_refused(name, float64):
    layer, x = L.Dense(2, "tanh"), tf.constant(data()[0])
    layer.build(x.shape)
    penalty, kernel = PENALTIES[name](), layer.kernel.value

    def second():
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                value = penalty(layer, x)
            first = inner.gradient(value, kernel)
        return first, outer.gradient(first, kernel)

    for function in (second, tf.function(second)):
        with pytest.raises(LeakError, match="has a first derivative only"):
            function()


def test_a_model_of_token_numbers_is_told_where_to_begin():
    model = keras.Sequential(
        [keras.Input([4], dtype="int32"), L.Embedding(9, 2, name="words"), L.Flatten(), L.Dense(1)]
    )
    with pytest.raises(StructureError, match="the output of 'words' instead"):
        first_step(model, R.JacobianNorm(0.1), np.ones([16, 4], "int32"))


def test_a_leak_is_refused_before_training():
    leak = L.Lambda(lambda x: x + tf.ensure_shape(tf.numpy_function(np.sin, [x], x.dtype), x.shape))
    model = keras.Sequential([keras.Input([3]), L.Dense(4), leak, L.Dense(1)])
    with pytest.raises(LeakError, match="PyFunc"):
        first_step(model, R.JacobianNorm(0.1))


def test_a_step_of_ones_own_is_not_passed_over():
    class Own(keras.Model):
        def train_step(self, data):
            return {}

    x = keras.Input([3])
    with pytest.raises(ConfigurationError, match="must not override `train_step`"):
        regularize(Own(x, L.Dense(1)(x)), R.JacobianNorm(0.1))


def test_the_step_is_traced_once():
    calls = []
    model = net()
    model.add(L.Lambda(lambda x: calls.append(1) or x))
    model = regularize(model, R.JacobianNorm(0.1))
    model.compile("adam", "mse", jit_compile=False)
    x, y = data()
    model.fit(x, y, batch_size=8, epochs=1, verbose=0)
    count = len(calls)
    model.fit(x, y, batch_size=8, epochs=3, verbose=0)
    assert len(calls) == count


@keras.saving.register_keras_serializable("tests")
class Shear(R.SensitivityRegularizer):
    """A penalty of a user's own: the squares of the pushforwards of `(1, −1)`."""

    def penalty(self, batch):
        moved = batch.jacobian(tf.constant([[1.0, -1.0]]) * tf.ones_like(batch.inputs))
        return tf.reduce_mean(tf.reduce_sum(moved**2, axis=-1))

    def get_config(self):
        return {"strength": self.strength, "name": self.name}


@pytest.mark.slow
def test_a_penalty_of_ones_own_trains_and_is_saved(tmp_path):
    x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    model = keras.Sequential([keras.Input([2]), L.Dense(1)])
    model = regularize(model, Shear(100.0, "shear"))
    model.compile(keras.optimizers.SGD(2e-3), "mse")
    history = model.fit(x, x[:, :1] - x[:, 1:], epochs=50, batch_size=64, verbose=0).history
    assert history["shear"][-1] < 1e-2 * max(history["shear"][0], 1e-2)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), model(x))
