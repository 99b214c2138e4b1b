"""Every function in `keras.ops`, and in the modules inside of it."""

import functools
import types

import numpy as np
import tensorflow as tf
from keras import ops

from conformance.case import (
    image,
    listed,
    op,
    positive,
    probabilities,
    spd,
    unit,
    well_conditioned,
)

FAMILY = "keras.ops"


def _names():
    functions = {
        name: value for name, value in vars(ops).items() if isinstance(value, types.FunctionType)
    }
    for module in ("image", "linalg", "nn", "numpy"):
        for name, value in vars(getattr(ops, module)).items():
            if isinstance(value, types.FunctionType) and name not in functions:
                functions[f"{module}.{name}"] = value
    return functions


NAMESPACE = _names()

V, M, T = (4,), (3, 4), (2, 3, 4)
SQUARE = well_conditioned(3)
PICTURE = image(1, 6, 6, 3)
SORTED = {"orders": {"graph": 2}, "note": "XLA does not compile TensorFlow's own first gradient"}
NEAREST = "TensorFlow has no compiled kernel of the first gradient either"
EAGER = "Keras' code runs eagerly alone, where no leak can be found"
SINGLE = {"step": 0.01, "tolerance": 2e-3}
HOLES = np.where(
    np.arange(12).reshape(3, 4) % 5 == 1, np.nan, np.linspace(-1.0, 1.3, 12).reshape(3, 4)
)


def function(name):
    return functools.reduce(getattr, name.split("."), ops)


def at(names, *inputs, **options):
    """The functions of the same inputs."""
    return [op(name, function(name), *inputs, **options) for name in names.split()]


def with_(name, *inputs, variant="", **arguments):
    """A function with more arguments than its inputs."""
    call = functools.partial(function(name), **arguments)
    return op(f"{name} ({variant})" if variant else name, call, *inputs)


def of(name, call, *inputs, **options):
    """A function that is called in a way of its own."""
    return op(name, call, *inputs, **options)


def on_lists(names, *inputs):
    return [
        op(name, lambda *xs, name=name: function(name)(list(xs)), *inputs) for name in names.split()
    ]


ELEMENTWISE = [
    *at("abs absolute fabs negative", V),
    of("arcsin", lambda x: 2 * ops.arcsin(x), unit(4)),  # the sine of one is too straight
    *at("arccos arctanh erfinv", unit(4)),
    *at("arccosh", positive(4) + 1),
    *at("arcsinh arctan cos cosh sin sinh tan tanh sinc exp expm1 erf erfc", V),
    of("exp2", lambda x: ops.exp2(tf.cast(x, tf.float32)), V, **SINGLE),
    *at("log log10 log1p log2 sqrt rsqrt reciprocal cbrt", positive(4)),
    *at("square deg2rad rad2deg nan_to_num i0", V),
    *at("conj conjugate real copy", V),
    of("imag", lambda x: ops.imag(tf.complex(x, x**2)), V),
    of("angle", lambda x: ops.angle(tf.complex(x, x**2)), positive(4), **SINGLE),
    *at("celu elu gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu", V),
    *at("log_sigmoid log_softmax relu relu6 selu sigmoid silu soft_shrink softmax softplus", V),
    *at("softsign sparse_plus sparse_sigmoid sparsemax squareplus swish tanh_shrink", V),
    with_("threshold", V, threshold=0.3, default_value=0.1),
    with_("clip", V, x_min=-0.4, x_max=0.6),
    with_("cast", V, dtype="float64"),
    with_("saturate_cast", V, dtype="float64"),
    with_("normalize", M, axis=-1, order=2),
    with_("rms_normalization", M),
    with_("layer_normalization", M),
]

BINARY = [
    *at("add subtract multiply divide true_divide maximum minimum fmax fmin", V, positive(4)),
    *at("arctan2 hypot logaddexp logaddexp2 divide_no_nan mod fmod", V, positive(4)),
    *at("power", positive(4), V),
    *at("polar", positive(4), V),
    of("ldexp", lambda x: ops.ldexp(x, np.array([1, 2, 0, -1])), V),
    of(
        "hypot (on the axes and diagonals)",
        ops.hypot,
        np.array([1.0, 0.5, 0.8]),
        np.array([0.0, 0.5, -0.8]),
    ),
    *at("dot inner outer vdot", V, V),
    *at("kron", V, V, leak="TypeError", note=EAGER),
    *at("cross", (2, 3), (2, 3)),
    *at("matmul", M, (4, 2)),
    with_("tensordot", T, (4, 3), axes=[[2], [0]]),
    of("einsum", lambda x, y: ops.einsum("ij,kj->ik", x, y), M, (2, 4)),
    *at("correlate", (5,), (3,)),
    *at("cdist", (3, 2), (4, 2)),
    of("psnr", lambda x, y: ops.psnr(x, y, 1.0), image(3, 3), image(3, 3, seed=9)),
]

REDUCTIONS = [
    with_("sum", M, axis=1),
    with_("mean", M, axis=1),
    with_("prod", M, axis=1),
    with_("max", M, axis=1),
    with_("min", M, axis=1),
    with_("amax", M, axis=1),
    with_("amin", M, axis=1),
    with_("std", M, axis=1),
    with_("var", M, axis=1),
    with_("ptp", M, axis=1),
    with_("median", M, axis=1),
    with_("quantile", M, q=0.3),
    with_("percentile", M, q=30),
    with_("logsumexp", M, axis=1),
    with_("average", M, axis=1, weights=np.arange(4.0)),
    with_("moments", M, axes=[1]),
    with_("norm", M),
    with_("norm", M, variant="nuclear", ord="nuc"),
    with_("norm", M, variant="spectral", ord=2),
    with_("trace", (3, 3)),
    with_("trapezoid", M),
    with_("cumsum", M, axis=1),
    with_("cumprod", M, axis=1),
    with_("diff", V),
    *at("corrcoef", M, leak="OperatorNotAllowedInGraphError", note=EAGER),
    *at("nancumprod nancumsum", HOLES),
    *at("nanmax nanmean nanmin nanprod nanstd nansum nanvar", HOLES),
    op("nanmedian", ops.nanmedian, HOLES, **SORTED),
    op("nanpercentile", lambda x: ops.nanpercentile(x, 30), HOLES, **SORTED),
    op("nanquantile", lambda x: ops.nanquantile(x, 0.3), HOLES, **SORTED),
]

SHAPES = [
    *on_lists("concatenate stack hstack vstack dstack", M, M),
    of("meshgrid", lambda x, y: ops.meshgrid(x, y), V, (3,)),
    of("append", ops.append, V, V),
    of("array", ops.array, V),
    of("array_split", lambda x: ops.array_split(x, 3), (5,)),
    of("split", lambda x: ops.split(x, 2), V),
    of("hsplit", lambda x: ops.hsplit(x, 2), M),
    of("vsplit", lambda x: ops.vsplit(x, 3), M),
    of("dsplit", lambda x: ops.dsplit(x, 2), T),
    of("unstack", lambda x: ops.unstack(x, axis=1), M),
    of("broadcast_to", lambda x: ops.broadcast_to(x, (2, 4)), V),
    of("convert_to_tensor", ops.convert_to_tensor, V),
    of("expand_dims", lambda x: ops.expand_dims(x, 0), V),
    of("reshape", lambda x: ops.reshape(x, (2, 2)), V),
    of("repeat", lambda x: ops.repeat(x, 2), V),
    of("tile", lambda x: ops.tile(x, (2, 2)), M),
    of("pad", lambda x: ops.pad(x, ((1, 1), (2, 0))), M),
    of("pad (reflect)", lambda x: ops.pad(x, ((1, 1), (2, 0)), "reflect"), M),
    of("roll", lambda x: ops.roll(x, 1), V),
    of("rot90", ops.rot90, M),
    of("moveaxis", lambda x: ops.moveaxis(x, 0, 1), T),
    of("swapaxes", lambda x: ops.swapaxes(x, 0, 1), T),
    of("rearrange", lambda x: ops.rearrange(x, "a b c -> c (a b)"), T),
    *at("transpose ravel flip fliplr flipud tril triu", M),
    *at("squeeze", (1, 4)),
    *at("diag diagflat vander", V),
    *at("diagonal", (3, 3)),
    of("depth_to_space", lambda x: ops.depth_to_space(x, 2), (1, 2, 2, 4)),
    of("space_to_depth", lambda x: ops.space_to_depth(x, 2), (1, 4, 4, 1)),
    of("view", lambda x: ops.view(x, "float64"), V, leak="Bitcast"),
    of("view_as_complex", ops.view_as_complex, (3, 2), **SINGLE),
    of("view_as_real", lambda x: ops.view_as_real(tf.complex(x, 2 * x)), V),
]

SEGMENTS = np.array([0, 0, 1])
INDEXING = [
    *at("sort", V),
    of("top_k", lambda x: ops.top_k(x, 2)[0], V),
    of("take", lambda x: ops.take(x, [2, 0, 2], axis=1), M),
    of("take_along_axis", lambda x: ops.take_along_axis(x, np.array([[1], [0], [3]]), 1), M),
    of("get_item", lambda x: ops.get_item(x, (slice(0, 2), 1)), M),
    of("slice", lambda x: ops.slice(x, (0, 1), (2, 2)), M),
    of("slice_update", lambda x, y: ops.slice_update(x, (1, 1), y), M, (2, 2)),
    of("scatter", lambda x: ops.scatter([[1], [0], [1], [3]], x, (5,)), V),
    of("scatter_update", lambda x, y: ops.scatter_update(x, [[1], [3]], y), V, (2,)),
    of("segment_sum", lambda x: ops.segment_sum(x, SEGMENTS, 2), M),
    of("segment_max", lambda x: ops.segment_max(x, SEGMENTS, 2), M),
    of("segment_min", lambda x: ops.segment_min(x, SEGMENTS, 2), M),
    of("segment_prod", lambda x: ops.segment_prod(x, SEGMENTS, 2), M),
    of("where", lambda x, y: ops.where(x > 0, x, y), V, V),
    of("select", lambda x: ops.select([x > 0.5, x > -0.5], [x**2, ops.sin(x)], 0.1), V),
    of("extract_sequences", lambda x: ops.extract_sequences(x, 3, 2), (8,)),
    of("unfold", lambda x: ops.unfold(x, 2), (1, 2, 4, 4)),
    of("fold", lambda x: ops.fold(x, 4, 2), (1, 8, 9)),
]

# The bound is not known when the first gradient is compiled, in TensorFlow's own too.
ONE_STEP = {"graph": 3, "eager": 1}
FLOW = [
    of("cond", lambda x: ops.cond(x[0] > 0, lambda: ops.sin(x), lambda: x**2), V),
    of("switch", lambda x: ops.switch(1, [ops.sin, ops.exp], x), V),
    of(
        "fori_loop",
        lambda x: ops.fori_loop(0, 2, lambda i, y: ops.sin(y) * y, x),
        V,
        orders=ONE_STEP,
    ),
    of(
        "while_loop",
        lambda x: ops.while_loop(lambda i, y: i < 2, lambda i, y: (i + 1, ops.sin(y) * y), (0, x))[
            1
        ],
        V,
        orders=ONE_STEP,
    ),
    of("map", lambda x: ops.map(lambda a: ops.sin(a) * a, x), V, orders=ONE_STEP),
    of(
        "scan", lambda x: ops.scan(lambda c, a: (c * ops.sin(a), c), x[0], x)[1], V, orders=ONE_STEP
    ),
    of("associative_scan", lambda x: ops.associative_scan(lambda a, b: a * ops.sin(b), x), V),
    of("vectorized_map", lambda x: ops.vectorized_map(lambda a: ops.sin(a) * a, x), V),
    of("custom_gradient", lambda x: own_rule(x), V),
]


@ops.custom_gradient
def own_rule(x):
    return ops.sin(x), lambda dy: dy * ops.cos(x)


LABELS = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
IMAGES = (1, 5, 5, 2)
NETWORK = [
    of("average_pool", lambda x: ops.average_pool(x, 2), IMAGES),
    of("max_pool", lambda x: ops.max_pool(x, 2), IMAGES),
    of("adaptive_average_pool", lambda x: ops.adaptive_average_pool(x, 2), IMAGES),
    of("adaptive_max_pool", lambda x: ops.adaptive_max_pool(x, 2), IMAGES),
    of("conv", ops.conv, IMAGES, (2, 2, 2, 3)),
    of("conv_transpose", lambda x, k: ops.conv_transpose(x, k, 2), IMAGES, (2, 2, 3, 2)),
    of("depthwise_conv", ops.depthwise_conv, IMAGES, (2, 2, 2, 1)),
    of("separable_conv", ops.separable_conv, IMAGES, (2, 2, 2, 1), (1, 1, 2, 3)),
    of(
        "batch_normalization",
        lambda x, m, v: ops.batch_normalization(x, m, v, -1),
        M,
        V,
        positive(4),
    ),
    of(
        "dot_product_attention", ops.dot_product_attention, (1, 2, 2, 3), (1, 4, 2, 3), (1, 4, 2, 3)
    ),
    of("binary_crossentropy", lambda y: ops.binary_crossentropy(LABELS, y), unit(3, 4) ** 2),
    of(
        "categorical_crossentropy",
        lambda y: ops.categorical_crossentropy(LABELS, y),
        probabilities(3, 4),
    ),
    of(
        "sparse_categorical_crossentropy",
        lambda y: ops.sparse_categorical_crossentropy([0, 2, 1], y),
        probabilities(3, 4),
    ),
    of(
        "ctc_loss",
        lambda y: ops.ctc_loss([[1, 2], [3, 1]], y, [2, 2], [5, 5]),
        (2, 5, 4),
        leak="SymbolicGradient",
        leak_order=2,
        **SINGLE,
    ),
]


def symmetric(x):
    return (x + ops.transpose(x)) / 2


SYMMETRIC = "of a symmetric matrix: TensorFlow's gradient is the symmetric one"
LINEAR_ALGEBRA = [
    of("cholesky", lambda x: ops.cholesky(symmetric(x)), spd(3), note=SYMMETRIC),
    of("cholesky_inverse", lambda x: ops.cholesky_inverse(ops.cholesky(symmetric(x))), spd(3)),
    *at("det inv slogdet", spd(3)),
    of("logdet", lambda x: ops.logdet(symmetric(x)), spd(3), note=SYMMETRIC),
    *at("pinv", (4, 3)),
    *at("qr", (4, 3)),
    of("svd", lambda x: ops.svd(x, compute_uv=False), M),
    of("svd (vectors)", lambda x: gauge_free_svd(x), M),
    of("eigh", lambda x: ops.eigh(symmetric(x))[0], spd(3)),
    of("eig", lambda x: ops.real(ops.sort(ops.real(ops.eig(x)[0]))), spd(3)),
    of("lu_factor", lambda x: ops.lu_factor(x)[0], SQUARE, leak="Lu"),
    *at("solve", SQUARE, (3, 2)),
    *at("solve_triangular", np.triu(SQUARE), (3, 2)),
    *at("lstsq", (5, 3), (5,)),
]


def gauge_free_svd(x):
    u, s, v = ops.svd(x, full_matrices=False)
    return ops.matmul(u * ops.sqrt(s), v)


SIGNALS = [
    of("fft", lambda x, y: ops.fft((x, y)), (8,), (8,)),
    of("fft2", lambda x, y: ops.fft2((x, y)), (4, 4), (4, 4)),
    of("ifft2", lambda x, y: ops.ifft2((x, y)), (4, 4), (4, 4)),
    of("rfft", ops.rfft, (8,)),
    of("irfft", lambda x, y: ops.irfft((x, y)), (5,), (5,)),
    of("stft", lambda x: ops.stft(x, 8, 4, 8), (24,)),
    of("istft", lambda x, y: ops.istft((x, y), 8, 4, 8), (4, 5), (4, 5)),
]

PICTURES = [
    of(
        "image.affine_transform",
        lambda x: ops.image.affine_transform(x, AFFINE),
        PICTURE,
        **SINGLE,
    ),
    of(
        "image.crop_images",
        lambda x: ops.image.crop_images(x, 1, 1, target_height=3, target_width=3),
        PICTURE,
    ),
    of(
        "image.elastic_transform",
        lambda x: ops.image.elastic_transform(x, 5.0, 2.0, seed=1),
        PICTURE,
        **SINGLE,
        random=True,
    ),
    of("image.extract_patches", lambda x: ops.image.extract_patches(x, 2), PICTURE),
    of("image.extract_patches_3d", lambda x: ops.image.extract_patches_3d(x, 2), (1, 4, 4, 4, 1)),
    of("image.gaussian_blur", ops.image.gaussian_blur, PICTURE, **SINGLE),
    of("image.hsv_to_rgb", ops.image.hsv_to_rgb, PICTURE),
    of("image.rgb_to_hsv", ops.image.rgb_to_hsv, PICTURE),
    of("image.rgb_to_grayscale", ops.image.rgb_to_grayscale, PICTURE),
    of(
        "image.map_coordinates",
        lambda x, c: ops.image.map_coordinates(x, c, 1),
        (4, 4),
        unit(2, 5) ** 2 * 2 + 0.3,
    ),
    of("image.pad_images", lambda x: ops.image.pad_images(x, 1, 1, 1, 1), PICTURE),
    of(
        "image.perspective_transform",
        lambda x: ops.image.perspective_transform(x, CORNERS, CORNERS + SHIFT),
        PICTURE,
        **SINGLE,
    ),
    *(
        of(
            f"image.resize ({method})",
            lambda x, method=method: ops.image.resize(x, (4, 4), method),
            PICTURE.astype("float32"),
            xla_fails=NEAREST if method == "nearest" else "",
            **SINGLE,
        )
        for method in ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5")
    ),
    of(
        "image.scale_and_translate",
        lambda x: ops.image.scale_and_translate(
            x,
            (1, 4, 4, 3),
            np.array([0.7, 0.8], "float32"),
            np.array([0.1, 0.2], "float32"),
            (1, 2),
            "linear",
        ),
        PICTURE,
        **SINGLE,
    ),
    of("image.sobel_edges", ops.image.sobel_edges, PICTURE),
    of(
        "image.ssim",
        lambda x, y: ops.image.ssim(x, y, 1.0, filter_size=3),
        image(1, 6, 6, 1),
        image(1, 6, 6, 1, seed=1),
    ),
]
AFFINE = np.array([1.1, 0.1, 0.3, -0.1, 0.9, 0.2, 0.0, 0.0], "float32")
CORNERS = np.array([[[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [5.0, 5.0]]], "float32")
SHIFT = np.array([[[0.3, 0.1], [-0.2, 0.4], [0.5, -0.1], [0.1, 0.2]]], "float32")

CASES = [
    *ELEMENTWISE,
    *BINARY,
    *REDUCTIONS,
    *SHAPES,
    *INDEXING,
    *FLOW,
    *NETWORK,
    *LINEAR_ALGEBRA,
    *SIGNALS,
    *PICTURES,
]

LISTED = [
    *listed("true or false out", "all allclose any equal greater greater_equal in_top_k is_tensor"),
    *listed("true or false out", "isclose isfinite isin isinf isnan isneginf isposinf isreal less"),
    *listed("true or false out", "less_equal logical_and logical_not logical_or logical_xor"),
    *listed("true or false out", "not_equal signbit"),
    *listed("integers out", "argmax argmin argpartition argsort bincount count_nonzero digitize"),
    *listed(
        "integers out", "histogram lcm gcd nanargmax nanargmin ndim nonzero searchsorted shape"
    ),
    *listed("integers out", "matrix_rank size unravel_index ctc_decode"),
    *listed("integers in", "bitwise_and bitwise_invert bitwise_left_shift bitwise_not bitwise_or"),
    *listed(
        "integers in", "bitwise_right_shift bitwise_xor left_shift right_shift multi_hot one_hot"
    ),
    *listed("piecewise constant: its derivative is zero", "ceil floor floor_divide heaviside"),
    *listed("piecewise constant: its derivative is zero", "nextafter round sign trunc"),
    *listed("no tensor in: makes one", "arange bartlett blackman empty eye full geomspace hamming"),
    *listed("no tensor in: makes one", "hanning identity kaiser linspace logspace ones tri zeros"),
    *listed("constant in its input", "empty_like full_like ones_like zeros_like"),
    *listed("constant, as it says", "stop_gradient"),
    *listed("not there with the TensorFlow backend", "vectorize"),
    *listed("a derivative itself", "jvp"),
    *listed("not a tensor out", "convert_to_numpy dtype"),
    *listed("the number of outputs depends on the values", "unique"),
]
