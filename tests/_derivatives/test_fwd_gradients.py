"""`fwd_gradients`, and what `assert_unused` finds."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import (
    CASES,
    MODES,
    float64,  # noqa: F401 - a fixture
    random,
    relative_error,
)

from keras_fwd import (
    ConfigurationError,
    LeakError,
    StructureError,
    fwd_gradients,
    linearize,
)

pytestmark = pytest.mark.usefixtures("float64")


def test_fwd_gradients_equal_the_linear_map():
    fn, _ = CASES[0].function()
    x, u = CASES[0].inputs(), random([3, 3], 2)

    @tf.function
    def pushed(x, u):
        return fwd_gradients(fn(x), x, u, assert_unused=True)

    assert relative_error(pushed(x, u), linearize(fn, x)[1](u)) < 1e-14


def test_fwd_gradients_sum_over_xs_and_keep_the_structure_of_ys():
    @tf.function
    def pushed(a, b, da, db):
        ys = {"product": a * b, "sines": [tf.sin(a), tf.cos(b)]}
        return fwd_gradients(ys, [a, b], [da, db])

    a, b, da, db = (random([3], seed) for seed in range(4))
    result = pushed(a, b, da, db)
    expected = {"product": da * b + a * db, "sines": [tf.cos(a) * da, -tf.sin(b) * db]}
    tf.nest.assert_same_structure(result, expected)
    assert relative_error(result, expected) < 1e-14


def test_fwd_gradients_without_tangents_use_ones():
    x = random([3])
    assert relative_error(tf.function(lambda x: fwd_gradients(x**2, x))(x), 2 * x) < 1e-15


def test_fwd_gradients_take_numpy_tangents():
    x = random([3])
    pushed = tf.function(lambda x: fwd_gradients(x**2, x, np.ones(3)))(x)
    assert relative_error(pushed, 2 * x) < 1e-15


def test_fwd_gradients_by_variables():
    a = tf.Variable(random([2]))
    b = keras.Variable(random([2], 1))
    x = random([2], 2)
    pushed = tf.function(lambda x: fwd_gradients(x * a * b, [a, b]))(x)
    assert relative_error(pushed, x * (a + b.value)) < 1e-15


def test_fwd_gradients_of_unconnected_ys_are_zeros():
    @tf.function
    def pushed(x):
        return (
            fwd_gradients(tf.ones([2]), x),
            fwd_gradients([x**2, tf.ones([2])], x),
            fwd_gradients(x**2, [x, tf.ones([4])]),
        )

    x = random([3])
    alone, (connected, beside), (pushed_x) = pushed(x)
    assert alone.numpy().tolist() == beside.numpy().tolist() == [0, 0]
    assert relative_error([connected, pushed_x], [2 * x, 2 * x]) < 1e-15


def test_fwd_gradients_of_fwd_gradients():
    @tf.function
    def second(x):
        return fwd_gradients(fwd_gradients(tf.sin(x) * x, x), x)

    x = random([3])
    assert relative_error(second(x), 2 * np.cos(x) - x * np.sin(x)) < 1e-14


def test_fwd_gradients_in_a_batch_of_unknown_size():
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float64)] * 2)
    def pushed(x, u):
        return fwd_gradients(tf.sin(x), x, u)

    x, u = random([5]), random([5], 1)
    assert relative_error(pushed(x, u), np.cos(x) * u) < 1e-15


def test_fwd_gradients_in_eager_code_are_refused():
    with pytest.raises(
        ConfigurationError, match=r"fwd_gradients: symbolic tensors exist only.*jvp"
    ):
        fwd_gradients(tf.ones([2]), tf.ones([2]))


def test_fwd_gradients_name_a_tangent_that_does_not_fit():
    with pytest.raises(StructureError, match=r"`grad_xs\[1\]` must have.*float64\[3\].*\[2\]"):
        tf.function(lambda a, b: fwd_gradients(a, [a, b], [a, a]))(random([2]), random([3]))


def test_fwd_gradients_by_integers_are_refused():
    with pytest.raises(StructureError, match="`xs` must be floating-point"):
        tf.function(lambda n: fwd_gradients(n, n))(tf.constant([1, 2]))


def cubed(rule):
    """x³ with a backward rule in which `rule(dy)` stands for the cotangent."""

    @tf.custom_gradient
    def function(x):
        return x**3, lambda dy: rule(dy) * 3 * x**2

    return function


NOT_LINEAR = [
    pytest.param(lambda dy: tf.clip_by_value(dy, -1.0, 1.0), "clip_by_value", id="clip_by_value"),
    pytest.param(lambda dy: tf.clip_by_norm(dy, 1.0), "clip_by_norm", id="clip_by_norm"),
    pytest.param(lambda dy: dy / tf.norm(dy), "dependent", id="normalized"),
    pytest.param(lambda dy: dy * tf.abs(dy), "dependent", id="times_its_absolute_value"),
    pytest.param(lambda dy: dy**2, "op Pow", id="square"),
    pytest.param(tf.stop_gradient, "op StopGradient", id="stop_gradient"),
]


@pytest.mark.parametrize(("rule", "name"), NOT_LINEAR)
def test_assert_unused_names_a_rule_that_is_not_linear_in_its_cotangent(rule, name):
    @tf.function
    def pushed(x):
        return fwd_gradients(cubed(rule)(x) + x, x, assert_unused=True)

    with pytest.raises(LeakError, match=f"Received: .*{name}"):
        pushed(random([3], dtype="float32"))


def test_without_assert_unused_a_clipping_rule_is_right_at_the_zero_dummy():
    @tf.function
    def pushed(x):
        return fwd_gradients(cubed(lambda dy: tf.clip_by_value(dy, -1.0, 1.0))(x), x)

    x = random([3], dtype="float32")
    assert relative_error(pushed(x), 3 * x**2) < 1e-5


layers = keras.layers
ACTIVATIONS = "softmax gelu swish elu selu relu relu6 tanh sigmoid softplus mish".split()
CLEAN = [
    ("dense", lambda: layers.Dense(3), [2, 4]),
    ("conv", lambda: layers.Conv2D(2, 3, padding="same"), [1, 4, 4, 2]),
    ("depthwise", lambda: layers.DepthwiseConv2D(2), [1, 4, 4, 2]),
    ("transposed_conv", lambda: layers.Conv2DTranspose(2, 3), [1, 3, 3, 1]),
    ("lstm", lambda: layers.LSTM(2), [1, 3, 2]),
    ("gru", lambda: layers.GRU(2, return_sequences=True), [1, 3, 2]),
    ("layer_normalization", lambda: layers.LayerNormalization(), [2, 4]),
    ("group_normalization", lambda: layers.GroupNormalization(2), [2, 4]),
    ("batch_normalization", lambda: layers.BatchNormalization(), [3, 4]),
    ("dropout", lambda: layers.Dropout(0.5), [2, 4]),
    ("gaussian_noise", lambda: layers.GaussianNoise(0.5), [2, 4]),
    ("max_pooling", lambda: layers.MaxPooling2D(2), [1, 4, 4, 1]),
    ("average_pooling", lambda: layers.AveragePooling2D(2), [1, 4, 4, 1]),
    ("global_max_pooling", lambda: layers.GlobalMaxPooling2D(), [1, 4, 4, 1]),
    ("global_average_pooling", lambda: layers.GlobalAveragePooling2D(), [1, 4, 4, 1]),
    ("prelu", lambda: layers.PReLU(), [2, 4]),
    *((name, lambda name=name: layers.Activation(name), [2, 4]) for name in ACTIVATIONS),
]
TRAINING = {"batch_normalization", "dropout", "gaussian_noise"}  # differ in training


def no_false_alarm(fn, x, variables=None):
    @MODES["graph"]
    def pushed(x):
        y = fn(x)
        return fwd_gradients(y, [x] if variables is None else variables, assert_unused=True)

    assert np.isfinite(pushed(x)).all()


@pytest.mark.parametrize(
    ("build", "shape", "training"),
    [
        pytest.param(build, shape, training, id=f"{name}-training" if training else name)
        for name, build, shape in CLEAN
        for training in ([False, True] if name in TRAINING else [False])
    ],
)
def test_assert_unused_has_no_false_alarm(build, shape, training):
    layer, x = build(), random(shape)
    no_false_alarm(lambda x: layer(x, training=training), x)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_assert_unused_has_no_false_alarm_by_weights(case):
    fn, variables = case.function()
    no_false_alarm(fn, case.inputs(), variables)


def test_assert_unused_has_no_false_alarm_at_an_embedding():
    layer = layers.Embedding(4, 2)
    tokens = tf.constant([[1, 3]])
    layer(tokens)
    no_false_alarm(layer, tokens, layer.trainable_variables)
