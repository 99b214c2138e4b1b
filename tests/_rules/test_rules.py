"""The rules for ops that TensorFlow lacks, drops or poisons, each to third order."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import MODES, dot, random, relative_error

from keras_fwd import jvp, linearize, vjp
from keras_fwd._graphs import registry
from keras_fwd._rules import table


@dataclasses.dataclass(frozen=True)
class Row:
    """A function through an op.

    Attributes:
        id: Name in the tests' ids.
        fn: From one tensor to one tensor.
        shape: Of the tensor.
        single: Whether the kernel works in float32 whatever its input.
        linear: Whether it is linear, or piecewise: longer steps are exact then.
        xla: Whether TensorFlow can compile it.
        xla_tape: Whether the tape of a caller is right under XLA: kernels of XLA are wrong for
            complex numbers, and TensorFlow's own gradients call them.
        positive: Whether the inputs must lie between 0 and 1.
    """

    id: str
    fn: Callable
    shape: tuple
    single: bool = False
    linear: bool = False
    xla: bool = False
    xla_tape: bool = True
    positive: bool = False

    @property
    def step(self):
        return 3e-3 if self.single else 1e-5

    @property
    def tolerance(self):
        return 1e-2 if self.single else 1e-6

    @property
    def dtype(self):
        return "float32" if self.single else "float64"

    def point(self):
        x = np.random.default_rng(0).normal(size=self.shape)
        if self.positive:  # apart from each other, so that no step meets a tie
            x = np.random.default_rng(1).permutation(np.linspace(0.1, 0.9, x.size))
            x = x.reshape(self.shape)
        return tf.constant(x, self.dtype), random(self.shape, 2, self.dtype) * 0.5


def complex_function(function):
    def real(x):
        z = function(tf.complex(x, x**2 + 1))
        return tf.concat([tf.math.real(z), tf.math.imag(z)], 0) if z.dtype.is_complex else z

    return real


PICTURES = random((2, 4, 5, 3), 3, "float32")


def resize(method, size=9, **options):
    return lambda x: tf.image.resize(x, [size, size + 1], method, **options)


IMAGE, COLORS = (2, 6, 6, 2), (1, 4, 4, 3)
KERNEL = tf.constant(np.random.default_rng(3).normal(size=[2, 3, 2]), "float32")
ONES = [1, 1, 1, 1]
IDS = tf.sparse.from_dense(tf.constant([[1, 2], [3, 0]]))
ROWS, SEGMENTS = tf.constant([0, 1, 2, 1]), tf.constant([0, 0, 1, 2])
QUANT = tf.quantization
LINEAR = {"single": True, "linear": True}
NORM = tf.math.reduce_euclidean_norm


def dilation(padding, strides=1, rates=1):
    def function(x):
        strides_, rates_ = [1, strides, strides, 1], [1, rates, rates, 1]
        return tf.nn.dilation2d(x, KERNEL, strides_, padding, "NHWC", rates_)

    return function


TABLE = [
    Row("softsign", tf.nn.softsign, (5,), xla=True),
    Row("softsign in a layer", keras.activations.softsign, (2, 3), xla=True),
    Row("nearest", resize("nearest"), IMAGE, **LINEAR),
    Row("nearest, smaller", resize("nearest", 3), IMAGE, **LINEAR),
    Row("bilinear", resize("bilinear"), IMAGE, **LINEAR),
    Row("bilinear, doubled", lambda x: tf.image.resize(x, [12, 12]), IMAGE, xla=True, **LINEAR),
    Row("bilinear, smaller", resize("bilinear", 4), IMAGE, **LINEAR),
    Row(
        "bilinear, aligned",
        lambda x: tf.compat.v1.image.resize_bilinear(x, [4, 8], align_corners=True),
        IMAGE,
        **LINEAR,
    ),
    Row("bicubic", resize("bicubic"), IMAGE, **LINEAR),
    Row("lanczos3", resize("lanczos3"), IMAGE, **LINEAR),
    Row("lanczos5, antialias", resize("lanczos5", 3, antialias=True), IMAGE, **LINEAR),
    Row("gaussian", resize("gaussian"), IMAGE, **LINEAR),
    Row("mitchellcubic", resize("mitchellcubic"), IMAGE, **LINEAR),
    Row("bilinear, antialias", resize("bilinear", 3, antialias=True), IMAGE, **LINEAR),
    Row("bicubic, antialias", resize("bicubic", 3, antialias=True), IMAGE, **LINEAR),
    Row("area", resize("area"), IMAGE, **LINEAR),
    Row("area, smaller", resize("area", 4), IMAGE, **LINEAR),
    Row(
        "area, aligned",
        lambda x: tf.compat.v1.image.resize_area(x, [4, 8], align_corners=True),
        IMAGE,
        **LINEAR,
    ),
    Row(
        "crop_and_resize",
        lambda x: tf.image.crop_and_resize(x, [[0.1, 0.0, 0.7, 1.2]] * 2, [0, 1], [4, 4]),
        IMAGE,
        **LINEAR,
    ),
    Row(
        "crop_and_resize, nearest",
        lambda x: tf.image.crop_and_resize(
            x, [[0.1, 0.0, 0.7, 1.0]] * 2, [0, 1], [4, 4], method="nearest"
        ),
        IMAGE,
        **LINEAR,
    ),
    Row(
        "crop_and_resize by boxes",
        lambda boxes: tf.image.crop_and_resize(PICTURES, boxes, [1, 0, 1], [4, 1]),
        (3, 4),
        single=True,
        positive=True,
    ),
    Row(
        "crop_and_resize by both",
        lambda x: tf.image.crop_and_resize(
            x[..., :2], 1.5 * tf.reshape(x[..., 0], [-1, 4])[:3] - 0.2, [1, 0, 1], [3, 4]
        ),
        (2, 4, 5, 3),
        single=True,
        positive=True,
    ),
    Row("lrn", lambda x: tf.nn.lrn(x, 1, 1.0, 0.7, 0.6), (1, 2, 2, 5), single=True),
    Row("lrn, wide", lambda x: tf.nn.lrn(x, 9, 2.0, 0.1, 0.5), (1, 2, 2, 5), single=True),
    Row("dilation", dilation("SAME"), IMAGE, positive=True, **LINEAR),
    Row("dilation, strided", dilation("VALID", 2), IMAGE, positive=True, **LINEAR),
    Row("dilation, rates", dilation("SAME", 1, 2), IMAGE, positive=True, **LINEAR),
    Row(
        "dilation by its filter",
        lambda k: tf.nn.dilation2d(
            tf.reshape(tf.linspace(0.0, 1.0, 72) ** 2, [1, 6, 6, 2]), k, ONES, "SAME", "NHWC", ONES
        ),
        (2, 3, 2),
        positive=True,
        **LINEAR,
    ),
    Row(
        "erosion",
        lambda x: tf.nn.erosion2d(x, KERNEL, ONES, "SAME", "NHWC", ONES),
        IMAGE,
        positive=True,
        **LINEAR,
    ),
    Row(
        "fractional_max_pool",
        lambda x: tf.nn.fractional_max_pool(x, 1.5, seed=1)[0],
        IMAGE,
        positive=True,
    ),
    Row(
        "fractional_max_pool, overlapping",
        lambda x: tf.nn.fractional_max_pool(x, [1, 1.4, 1.6, 1], True, True, seed=1)[0],
        IMAGE,
        positive=True,
    ),
    Row(
        "fractional_avg_pool",
        lambda x: tf.nn.fractional_avg_pool(x, [1, 1.5, 1.5, 1], seed=1)[0],
        IMAGE,
    ),
    Row(
        "fractional_avg_pool, overlapping",
        lambda x: tf.nn.fractional_avg_pool(x, [1, 1.4, 1.6, 1], True, True, seed=1)[0],
        IMAGE,
    ),
    Row(
        "max_pool_with_argmax",
        lambda x: tf.nn.max_pool_with_argmax(x, 2, 2, "VALID")[0],
        IMAGE,
        positive=True,
    ),
    Row(
        "max_pool_with_argmax, batch",
        lambda x: tf.nn.max_pool_with_argmax(x, 3, 2, "SAME", include_batch_in_index=True)[0],
        IMAGE,
        positive=True,
    ),
    Row("sparse mean", lambda x: tf.sparse.segment_mean(x, ROWS, SEGMENTS), (4, 3)),
    Row("sparse sum", lambda x: tf.sparse.segment_sum(x, ROWS, SEGMENTS), (4, 3)),
    Row("sparse sqrt_n", lambda x: tf.sparse.segment_sqrt_n(x, ROWS, SEGMENTS, 5), (4, 3)),
    Row(
        "embedding_lookup_sparse",
        lambda x: tf.nn.embedding_lookup_sparse(x, IDS, None, combiner="mean"),
        (4, 3),
    ),
    Row("cumulative_logsumexp", tf.math.cumulative_logsumexp, (5,)),
    Row(
        "cumulative_logsumexp, exclusive",
        lambda x: tf.math.cumulative_logsumexp(x, 1, exclusive=True)[:, 1:],
        (2, 4),
    ),
    Row(
        "cumulative_logsumexp, reverse",
        lambda x: tf.math.cumulative_logsumexp(50 * x, 0, reverse=True),
        (3, 2),
    ),
    Row("euclidean_norm", NORM, (3, 4)),
    Row("euclidean_norm, axis", lambda x: NORM(x, axis=-1), (3, 4)),
    Row("euclidean_norm, axes", lambda x: NORM(x, [0, -1], keepdims=True), (3, 2, 4)),
    Row("adjust_contrast", lambda x: tf.image.adjust_contrast(x, 0.5), COLORS, **LINEAR),
    Row(
        "adjust_contrast by its factor",
        lambda k: tf.raw_ops.AdjustContrastv2(
            images=tf.reshape(tf.linspace(0.0, 1.0, 48) ** 2, COLORS), contrast_factor=k
        ),
        (),
        **LINEAR,
    ),
    Row(
        "adjust_hue",
        lambda x: tf.image.adjust_hue(x, 0.13),
        COLORS,
        single=True,
        positive=True,
    ),
    Row(
        "adjust_saturation",
        lambda x: tf.image.adjust_saturation(x, 0.6),
        COLORS,
        single=True,
        positive=True,
    ),
    Row(
        "adjust_saturation, full",
        lambda x: tf.image.adjust_saturation(x, 9.0),
        COLORS,
        single=True,
        positive=True,
    ),
    Row("hsv_to_rgb", lambda x: tf.image.hsv_to_rgb(x), COLORS, positive=True),
    Row("slice_update", lambda x: keras.ops.slice_update(x**2, [1, 2], x[:2, :2] ** 3), (4, 4)),
    *(
        Row(
            f"complex {name}",
            complex_function(getattr(tf.math, name)),
            (4,),
            xla=True,
            xla_tape=False,
        )
        for name in ("reciprocal", "sqrt", "rsqrt", "log", "angle")
    ),
    Row("slice, compiled", lambda x: tf.slice(x**3, tf.argmax(x)[:2], [1, 1]), (5, 3), xla=True),
]
FAST = {"softsign", "bilinear", "bicubic", "lrn", "dilation", "cumulative_logsumexp", "hsv_to_rgb"}


def rows(mode):
    chosen = [row for row in TABLE if mode != "xla" or row.xla]
    quick = [row.id for row in TABLE if row.linear or row.id in FAST] if mode == "graph" else FAST
    return [
        pytest.param(
            row, mode, marks=[] if row.id in quick else pytest.mark.slow, id=f"{row.id}-{mode}"
        )
        for row in chosen
    ]


def central(fn, x, u, step):
    return (fn(x + step * u) - fn(x - step * u)) / (2 * step)


def errors(fn, x, u, step, run, push=jvp, tape=True):
    """Relative errors of the derivatives of orders 1, 2 and 3 along `u`, and the adjoint gap."""

    def inner(x):  # so that derivatives of a linear op are not all zero
        return fn(x) ** 2

    def first(x):
        return push(inner, x, u)[1]

    def second(x):
        return push(first, x, u)[1]

    def energy(x):
        return tf.reduce_sum(first(x) ** 2)

    def slope(x):  # by a tape of the user's own
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = energy(x)
        return tf.reduce_sum(tape.gradient(value, x) * u)

    def gap(x):
        y, J = linearize(fn, x)
        w = tf.cos(tf.range(tf.cast(tf.size(y), y.dtype)))
        w = tf.reshape(w, tf.shape(y))
        return J(u), w, J.T(w)

    Ju, w, pulled = run(gap)(x)
    scale = np.linalg.norm(Ju) * np.linalg.norm(w)
    pairs = [(inner, first), (first, second), (energy, slope)][: 3 if tape else 2]
    found = [
        relative_error(run(derivative)(x), central(run(function), x, u, step))
        for function, derivative in pairs
    ]
    return [*found, abs(dot(Ju, w) - dot(u, pulled)) / scale]


@pytest.mark.parametrize(("row", "mode"), [*rows("eager"), *rows("graph"), *rows("xla")])
def test_rules_are_exact(row, mode):
    x, u = row.point()
    tape = row.xla_tape or mode != "xla"
    found = errors(row.fn, x, u, row.step, MODES[mode], tape=tape)
    assert max(found) < row.tolerance, found


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos3", "area"])
def test_float64_images(method):
    # TensorFlow returns float32, and for some methods has no first gradient of float64 images.
    x, u = random(IMAGE), random(IMAGE, 1)
    y, pushed = jvp(resize(method), x, u)
    assert y.dtype == tf.float32
    assert relative_error(pushed, resize(method)(u)) < 1e-6


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("fill", ["constant", "nearest", "reflect", "wrap"])
def test_transforms_of_images(fill, interpolation):
    # A rotation by a large angle, so that much of it is read from outside of the image.
    def fn(x):
        turn = tf.constant([[0.7, -0.9, 3.3, 0.8, 0.75, -2.1, 0.01, -0.02]] * 2)
        return keras.ops.image.affine_transform(x, turn, interpolation, fill, 0.3)

    x, u, w = (random(IMAGE, i, "float32") for i in range(3))
    (y, pushed), (_, pulled) = jvp(fn, x, u), vjp(fn, x, w)
    assert relative_error(pushed, fn(x + u) - y) < 1e-5  # it is affine
    assert abs(dot(pushed, w) - dot(u, pulled)) < 1e-5 * np.linalg.norm(w) * np.linalg.norm(pushed)
    with tf.GradientTape() as tape:  # of the caller, in which TensorFlow's own gradient holds
        tape.watch(x)
        half = tf.reduce_sum(w * jvp(lambda x: fn(x) ** 2 / 2, x, u)[1])
    expected = vjp(fn, x, w * pushed)[1]
    assert relative_error(tape.gradient(half, x), expected) < 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_fake_quantization_is_the_identity_inside_of_its_range(mode):
    # As its own gradient says; the op itself is a flight of stairs.
    x, u = tf.constant([-7.0, -1.3, 2.2, 9.0]), tf.constant([1.0, 2.0, 3.0, 4.0])

    def fn(x):
        return QUANT.fake_quant_with_min_max_args(x) + 2 * x

    def first(x):
        return jvp(lambda x: fn(x) ** 2, x, u)[1]

    run, inside = MODES[mode], np.array([0.0, 1.0, 1.0, 0.0])
    np.testing.assert_allclose(run(lambda x: jvp(fn, x, u)[1])(x), (inside + 2) * u)
    np.testing.assert_allclose(run(lambda x: jvp(first, x, u)[1])(x), 2 * ((inside + 2) * u) ** 2)


def test_limits_of_fake_quantization_move_what_lies_outside():
    x = tf.constant([-3.0, -0.4, 0.3, 2.0])
    limits = [tf.constant(-1.0), tf.constant(1.0)]

    def fn(limits):
        return QUANT.fake_quant_with_min_max_vars(x, *limits)

    _, J = linearize(fn, limits)
    np.testing.assert_allclose(J([tf.constant(1.0), tf.constant(0.0)]), [1, 0, 0, 0])
    np.testing.assert_allclose(J([tf.constant(0.0), tf.constant(1.0)]), [0, 0, 0, 1])
    np.testing.assert_allclose(J.T(tf.constant([1.0, 2.0, 3.0, 4.0])), [1.0, 4.0])


def test_a_cumulative_sum_of_far_exponents_does_not_overflow():
    x = tf.constant([-800.0, 0.0, 800.0, 5.0], tf.float64)
    _, pushed = jvp(tf.math.cumulative_logsumexp, x, tf.constant([1.0, 2.0, -3.0, 0.0], tf.float64))
    np.testing.assert_allclose(pushed, [1.0, 2.0, -3.0, -3.0])


def test_registered_gradients_serve_plain_tapes():
    x = random([3])
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = tf.nn.softsign(x)
        slope = inner.gradient(y, x)
    exact = -2 * tf.sign(x) / (1 + tf.abs(x)) ** 3
    np.testing.assert_allclose(outer.gradient(slope, x), exact, rtol=1e-12)


def test_no_gradient_of_tensorflows_own_is_replaced():
    # One that it brings some day is kept.
    before = registry.lookup("MatMul")
    registry.register({"MatMul": lambda op, c: (c, c)})
    assert registry.lookup("MatMul") is before and "MatMul" not in registry.added


def test_every_row_of_the_table_is_in_use():
    for op in table.REGISTERED:
        assert op in registry.added or registry.state(op) == "known"
    for op in table.SEALED:
        assert registry.state(op) in ("known", "none"), op


@pytest.mark.parametrize("order", [1, 2])
def test_a_wrong_rule_is_caught(order, monkeypatch):
    def wrong(op, cotangent):
        by_c, by_x = table.REGISTERED["SoftsignGrad"](op, cotangent)
        return (by_c * 2.001 / 2, by_x) if order == 1 else (by_c, by_x * 2.001 / 2)

    monkeypatch.setitem(registry._registry._registry["SoftsignGrad"], "type", wrong)
    x, u = random([5]), random([5], 1)
    found = errors(tf.nn.softsign, x, u, 1e-5, MODES["graph"])
    assert found[order - 1] > 1e-5
