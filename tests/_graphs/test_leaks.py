"""Exact or loud: where the double-gradient trick would fail, the op is named; nowhere else."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import (
    MODES,
    central_difference,
    random,
    relative_error,
)

from keras_fwd import LeakError, hessian, jacobian, jvp, linearize, vjp
from keras_fwd._rules import sealing

pytestmark = pytest.mark.usefixtures("float32")

modes = pytest.mark.parametrize("mode", ["eager", "graph"])


def cubed(rule):
    """x³ with a backward rule in which `rule(dy)` stands for the cotangent."""

    @tf.custom_gradient
    def function(x):
        return x**3, lambda dy: rule(dy) * 3 * x**2

    return function


def shaped(fn):
    """A function of NumPy arrays that keeps their shape, as a TensorFlow op."""

    def function(x):
        return tf.ensure_shape(tf.numpy_function(fn, [x], x.dtype), x.shape)

    return function


def resize(method, size=9, **options):
    return lambda x: tf.image.resize(x, [size, size], method, **options)


def table(rows, *marks):
    return [pytest.param(*row[1:], id=row[0], marks=marks) for row in rows]


VECTOR, IMAGE, COLORS, MATRIX = [3], [1, 6, 6, 2], [1, 4, 4, 3], [3, 3]
QUANT = tf.quantization
KERNEL = tf.zeros([2, 2, 2])
ONES = [1, 1, 1, 1]
IDS = tf.sparse.from_dense(tf.constant([[1, 2], [3, 0]]))
STATE = tf.Variable(tf.zeros([3]))
ROWS, SEGMENTS = tf.constant([0, 1, 2]), tf.constant([0, 0, 1])


# Without the rules of this package: what the search of the graph finds on its own.
@pytest.fixture(autouse=True)
def unsealed():
    with sealing.unsealed():
        yield


# (id, function, shape of its argument, what the message says)
MISSING = [
    ("recompute_grad", tf.recompute_grad(tf.sin), VECTOR, ""),
    (
        "quantize_and_dequantize",
        lambda x: QUANT.quantize_and_dequantize_v2(x, -1.0, 1.0),
        VECTOR,
        "QuantizeAndDequantizeV4Grad",
    ),
    ("unique", lambda x: tf.unique(x)[0], VECTOR, "op Unique"),
    ("lu", lambda x: tf.linalg.lu(x)[0], MATRIX, "op Lu"),
]
SEVERED = [
    ("resize_bilinear", resize("bilinear"), IMAGE, "op ResizeBilinearGrad .* in 'resize'"),
    ("fake_quant", QUANT.fake_quant_with_min_max_args, VECTOR, "op FakeQuantWithMinMaxArgsGrad"),
    (
        "fake_quant_vars",
        lambda x: QUANT.fake_quant_with_min_max_vars(x, -1.0, 1.0),
        VECTOR,
        "op FakeQuantWithMinMaxVarsGrad",
    ),
    (
        "fake_quant_per_channel",
        lambda x: QUANT.fake_quant_with_min_max_vars_per_channel(x, -tf.ones([3]), tf.ones([3])),
        VECTOR,
        "op FakeQuantWithMinMaxVarsPerChannelGrad",
    ),
    ("numpy_function", shaped(np.sin), VECTOR, "op PyFunc"),
    (
        "py_function",
        lambda x: tf.ensure_shape(tf.py_function(tf.sin, [x], x.dtype), [3]),
        VECTOR,
        "op EagerPyFunc",
    ),
    ("polygamma_order", lambda x: tf.math.polygamma(x, x), VECTOR, "op Polygamma"),
    ("zeta_exponent", lambda x: tf.math.zeta(x, x), VECTOR, "op Zeta"),
    ("betainc_shape", lambda x: tf.math.betainc(x, x, x), VECTOR, "op Betainc"),
    ("hsv_to_rgb", tf.image.hsv_to_rgb, COLORS, "op HSVToRGB"),
    ("range", lambda x: tf.range(x[0], x[0] + 2.5), VECTOR, "op Range"),
    ("assigned_and_read", lambda x: STATE.assign(x**2) * 2, VECTOR, "op AssignVariableOp"),
    ("added_and_read", lambda x: STATE.assign_add(x**2) * 2, VECTOR, "op AssignAddVariableOp"),
]
POISONED = [
    ("cumulative_logsumexp", tf.math.cumulative_logsumexp, VECTOR, "in 'CumulativeLogsumexp'"),
    ("reduce_euclidean_norm", tf.math.reduce_euclidean_norm, VECTOR, "dependent"),
]
RULES = [
    ("clip_by_value", lambda dy: tf.clip_by_value(dy, -1.0, 1.0), "in 'clip_by_value'"),
    ("clip_by_norm", lambda dy: tf.clip_by_norm(dy, 1.0), "in 'clip_by_norm'"),
    ("normalized", lambda dy: dy / tf.norm(dy), "in 'truediv'"),
    ("times_its_absolute_value", lambda dy: dy * tf.abs(dy), "dependent.* in 'mul'"),
    ("stop_gradient", tf.stop_gradient, "op StopGradient"),
    ("sign", tf.sign, "op Sign"),
    ("rounded", tf.round, "op Round"),
    ("through_integers", lambda dy: tf.cast(tf.cast(dy, tf.int32), tf.float32), "op Cast"),
    ("relu", tf.nn.relu, "op Relu"),
    ("where", lambda dy: tf.where(dy > 0.5, dy, 2 * dy), "op Greater"),
]
DEPENDENT = [(name, cubed(rule), message) for name, rule, message in RULES]
LEAKS = table([*MISSING, *SEVERED, *POISONED, *((i, f, VECTOR, m) for i, f, m in DEPENDENT)])


def positive(shape):
    return tf.abs(random(shape, dtype="float32")) + 0.5


# --- loud -----------------------------------------------------------------------------------------


@modes
@pytest.mark.parametrize(("fn", "shape", "message"), LEAKS)
def test_jvp_names_the_op(fn, shape, message, mode):
    with pytest.raises(LeakError, match=f"^(.|\n)*jvp: .*Received: .*{message}"):
        MODES[mode](lambda x: jvp(fn, x, tf.ones_like(x)))(positive(shape))


def test_autograph_keeps_the_type_of_the_error():
    @tf.function
    def pushed(x):
        return jvp(inside, x, x)

    with pytest.raises(LeakError, match="op ResizeBilinearGrad"):
        pushed(random(IMAGE, dtype="float32"))


@pytest.mark.parametrize(("fn", "shape", "message"), LEAKS)
def test_a_skip_connection_does_not_hide_the_leak(fn, shape, message):
    # The branch of the skip connection alone would be a plausible number.
    def beside(x):
        return tf.reduce_sum(fn(x)) + tf.reduce_sum(x**2)

    with pytest.raises(LeakError, match=f"Received: .*{message}"):
        MODES["graph"](lambda x: jvp(beside, x, tf.ones_like(x)))(positive(shape))


@modes
@pytest.mark.parametrize(("fn", "shape", "message"), table(SEVERED))
def test_linearize_refuses_before_any_product(fn, shape, message, mode):
    with pytest.raises(LeakError, match=f"linearize: .*Received: .*{message}"):
        MODES[mode](lambda x: linearize(fn, x)[0])(positive(shape))


@modes
def test_leaks_by_weights_are_found(mode):
    table = tf.Variable(random([4, 3], dtype="float32"))

    def fn(rows):
        return QUANT.fake_quant_with_min_max_args(tf.gather(table, rows))

    def pushed(rows):
        return jvp(fn, rows, [tf.ones([4, 3])], wrt=[table])

    with pytest.raises(LeakError, match="op FakeQuantWithMinMaxArgsGrad"):
        MODES[mode](pushed)(ROWS)


def skip_model(**options):
    x = keras.Input([3, 3, 1])
    up = keras.layers.UpSampling2D(2, **options)(x)
    return keras.Model(x, keras.layers.Add()([keras.layers.Conv2DTranspose(1, 2, 2)(x), up]))


@modes
@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: keras.Sequential([m])], ids=["", "nested"])
def test_the_layer_is_named(wrap, mode):
    model = wrap(skip_model(interpolation="bilinear", name="up_sampling2d"))
    x = random([1, 3, 3, 1], dtype="float32")
    with pytest.raises(LeakError, match=r"op ResizeBilinearGrad \(severed\) in '.*up_sampling2d"):
        MODES[mode](lambda x: jvp(model, x, x))(x)


class Odd(keras.layers.Layer):
    def __init__(self, rule):
        super().__init__(name="odd")
        self.rule = rule

    def call(self, x):
        return cubed(self.rule)(x)


@modes
@pytest.mark.parametrize("rule", table([row[:2] for row in RULES]))
def test_the_layer_with_a_custom_rule_is_named(rule, mode):
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input([3]), layers.Dense(2, "tanh"), Odd(rule), layers.Dense(2, "softmax")]
    )
    x = random([2, 3], dtype="float32")
    with pytest.raises(LeakError, match=r"in the tf.custom_gradient of '.*/odd(_1)?'\."):
        MODES[mode](lambda x: jvp(model, x, x))(x)


@modes
def test_the_layer_inside_a_loop_is_named(mode):
    cell = keras.layers.SimpleRNNCell(2, activation=QUANT.fake_quant_with_min_max_args)
    model = keras.Sequential([keras.Input([3, 1]), keras.layers.RNN(cell, name="loop")])
    x = random([1, 3, 1], dtype="float32")
    with pytest.raises(LeakError, match=r"op FakeQuantWithMinMaxArgsGradient .* in '.*loop"):
        MODES[mode](lambda x: jvp(model, x, x))(x)


def loop(step):
    return lambda x: tf.while_loop(lambda i, y: i < 2, lambda i, y: (i + 1, step(y)), [0, x])[1]


def branch(step):
    return lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: step(x), lambda: x)


def inside(x):
    return x + tf.image.resize(tf.image.resize(x, [3, 3]), [6, 6])


NESTED = [
    ("while", loop, inside, IMAGE, "op ResizeBilinearGrad"),
    ("while_rule", loop, cubed(lambda dy: dy * tf.abs(dy)), VECTOR, "dependent"),
    ("while_stop", loop, cubed(tf.stop_gradient), VECTOR, "op StopGradient"),
    ("cond", branch, inside, IMAGE, "op ResizeBilinearGrad"),
    ("cond_rule", branch, cubed(lambda dy: dy * tf.abs(dy)), VECTOR, "dependent"),
    ("function", tf.function, inside, IMAGE, "op ResizeBilinearGrad"),
    ("jit", lambda f: tf.function(f, jit_compile=True), inside, IMAGE, "op ResizeBilinearGrad"),
    ("function_in_while", lambda f: loop(tf.function(f)), inside, IMAGE, "op ResizeBilinearGrad"),
    ("while_in_cond", lambda f: branch(loop(f)), inside, IMAGE, "op ResizeBilinearGrad"),
    ("hidden_in_function", tf.function, shaped(np.sin), VECTOR, "op PyFunc"),
    ("hidden_in_while", loop, lambda x: x + shaped(np.sin)(x), VECTOR, "op PyFunc"),
    ("map_fn", lambda f: lambda x: tf.map_fn(f, x), shaped(np.sin), VECTOR, "op PyFunc"),
]


@modes
@pytest.mark.parametrize(("nest", "step", "shape", "message"), table(NESTED))
def test_leaks_in_nested_bodies_are_found(nest, step, shape, message, mode):
    with pytest.raises(LeakError, match=f"Received: .*{message}"):
        MODES[mode](lambda x: jvp(nest(step), x, tf.ones_like(x)))(positive(shape))


@modes
def test_leak_before_a_loop_that_holds_the_products_is_found(mode):
    def power(x):
        _, J = linearize(cubed(lambda dy: dy * tf.abs(dy)), x)
        return tf.while_loop(lambda i, u: i < 2, lambda i, u: (i + 1, J(u)), [0, x])[1]

    with pytest.raises(LeakError, match=r"not linear in its cotangent. Received: op"):
        MODES[mode](power)(random(VECTOR, dtype="float32"))


@modes
def test_a_value_that_passes_through_a_function_with_a_variable_is_found(mode):
    @tf.function
    def fn(x):
        STATE.assign(x**2)
        return STATE + x

    with pytest.raises(LeakError, match="op AssignVariableOp"):
        MODES[mode](lambda x: jvp(fn, x, x))(random(VECTOR, dtype="float32"))


@modes
def test_a_layer_that_assigns_its_own_weights_is_named(mode):
    layer = keras.layers.SpectralNormalization(keras.layers.Dense(2), name="spectral")
    x = random([2, 3], dtype="float32")
    layer(x)
    weights = layer.trainable_variables

    def training(x):
        return layer(x, training=True)

    def pushed(x):
        return jvp(training, x, [tf.ones(v.shape) for v in weights], wrt=weights)

    with pytest.raises(LeakError, match=r"op AssignVariableOp \(hidden\) in 'spectral"):
        MODES[mode](pushed)(x)


VARIANCES = [
    ("layer_normalization", keras.layers.LayerNormalization),
    ("group_normalization", lambda: keras.layers.GroupNormalization(2)),
    ("batch_normalization", keras.layers.BatchNormalization),
]
DERIVATIVES_OF_DERIVATIVES = {
    "hessian": lambda fn, x: hessian(lambda x: tf.reduce_sum(fn(x) ** 3), x)(x),
    "jvp_of_jvp": lambda fn, x: jvp(lambda y: jvp(fn, y, x)[1], x, x)[1],
    "jacobian_of_vjp": lambda fn, x: jacobian(lambda y: vjp(fn, y, x)[1], x),
}


@modes
@pytest.mark.parametrize("derivative", DERIVATIVES_OF_DERIVATIVES)
@pytest.mark.parametrize("build", table(VARIANCES))
def test_second_derivatives_through_a_variance_are_refused(build, derivative, mode):
    # TensorFlow takes the mean inside a variance for a constant: wrong by up to a factor of 20.
    layer = build()

    def training(x):
        return layer(x, training=True)

    with pytest.raises(LeakError, match=r"op StopGradient \(frozen\) in '.*normalization.*moments"):
        MODES[mode](lambda x: DERIVATIVES_OF_DERIVATIVES[derivative](training, x))(random([3, 4]))


@modes
@pytest.mark.parametrize("build", [keras.layers.RMSNormalization, keras.layers.UnitNormalization])
def test_second_derivatives_through_other_normalizations_are_exact(build, mode):
    layer, x, u = build(dtype="float64"), random([3, 4]), random([3, 4], 1)
    layer(x)

    def first(x):
        return jvp(layer, x, u)[1]

    _, second = MODES[mode](lambda x: jvp(first, x, u))(x)
    assert relative_error(second, central_difference(first, x, u)) < 1e-7


@modes
def test_first_derivatives_through_a_variance_beside_a_nested_call_are_exact(mode):
    layer = keras.layers.LayerNormalization(dtype="float64")
    x, u = random([3, 4]), random([3, 4], 1)

    def fn(x):
        return layer(jvp(tf.sin, x, u)[1])

    _, pushed = MODES[mode](lambda x: jvp(fn, x, u))(x)
    assert relative_error(pushed, central_difference(fn, x, u)) < 1e-7


@modes
def test_hessian_through_a_bilinear_resize_raises(mode):
    model = skip_model(interpolation="bilinear")

    def product(x):
        return hessian(lambda x: tf.reduce_sum(model(x) ** 2), x)(x)

    with pytest.raises(LeakError, match=r"hessian: .*Received: op ResizeBilinearGrad"):
        MODES[mode](product)(random([1, 3, 3, 1], dtype="float32"))


@modes
@pytest.mark.parametrize(
    "derivative",
    [
        lambda fn, x: jacobian(fn, x),
        lambda fn, x: jacobian(fn, x, mode="reverse"),
        lambda fn, x: linearize(fn, x)[1].to_dense(),
    ],
    ids=["jacobian", "jacobian by rows", "to_dense"],
)
def test_no_derivative_gets_past_a_leak(derivative, mode):
    with pytest.raises(LeakError, match="op ResizeBilinearGrad"):
        MODES[mode](lambda x: derivative(inside, x))(random(IMAGE, dtype="float32"))


@modes
@pytest.mark.parametrize(
    ("fn", "shape", "message"), table([row for row in SEVERED if row[3].split()[1] != "Fake"][-5:])
)
def test_vjp_refuses_what_hides_a_first_derivative(fn, shape, message, mode):
    def beside(x):
        return tf.reduce_sum(fn(x)) + tf.reduce_sum(x**2)

    with pytest.raises(LeakError, match=f"vjp: .*Received: .*{message}"):
        MODES[mode](lambda x: vjp(beside, x, tf.ones([])))(positive(shape))


@modes
def test_vjp_passes_where_only_the_second_pass_leaks(mode):
    x, w = random(IMAGE, dtype="float32"), random(IMAGE, 1, "float32")
    _, pulled = MODES[mode](lambda x, w: vjp(inside, x, w))(x, w)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = inside(x)
    assert relative_error(pulled, tape.gradient(y, x, w)) < 1e-6


def test_a_second_call_raises_again():
    for _ in range(2):
        with pytest.raises(LeakError):
            jvp(inside, random(IMAGE, dtype="float32"), random(IMAGE, dtype="float32"))


# --- exact, and not a word ------------------------------------------------------------------------


def sin_by_numpy():
    @tf.custom_gradient
    def function(x):
        return shaped(np.sin)(x), lambda dy: dy * tf.cos(x)

    return function


def of_positive(fn):
    return lambda x: fn(tf.abs(x) + 0.5)


LEVELS = tf.constant([0.0, 1.0], tf.float64)
TOKENS = tf.constant([[1, 2]])
CLEAN = [
    ("sort", lambda x: tf.sort(x) ** 2, VECTOR),
    ("top_k", lambda x: tf.math.top_k(x, 2)[0] ** 2, VECTOR),
    ("argmax_gather", lambda x: tf.gather(x, tf.argmax(x)) ** 2, VECTOR),
    ("boolean_mask", lambda x: tf.boolean_mask(x, x > 0) ** 2, VECTOR),
    ("searchsorted", lambda x: x * tf.cast(tf.searchsorted(LEVELS, x), x.dtype), VECTOR),
    ("one_hot", lambda x: x * tf.one_hot(tf.argmax(x), 3, dtype=x.dtype), VECTOR),
    ("round", lambda x: tf.round(x) * x, VECTOR),
    ("floor", lambda x: x - tf.floor(x), VECTOR),
    ("through_integers", lambda x: x * tf.cast(tf.cast(9 * x, tf.int32), x.dtype), VECTOR),
    ("sign", lambda x: tf.sign(x) * x**2, VECTOR),
    ("clip", lambda x: tf.clip_by_value(x, -0.2, 0.2) * x, VECTOR),
    ("where", lambda x: tf.where(x > 0, x**2, -x), VECTOR),
    ("maximum", lambda x: tf.maximum(x, x**2), VECTOR),
    ("norm", lambda x: tf.norm(x) * x, VECTOR),
    ("logsumexp", lambda x: tf.reduce_logsumexp(x), VECTOR),
    ("cumsum", lambda x: tf.cumsum(x) ** 2, VECTOR),
    ("cumprod", lambda x: tf.math.cumprod(x), VECTOR),
    ("reduce_prod", lambda x: tf.reduce_prod(x), VECTOR),
    ("segment_sum", lambda x: tf.math.segment_sum(x**2, SEGMENTS), VECTOR),
    ("scatter", lambda x: tf.tensor_scatter_nd_update(x, [[0]], x[1:2] ** 2), VECTOR),
    ("gather_nd", lambda x: tf.gather_nd(x, [[2], [0]]) ** 2, VECTOR),
    ("einsum", lambda x: tf.einsum("ij,kj->ik", x, x), MATRIX),
    ("svd", lambda x: tf.linalg.svd(x, compute_uv=False), MATRIX),
    ("qr", lambda x: tf.linalg.qr(x)[1], MATRIX),
    (
        "cholesky",
        lambda x: tf.linalg.cholesky(x @ tf.transpose(x) + tf.eye(3, dtype=x.dtype)),
        MATRIX,
    ),
    ("solve", lambda x: tf.linalg.solve(x, x**2), MATRIX),
    ("rfft", lambda x: tf.abs(tf.signal.rfft(x)), [8]),
    ("igamma", of_positive(lambda x: tf.math.igamma(x, x + 1)), VECTOR),
    ("polygamma", of_positive(lambda x: tf.math.polygamma(tf.ones_like(x), x)), VECTOR),
    ("zeta", of_positive(lambda x: tf.math.zeta(2 * tf.ones_like(x), x + 1)), VECTOR),
    ("max_pool", lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID") ** 2, IMAGE),
    ("rgb_to_hsv", of_positive(tf.image.rgb_to_hsv), COLORS),
    ("upsampling_by_reshape", lambda x: tf.repeat(tf.repeat(x, 2, 1), 2, 2) ** 2, IMAGE),
    (
        "cross_entropy",
        lambda x: tf.nn.sparse_softmax_cross_entropy_with_logits(TOKENS, x),
        [1, 2, 3],
    ),
    ("map_fn", lambda x: tf.map_fn(tf.sin, x), VECTOR),
    ("scan", lambda x: tf.scan(lambda c, a: tf.sin(a) * c, x), VECTOR),
    ("while", loop(lambda y: tf.sin(y) * y), VECTOR),
    ("cond", branch(tf.sin), VECTOR),
    ("function", tf.function(tf.sin), VECTOR),
    ("function_in_while", loop(tf.function(tf.sin)), VECTOR),
    ("vectorized_map", lambda x: tf.vectorized_map(lambda a: tf.sin(a) * a, x), VECTOR),
    ("numpy_function_with_a_rule", lambda x: sin_by_numpy()(x) * x, VECTOR),
    ("rule_in_while", loop(lambda y: sin_by_numpy()(y) + y), VECTOR),
    ("swish", lambda x: tf.nn.silu(x), VECTOR),
]


@modes
@pytest.mark.parametrize(("fn", "shape"), table(CLEAN))
def test_other_ops_are_exact(fn, shape, mode):
    x, u = random(shape), random(shape, 1)
    _, pushed = MODES[mode](lambda x, u: jvp(fn, x, u))(x, u)
    assert relative_error(pushed, central_difference(fn, x, u)) < 1e-7


def read_then_write(x):
    before = STATE + 1.0
    STATE.assign(x**2)
    return before


FROZEN = [
    ("stop_gradient", lambda x: tf.stop_gradient(shaped(np.sin)(x))),
    ("step", lambda x: tf.round(shaped(np.sin)(x))),
    ("comparison", lambda x: tf.cast(shaped(np.sin)(x) > 0, x.dtype)),
    ("predicate", lambda x: tf.cond(shaped(np.abs)(x)[0] > 0, lambda: 1.0, lambda: 2.0)),
    ("shape", lambda x: tf.cast(tf.size(shaped(np.sin)(x)), x.dtype)),
    ("written_after_the_read", read_then_write),
    ("rows", lambda x: tf.cast(shaped(np.flip)(tf.argsort(x)), x.dtype)),
]


@modes
@pytest.mark.parametrize("fn", [pytest.param(fn, id=name) for name, fn in FROZEN])
def test_an_op_behind_a_constant_is_no_leak(fn, mode):
    def beside(x):
        return x**2 + fn(x)

    x = random(VECTOR, dtype="float32")
    _, pushed = MODES[mode](lambda x: jvp(beside, x, tf.ones_like(x)))(x)
    assert relative_error(pushed, 2 * x) < 1e-6


@modes
def test_the_pass_through_rule_is_the_transpose_of_the_rule(mode):
    @tf.custom_gradient
    def straight_through(x):
        return tf.round(x), lambda dy: dy

    x, u = random(VECTOR), random(VECTOR, 1)
    _, pushed = MODES[mode](lambda x, u: jvp(straight_through, x, u))(x, u)
    assert relative_error(pushed, u) == 0


def ctc(x):
    return tf.nn.ctc_loss(TOKENS, x, [2], [4], logits_time_major=True, blank_index=0)


MODELS = [
    ("ctc", lambda: keras.layers.Lambda(ctc), [4, 1, 3]),
    ("upsampling_nearest", lambda: skip_model(), [1, 3, 3, 1]),
    ("lstm", lambda: keras.layers.LSTM(2, return_sequences=True), [1, 3, 2]),
    ("separable_conv", lambda: keras.layers.SeparableConv2D(2, 2), IMAGE),
    ("grouped_conv", lambda: keras.layers.Conv2D(2, 2, groups=2), IMAGE),
    ("spectral", lambda: keras.layers.SpectralNormalization(keras.layers.Dense(2)), [2, 3]),
    ("einsum_dense", lambda: keras.layers.EinsumDense("ab,bc->ac", 2), [2, 3]),
    ("rms", lambda: keras.layers.RMSNormalization(), [2, 3]),
    ("unit", lambda: keras.layers.UnitNormalization(), [2, 3]),
]
LARGER = [
    ("bidirectional", lambda: keras.layers.Bidirectional(keras.layers.GRU(2)), [1, 3, 2]),
    ("conv_lstm", lambda: keras.layers.ConvLSTM1D(1, 2), [1, 2, 3, 1]),
]


@modes
@pytest.mark.parametrize(("build", "shape"), [*table(MODELS), *table(LARGER, pytest.mark.slow)])
def test_layers_are_exact(build, shape, mode):
    layer, x, u = build(), random(shape, dtype="float32"), random(shape, 1, "float32")
    _, pushed = MODES[mode](lambda x, u: jvp(layer, x, u))(x, u)
    h = 1e-2
    expected = (layer(x + h * u, training=False) - layer(x - h * u, training=False)) / (2 * h)
    assert relative_error(pushed, expected) < 2e-3  # float32
