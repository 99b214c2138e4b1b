"""Which leaks are found in a model, how they read, and models without them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import relative_error

import keras_fwd
from keras_fwd import ConfigurationError, LeakError, StructureError, find_leaks, jvp, seal_leaks
from keras_fwd._graphs import registry

L = keras.layers


def net(*stack, shape=(6, 6, 4)):
    return keras.Sequential([keras.Input(shape), *stack])


CLEAN = {
    "conv": lambda: net(L.Conv2D(3, 3, activation="relu"), L.MaxPooling2D(), L.Flatten()),
    "dense": lambda: net(L.Dense(3, "gelu"), L.Dense(2, "softmax"), L.Dense(2, "swish")),
    "lstm": lambda: net(L.Embedding(5, 3), L.LSTM(2), shape=(4,)),
    "batch norm, inference": lambda: net(L.BatchNormalization(), L.Dropout(0.5)),
}


@pytest.mark.parametrize("name", CLEAN)
def test_clean_models_have_none(name):
    report = find_leaks(CLEAN[name]())
    assert not report and len(report) == 0 and str(report) == "no leaks"


FOUND = {
    "softsign": (lambda: net(L.Dense(3, "softsign", name="here")), "missing", 1),
    "bilinear": (lambda: net(L.UpSampling2D(interpolation="bilinear", name="here")), "severed", 1),
    "bicubic": (lambda: net(L.UpSampling2D(interpolation="bicubic", name="here")), "missing", 1),
    "layer norm": (lambda: net(L.LayerNormalization(name="here")), "second-order", 2),
    "group norm": (lambda: net(L.GroupNormalization(2, name="here")), "second-order", 2),
    "in a loop": (
        lambda: net(L.SimpleRNN(2, activation="softsign", name="here"), shape=(3, 2)),
        "missing",
        1,
    ),
    "in a nested model": (
        lambda: net(
            keras.Sequential([keras.Input([4]), L.LayerNormalization(name="here")]), shape=[4]
        ),
        "second-order",
        2,
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_leaks_of_stock_layers_are_found_and_sealed(name):
    build, kind, order = FOUND[name]
    rows = list(find_leaks(build()))
    assert [(row.kind, row.order, row.sealed) for row in rows] == [(kind, order, True)]
    assert "/here" in rows[0].layer
    assert "seal_leaks" in rows[0].advice


def test_batch_normalization_leaks_in_training():
    model = net(L.BatchNormalization(name="here"))
    before = model.get_weights()
    (row,) = find_leaks(model, training=True)
    assert row.kind == "second-order"
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_several_leaks_are_all_listed():
    model = net(
        L.LayerNormalization(),
        L.UpSampling2D(interpolation="lanczos3"),
        L.UpSampling2D(interpolation="bilinear"),
        L.Activation("softsign"),
    )
    report = find_leaks(model)
    assert sorted(row.kind for row in report) == ["missing", "missing", "second-order", "severed"]
    frame = report.to_frame()
    assert list(frame["op"]) == [row.op for row in report] and len(frame) == 4
    assert "UpSampling" not in str(report) and "up_sampling2d" in str(report)


def ruled(rule, forward=lambda x: 1.0 * x):
    @tf.custom_gradient
    def function(x):
        return forward(x), lambda dy: rule(x, dy)

    return lambda x: function(x) * x + x


RULES = {
    "reversal": (ruled(lambda x, dy: -dy), "custom rule", "-1 times"),
    "straight-through": (ruled(lambda x, dy: dy, tf.round), "custom rule", "straight-through"),
    "clipping": (ruled(lambda x, dy: tf.clip_by_value(dy, -1.0, 1.0)), "dependent", "clipnorm"),
    "normalized": (ruled(lambda x, dy: dy / tf.norm(dy)), "dependent", "not linear"),
    "ignored": (ruled(lambda x, dy: tf.ones_like(x)), "dependent", "not linear"),
}


@pytest.mark.parametrize("name", RULES)
def test_declared_rules_that_are_no_derivatives(name):
    fn, kind, words = RULES[name]
    (row,) = find_leaks(fn, tf.constant([0.3, -1.2, 2.0]))
    assert row.kind == kind and words in row.advice and not row.sealed


def test_a_declared_rule_that_is_the_derivative_is_none():
    fn = ruled(lambda x, dy: 2 * x * dy, tf.square)
    assert not find_leaks(fn, tf.constant([0.3, -1.2, 2.0]))


def everything(x):
    y = keras.ops.hypot(x, 2 * x) + tf.recompute_grad(tf.sin)(x)
    return y + tf.math.cumulative_logsumexp(x) + tf.numpy_function(np.sin, [x], x.dtype)


def test_leaks_of_a_function():
    rows = {row.op: row for row in find_leaks(everything, tf.constant([1.0, 2.0]))}
    kinds = {op: (row.kind, row.order, row.sealed) for op, row in rows.items()}
    assert kinds == {
        "hypot": ("second-order", 2, True),
        "recompute_grad": ("missing", 1, True),
        "CumulativeLogsumexp": ("poisoned", 1, True),
        "PyFunc": ("severed", 1, False),
    }


def test_verification_shows_what_the_plain_trick_gives():
    fn, _, _ = RULES["clipping"]
    report = find_leaks(fn, tf.constant([0.3, -1.2, 2.0]), verify=True)
    assert "LeakError" in report.verification["keras_fwd"]
    good = find_leaks(net(L.LayerNormalization()), verify=True)
    assert good.verification["keras_fwd"] < 1e-2
    assert "relative difference" in str(good)
    cumulative = find_leaks(tf.math.cumulative_logsumexp, tf.constant([1.0, 2.0]), verify=True)
    assert not cumulative.verification["plain trick, dummy zeros"] < 1e-2
    assert cumulative.verification["keras_fwd"] < 1e-2


def test_costs_are_measured_for_each_layer():
    report = find_leaks(net(L.Conv2D(3, 3, name="conv"), L.ReLU(name="relu")), measure_cost=True)
    assert {path.rpartition("/")[2] for path in report.costs} == {"conv", "relu"}
    assert all(cost > 0 for cost in report.costs.values())


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = L.LayerNormalization(name="here")

    def call(self, inputs):
        return self.norm(inputs["a"])

    def get_config(self):
        return super().get_config()


def test_bad_input_is_told():
    with pytest.raises(ConfigurationError, match="`inputs` is needed"):
        find_leaks(tf.sin)
    with pytest.raises(ConfigurationError, match="must be built"):
        find_leaks(keras.Sequential([L.Dense(2)]), tf.ones([1, 2]))
    with pytest.raises(StructureError, match=r"must be what 'sequential.*Received: float32"):
        find_leaks(net(L.Dense(2), shape=[3]), tf.ones([1, 5]))
    with pytest.raises(ConfigurationError, match="must be a Keras model"):
        seal_leaks(tf.sin)
    with pytest.raises(ConfigurationError, match="must be built"):
        seal_leaks(Subclassed())


# --- models without leaks -------------------------------------------------------------------------

SEALED = {
    "layer norm": (lambda: net(L.Dense(4, "tanh"), L.LayerNormalization(), shape=[4]), False),
    "group norm": (lambda: net(L.Dense(4, "tanh"), L.GroupNormalization(1), shape=[4]), False),
    "batch norm": (lambda: net(L.Dense(4, "tanh"), L.BatchNormalization(), shape=[4]), True),
    "nested": (
        lambda: net(net(L.Dense(4, "tanh"), L.LayerNormalization(), shape=[4]), shape=[4]),
        False,
    ),
    "softsign": (lambda: net(L.Dense(4, "softsign"), shape=[4]), False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SEALED)
def test_sealed_models_are_right_under_plain_tapes(name, float64, tmp_path):
    build, training = SEALED[name]
    model = build()
    rng = np.random.default_rng(0)
    x, u = (tf.constant(rng.normal(size=[5, 4])) for _ in range(2))
    sealed = seal_leaks(model)
    assert all(a is b for a, b in zip(sealed.weights, model.weights, strict=True))
    assert [layer.name for layer in sealed.layers] == [layer.name for layer in model.layers]
    np.testing.assert_array_equal(sealed(x), model(x))
    np.testing.assert_array_equal(jvp(sealed, x, u)[1], jvp(model, x, u)[1])
    assert not [row for row in find_leaks(sealed) if row.op not in registry.added]

    def energy(x):
        return tf.reduce_sum(sealed(x, training=training) ** 3)

    def along(function):
        def slope(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = function(x)
            return tf.reduce_sum(tape.gradient(value, x) * u)

        return slope

    function, step = energy, 1e-5
    for _ in range(3):
        derivative = along(function)
        run = tf.function(function, autograph=False)
        expected = (run(x + step * u) - run(x - step * u)) / (2 * step)
        found = tf.function(derivative, autograph=False)(x)
        assert relative_error(found, expected) < 1e-5
        function = derivative
    sealed.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), sealed(x))


@pytest.mark.slow
def test_layers_of_one_kind_are_told_apart_and_all_sealed():
    # TensorFlow's scope for the ops of the first is the name of the second.
    names = ["layer_normalization", "layer_normalization_1", "layer_normalization_2"]
    stack = [layer for name in names for layer in (L.LayerNormalization(name=name), L.Dense(4))]
    inside = keras.Sequential([L.LayerNormalization(name=names[0])], name="inside")
    model = keras.Sequential([keras.Input([4]), *stack, inside], name="net")
    paths = [f"net/{name}" for name in names] + [f"net/inside/{names[0]}"]
    assert [row.layer for row in find_leaks(model)] == paths
    sealed = seal_leaks(model)
    assert [type(layer).__name__ for layer in sealed.layers] == [*["Sealed", "Dense"] * 3, "Sealed"]
    assert not find_leaks(sealed)


def test_a_sealed_model_trains_and_updates_its_statistics():
    model = net(L.Dense(4), L.BatchNormalization(), L.Dense(1), shape=[4])
    sealed = seal_leaks(model)
    before = model.get_weights()
    sealed.compile(optimizer="sgd", loss="mse")
    sealed.fit(np.random.default_rng(0).normal(size=[8, 4]), np.ones([8, 1]), verbose=0)
    assert all(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_subclassed_model_is_sealed_whole():
    model, x = Subclassed(), {"a": tf.constant([[1.0, 2.0, 4.0]])}
    model(x)
    sealed = seal_leaks(model, x)
    np.testing.assert_array_equal(sealed(x), model(x))
    assert sealed.weights[0] is model.weights[0]
    assert not find_leaks(sealed, x)


def test_what_has_no_rule_is_refused():
    class Odd(L.Layer):
        def call(self, x):
            return tf.ensure_shape(tf.numpy_function(np.sin, [x], x.dtype), x.shape) + x

    model = keras.Sequential([keras.Input([3], batch_size=2), Odd(name="odd")])
    with pytest.raises(LeakError, match=r"no rule for the op PyFunc \(severed\) in 'seq.*/odd"):
        seal_leaks(model)


def test_a_layer_alone_is_sealed(float64):
    x, u = (tf.constant(np.random.default_rng(k).normal(size=(2, 4))) for k in (0, 1))
    layer = L.LayerNormalization()
    sealed = keras_fwd.layers.Sealed(layer)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = sealed(x) ** 3
        slope = tf.reduce_sum(inner.gradient(y, x) * u)
    ahead, middle, behind = (tf.reduce_sum(layer(x + h * u) ** 3) for h in (1e-4, 0.0, -1e-4))
    found = tf.reduce_sum(outer.gradient(slope, x) * u)  # the second derivative along u
    np.testing.assert_allclose(found, (ahead - 2 * middle + behind) / 1e-8, rtol=1e-5)


def test_a_report_is_a_sequence_of_leaks():
    report = find_leaks(net(L.Dense(3, "softsign"), shape=(2,)))
    assert isinstance(report, keras_fwd.LeakReport)
    assert [row.kind for row in report] == [report[i].kind for i in range(len(report))]
