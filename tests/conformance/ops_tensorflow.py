"""TensorFlow's ops: the usual ones, and those at which its own second derivatives fail."""

import functools

import numpy as np
import tensorflow as tf

from conformance.case import image, op, positive, spd, spread, unit, well_conditioned

FAMILY = "TensorFlow ops"
NAMESPACE = {}  # a choice, not an enumeration
LISTED = []

V, M, T = (4,), (3, 4), (2, 3, 4)
PLANE = (1, 6, 6, 2)
PICTURE = image(1, 6, 6, 3)
SQUARE = well_conditioned(3)
COLORS = spread(1, 3, 3, 3) / 5 + 0.5  # so that no other channel becomes the largest
APART = {"step": 1e-3, "tolerance": 2e-3, "orders": {"graph": 3, "eager": 1, "xla": 1}}
SINGLE = {"step": 0.01, "tolerance": 2e-3}
CURVED = {"step": 0.01, "tolerance": 1e-2}
LISTS = "TensorFlow compiles lists of a known length alone"
LOOP = {"graph": 3, "eager": 1, "xla": 1}
SEGMENTS = [0, 0, 1]


def of(name, call, *inputs, **options):
    return op(f"tf.{name}", call, *inputs, **options)


def at(module, names, *inputs, **options):
    holder = getattr(tf, module)
    return [
        of(f"{module}.{name}", getattr(holder, name), *inputs, **options) for name in names.split()
    ]


def single(call):
    """A kernel in float32 alone, between casts."""
    return lambda *xs: call(*(tf.cast(x, tf.float32) for x in xs))


# --- where TensorFlow's own second pass fails -----------------------------------------------------

KERNEL = unit(2, 2, 2)
ONES = [1, 1, 1, 1]
IDS = tf.sparse.from_dense(tf.constant([[1, 2], [3, 0]]))
QUANTIZATION = tf.quantization
BOXES = np.array([[0.05, 0.1, 0.7, 0.83]], "float32")


NEAREST = "TensorFlow has no compiled kernel of the first gradient either"
METHODS = "bilinear nearest bicubic area lanczos3 lanczos5 gaussian mitchellcubic"


def resize(method, size, antialias):
    return single(lambda x: tf.image.resize(x, [size, size], method, antialias=antialias))


def table_rows(x):
    return tf.nn.embedding_lookup_sparse(x, IDS, None, combiner="mean")


LEAKS = [
    of("nn.softsign", tf.nn.softsign, V, fast=True),
    *(
        of(
            f"image.resize ({method}, to {size}{', antialias' * antialias})",
            resize(method, size, antialias),
            PICTURE,
            fast=(method, size, antialias) == ("bilinear", 9, False),
            xla_fails=NEAREST if method == "nearest" else "",
            **SINGLE,
        )
        for method in METHODS.split()
        for size, antialias in ((9, False), (4, False), (4, True))
    ),
    of("image.resize (bilinear, float64)", lambda x: tf.image.resize(x, [9, 9]), PICTURE, **SINGLE),
    of(
        "image.resize (lanczos3, float64)",
        lambda x: tf.image.resize(x, [9, 9], "lanczos3"),
        PICTURE,
        **SINGLE,
    ),
    of(
        "image.crop_and_resize",
        lambda x: tf.image.crop_and_resize(x, BOXES, [0], [4, 4]),
        PICTURE,
        **SINGLE,
    ),
    of(
        "image.crop_and_resize (boxes)",
        single(lambda b: tf.image.crop_and_resize(PICTURE, b, [0], [3, 3])),
        np.array([[0.05, 0.1, 0.7, 0.83]]),
        **SINGLE,
    ),
    of(
        "nn.local_response_normalization",
        single(tf.nn.local_response_normalization),
        PLANE,
        **SINGLE,
    ),
    of(
        "nn.dilation2d",
        lambda x, k: tf.nn.dilation2d(x, k, ONES, "SAME", "NHWC", ONES),
        spread(*PLANE),
        KERNEL,
    ),
    of(
        "nn.erosion2d",
        lambda x, k: tf.nn.erosion2d(x, k, ONES, "SAME", "NHWC", ONES),
        spread(*PLANE),
        KERNEL,
    ),
    of(
        "nn.fractional_max_pool",
        lambda x: tf.nn.fractional_max_pool(x, 1.5, seed=1)[0],
        spread(*PLANE),
        random=True,
    ),
    of(
        "nn.fractional_avg_pool",
        lambda x: tf.nn.fractional_avg_pool(x, [1, 1.5, 1.5, 1], seed=1)[0],
        PLANE,
        random=True,
    ),
    of(
        "nn.max_pool_with_argmax",
        lambda x: tf.nn.max_pool_with_argmax(x, 2, 2, "VALID")[0],
        spread(*PLANE),
    ),
    of("sparse.segment_mean", lambda x: tf.sparse.segment_mean(x, [0, 1, 2], SEGMENTS), M),
    of("sparse.segment_sum", lambda x: tf.sparse.segment_sum(x, [0, 1, 2], SEGMENTS), M),
    of("sparse.segment_sqrt_n", lambda x: tf.sparse.segment_sqrt_n(x, [0, 1, 2], SEGMENTS), M),
    of("nn.embedding_lookup_sparse", table_rows, (4, 3)),
    of("recompute_grad", tf.recompute_grad(lambda x: tf.sin(x) * x), V),
    of("math.cumulative_logsumexp", tf.math.cumulative_logsumexp, V),
    of("math.reduce_euclidean_norm", lambda x: tf.math.reduce_euclidean_norm(x, 1), M),
    *(
        of(
            f"quantization.fake_quant_with_min_max_{kind}",
            single(
                functools.partial(getattr(QUANTIZATION, f"fake_quant_with_min_max_{kind}"), **args)
            ),
            np.array([0.3, -0.7, 1.4]),
            surrogate=lambda x: tf.clip_by_value(x, -1.0, 1.0),
            note="straight through, as it declares",
            **SINGLE,
        )
        for kind, args in {
            "args": {"min": -1.0, "max": 1.0},
            "vars": {"min": -1.0, "max": 1.0},
            "vars_per_channel": {"min": -np.ones(3, "float32"), "max": np.ones(3, "float32")},
        }.items()
    ),
    of("image.adjust_contrast", lambda x: tf.image.adjust_contrast(x, 0.5), PICTURE, **SINGLE),
    of("image.adjust_hue", lambda x: tf.image.adjust_hue(x, 0.1), COLORS, **APART),
    of("image.adjust_saturation", lambda x: tf.image.adjust_saturation(x, 0.5), COLORS, **APART),
    of("nn.moments", lambda x: tf.nn.moments(x, [1]), M, fast=True),
    of(
        "nn.batch_normalization",
        lambda x, m, v: tf.nn.batch_normalization(x, m, v, None, None, 1e-3),
        M,
        V,
        positive(4),
    ),
    of("pow (at zero)", lambda x: x**3, np.array([0.0, 0.5, -0.3]), note="pow(x, -1) times 0"),
]


@tf.custom_gradient
def nonlinear_rule(x):
    return x**3, lambda dy: dy * tf.abs(dy) * 3 * x**2


@tf.custom_gradient
def clipped_rule(x):
    return x**3, lambda dy: tf.clip_by_norm(dy, 1.0) * 3 * x**2


@tf.custom_gradient
def linear_rule(x):
    return tf.sin(x), lambda dy: dy * tf.cos(x)


@tf.custom_gradient
def straight_through(x):
    return tf.round(x), lambda dy: dy


@tf.custom_gradient
def reversed_gradient(x):
    return tf.identity(x), lambda dy: -2.0 * dy


@tf.custom_gradient
def stopped_rule(x):
    return x**3, lambda dy: tf.stop_gradient(dy) * 3 * x**2


def by_numpy(x):
    return tf.ensure_shape(tf.numpy_function(np.sin, [x], x.dtype), x.shape)


# Loud: there is no rule.
REFUSED = [
    of("numpy_function", by_numpy, V, leak="PyFunc"),
    of("custom_gradient (dy |dy|)", nonlinear_rule, V, leak="Mul"),
    of("custom_gradient (clipped)", clipped_rule, V, leak="Greater"),
    of("custom_gradient (stopped)", stopped_rule, V, leak="StopGradient"),
    of("linalg.lu", lambda x: tf.linalg.lu(x)[0], SQUARE, leak="Lu"),
    of(
        "linalg.logm",
        lambda x: tf.math.real(tf.linalg.logm(tf.cast(x, tf.complex128))),
        SQUARE,
        leak="MatrixLogarithm",
    ),
    of(
        "math.polygamma (order)",
        lambda a: tf.math.polygamma(a, positive(4)),
        positive(4),
        leak="Polygamma",
    ),
    of(
        "math.zeta (exponent)", lambda a: tf.math.zeta(a + 1, positive(4)), positive(4), leak="Zeta"
    ),
    of(
        "math.betainc (shapes)",
        lambda a: tf.math.betainc(a, a, unit(4) ** 2),
        positive(4),
        leak="Betainc",
    ),
    of("unique", lambda x: tf.unique(x)[0], V, leak="Unique"),
    of("image.hsv_to_rgb", tf.image.hsv_to_rgb, PICTURE, leak="HSVToRGB"),
    of("range", lambda x: tf.range(x[0], x[0] + 2.5), np.array([0.2]), leak="Range"),
]

# --- the usual ones -------------------------------------------------------------------------------

MATH = [
    *at(
        "math",
        "abs negative square exp expm1 sin cos tan sinh cosh tanh asinh atan sigmoid erf erfc",
        V,
    ),
    *at("math", "softplus log_sigmoid bessel_i0 bessel_i0e bessel_i1 bessel_i1e real", V),
    *at("math", "log log1p sqrt rsqrt reciprocal lgamma digamma", positive(4)),
    *at("math", "acos atanh erfinv ndtri", unit(4) ** 2),
    of("math.asin", lambda x: 2 * tf.asin(x), unit(4)),  # the sine of one is too straight
    *at("math", "acosh", positive(4) + 1),
    *at(
        "math",
        "add subtract multiply divide maximum minimum squared_difference divide_no_nan",
        V,
        positive(4),
    ),
    *at("math", "atan2 multiply_no_nan floormod xlogy xlog1py xdivy", V, positive(4)),
    *at("math", "pow", positive(4), positive(4, seed=9)),
    *at(
        "math",
        "reduce_sum reduce_mean reduce_prod reduce_max reduce_min reduce_std reduce_variance",
        M,
    ),
    *at("math", "reduce_logsumexp cumsum cumprod", M),
    of("math.l2_normalize", lambda x: tf.math.l2_normalize(x, 1), M),
    of("math.add_n", lambda x, y: tf.math.add_n([x, y]), V, V),
    of("math.polygamma", lambda x: tf.math.polygamma(tf.ones_like(x), x), positive(4)),
    of("math.imag", lambda x, y: tf.math.imag(tf.complex(x, y) ** 2), V, V),
    *(
        of(
            f"math.{name}",
            functools.partial(getattr(tf.math, name), positive(4)),
            positive(4, seed=9),
        )
        for name in ("igamma", "igammac")
    ),
    *(
        of(
            f"math.{name} (shape)",
            lambda a, name=name: getattr(tf.math, name)(a, positive(4)),
            positive(4, seed=9),
            leak="IgammaGradA",
            leak_order=2,
        )
        for name in ("igamma", "igammac")
    ),
    of("math.zeta", lambda x: tf.math.zeta(2 * tf.ones_like(x), x + 1), positive(4)),
    of(
        "math.betainc",
        lambda x: tf.math.betainc(1.5 * tf.ones_like(x), 2 * tf.ones_like(x), x),
        unit(4) ** 2,
    ),
    of("math.top_k", lambda x: tf.math.top_k(x, 2)[0], V),
    of("math.segment_sum", lambda x: tf.math.segment_sum(x, SEGMENTS), M),
    of("math.segment_mean", lambda x: tf.math.segment_mean(x, SEGMENTS), M),
    of("math.segment_max", lambda x: tf.math.segment_max(x, SEGMENTS), M),
    of("math.segment_min", lambda x: tf.math.segment_min(x, SEGMENTS), M),
    of("math.segment_prod", lambda x: tf.math.segment_prod(x, SEGMENTS), M),
    of("math.unsorted_segment_sum", lambda x: tf.math.unsorted_segment_sum(x, [1, 0, 1], 2), M),
    of("math.unsorted_segment_mean", lambda x: tf.math.unsorted_segment_mean(x, [1, 0, 1], 2), M),
    of("math.unsorted_segment_max", lambda x: tf.math.unsorted_segment_max(x, [1, 0, 1], 2), M),
    of("math.unsorted_segment_min", lambda x: tf.math.unsorted_segment_min(x, [1, 0, 1], 2), M),
    of("math.unsorted_segment_prod", lambda x: tf.math.unsorted_segment_prod(x, [1, 0, 1], 2), M),
    of(
        "math.unsorted_segment_sqrt_n",
        lambda x: tf.math.unsorted_segment_sqrt_n(x, [1, 0, 1], 2),
        M,
    ),
    of("norm", tf.norm, V),
    of("clip_by_value", lambda x: tf.clip_by_value(x, -0.3, 0.6), V),
    of("clip_by_norm", lambda x: tf.clip_by_norm(x, 0.5), V),
    of("clip_by_global_norm", lambda x, y: tf.clip_by_global_norm([x, y], 0.5)[0], V, V),
]

NN = [
    *at("nn", "relu relu6 elu selu gelu silu leaky_relu softmax log_softmax crelu l2_loss", V),
    of("nn.conv1d", lambda x, k: tf.nn.conv1d(x, k, 1, "SAME"), (1, 5, 2), (2, 2, 3)),
    of("nn.conv2d", lambda x, k: tf.nn.conv2d(x, k, 2, "SAME"), PLANE, (2, 2, 2, 3)),
    of(
        "nn.conv3d",
        lambda x, k: tf.nn.conv3d(x, k, [1] * 5, "SAME"),
        (1, 3, 3, 3, 1),
        (2, 2, 2, 1, 2),
    ),
    of(
        "nn.conv2d_transpose",
        lambda x, k: tf.nn.conv2d_transpose(x, k, [1, 8, 8, 3], 2),
        (1, 4, 4, 2),
        (2, 2, 3, 2),
    ),
    of(
        "nn.depthwise_conv2d",
        lambda x, k: tf.nn.depthwise_conv2d(x, k, ONES, "SAME"),
        PLANE,
        (2, 2, 2, 1),
    ),
    of("nn.atrous_conv2d", lambda x, k: tf.nn.atrous_conv2d(x, k, 2, "SAME"), PLANE, (2, 2, 2, 3)),
    of("nn.avg_pool2d", lambda x: tf.nn.avg_pool2d(x, 2, 2, "SAME"), PLANE),
    of("nn.max_pool2d", lambda x: tf.nn.max_pool2d(x, 2, 2, "SAME"), spread(*PLANE)),
    of(
        "nn.max_pool2d (NCHW by transposition)",
        lambda x: tf.nn.max_pool2d(tf.transpose(x, [0, 2, 3, 1]), 2, 2, "SAME"),
        spread(1, 2, 6, 6),
    ),
    of("nn.bias_add", tf.nn.bias_add, M, V),
    of(
        "nn.softmax_cross_entropy_with_logits",
        lambda x: tf.nn.softmax_cross_entropy_with_logits(np.eye(3, 4), x),
        M,
    ),
    of(
        "nn.sparse_softmax_cross_entropy_with_logits",
        lambda x: tf.nn.sparse_softmax_cross_entropy_with_logits([1, 0, 2], x),
        M,
    ),
    of(
        "nn.sigmoid_cross_entropy_with_logits",
        lambda x: tf.nn.sigmoid_cross_entropy_with_logits(np.eye(3, 4), x),
        M,
    ),
    of(
        "nn.ctc_loss",
        single(lambda x: tf.nn.ctc_loss(tf.constant([[1, 2]]), x, [2], [4], True, blank_index=0)),
        (4, 1, 3),
        leak="SymbolicGradient",
        leak_order=2,
        **SINGLE,
    ),
    of("nn.embedding_lookup", lambda x: tf.nn.embedding_lookup(x, [[2, 0], [1, 1]]), M),
    of("nn.space_to_batch", lambda x: tf.nn.space_to_batch(x, [2, 2], [[0, 0], [0, 0]]), PLANE),
]


def symmetric(x):
    return (x + tf.linalg.matrix_transpose(x)) / 2


SYMMETRIC = "of a symmetric matrix: TensorFlow's gradient is the symmetric one"
BOUND = "the bound of its loop is not known when it is compiled"
LINALG = [
    *at("linalg", "matmul", M, (4, 2)),
    *at("linalg", "det inv slogdet trace", spd(3)),
    of("linalg.cholesky", lambda x: tf.linalg.cholesky(symmetric(x)), spd(3), note=SYMMETRIC),
    of("linalg.logdet", lambda x: tf.linalg.logdet(symmetric(x)), spd(3), note=SYMMETRIC),
    *at("linalg", "expm", (3, 3), xla_fails=BOUND, orders=LOOP),
    *at("linalg", "sqrtm", spd(3)),
    *at("linalg", "solve", SQUARE, (3, 2)),
    *at("linalg", "cholesky_solve", np.linalg.cholesky(spd(3)), (3, 2)),
    *at("linalg", "triangular_solve", np.tril(SQUARE), (3, 2)),
    *at("linalg", "lstsq", (5, 3), (5, 2)),
    *at("linalg", "pinv", (4, 3)),
    of("linalg.diag", tf.linalg.diag, V),
    of("linalg.diag_part", tf.linalg.diag_part, (3, 3)),
    of("linalg.band_part", lambda x: tf.linalg.band_part(x, 1, 0), (3, 3)),
    of("linalg.set_diag", tf.linalg.set_diag, (3, 3), (3,)),
    of("linalg.eigh", lambda x: tf.linalg.eigh(symmetric(x))[0], spd(3)),
    of("linalg.eigvalsh", lambda x: tf.linalg.eigvalsh(symmetric(x)), spd(3)),
    of("linalg.svd", lambda x: tf.linalg.svd(x, compute_uv=False), M),
    of("linalg.qr", lambda x: tf.linalg.qr(x)[1], (4, 3)),
    of("linalg.norm", lambda x: tf.linalg.norm(x, axis=1), M),
    of("linalg.cross", tf.linalg.cross, (2, 3), (2, 3)),
    of("linalg.einsum", lambda x, y: tf.linalg.einsum("bij,bjk->bik", x, y), T, (2, 4, 2)),
    of(
        "linalg.tridiagonal_solve",
        lambda d, y: tf.linalg.tridiagonal_solve(d, y),
        np.array([[1.0, 1.0, 0.0], [4.0, 5.0, 6.0], [0.0, 1.0, 1.0]]),
        (3,),
    ),
    of(
        "linalg.banded_triangular_solve",
        lambda d, y: tf.linalg.banded_triangular_solve(d, y),
        np.array([[4.0, 5.0, 6.0], [0.0, 1.0, 1.0]]),
        (3, 1),
    ),
]

IMAGE = [
    *at(
        "image",
        "rgb_to_hsv rgb_to_yuv yuv_to_rgb rgb_to_yiq flip_left_right",
        PICTURE,
    ),
    *at("image", "rgb_to_grayscale", PICTURE, **SINGLE),
    *at("image", "per_image_standardization", PICTURE, **CURVED),
    *at("image", "sobel_edges image_gradients total_variation", PICTURE),
    of("image.rot90", tf.image.rot90, PICTURE, orders={"graph": 3, "eager": 1}),
    of("image.adjust_brightness", lambda x: tf.image.adjust_brightness(x, 0.2), PICTURE, **SINGLE),
    of("image.adjust_gamma", lambda x: tf.image.adjust_gamma(x, 1.3), PICTURE, **SINGLE),
    of("image.central_crop", lambda x: tf.image.central_crop(x, 0.5), PICTURE),
    of(
        "image.extract_patches",
        lambda x: tf.image.extract_patches(x, [1, 2, 2, 1], [1, 2, 2, 1], ONES, "SAME"),
        PICTURE,
    ),
    of(
        "image.ssim",
        lambda x: tf.image.ssim(x, image(1, 6, 6, 3, seed=1), 1.0, filter_size=3),
        PICTURE,
        **CURVED,
    ),
    of("image.psnr", lambda x: tf.image.psnr(x, image(1, 6, 6, 3, seed=1), 1.0), PICTURE, **CURVED),
]

SIGNAL = [
    *at("signal", "rfft dct", (8,)),
    of("signal.fft", lambda x, y: tf.signal.fft(tf.complex(x, y)), (8,), (8,)),
    of("signal.ifft", lambda x, y: tf.signal.ifft(tf.complex(x, y)), (8,), (8,)),
    of("signal.irfft", lambda x, y: tf.signal.irfft(tf.complex(x, y)), (5,), (5,)),
    of("signal.fft2d", lambda x, y: tf.signal.fft2d(tf.complex(x, y)), (4, 4), (4, 4)),
    of("signal.rfft2d", tf.signal.rfft2d, (4, 4)),
    of("signal.fft3d", lambda x, y: tf.signal.fft3d(tf.complex(x, y)), (2, 2, 4), (2, 2, 4)),
    of("signal.idct", tf.signal.idct, (8,)),
    of("signal.mdct", lambda x: tf.signal.mdct(x, 8), (24,)),
    of("signal.stft", lambda x: tf.signal.stft(x, 8, 4), (24,)),
    of(
        "signal.inverse_stft",
        lambda x, y: tf.signal.inverse_stft(tf.complex(x, y), 8, 4, window_fn=None),
        (4, 5),
        (4, 5),
    ),
    of("signal.frame", lambda x: tf.signal.frame(x, 4, 2), (8,)),
    of("signal.overlap_and_add", lambda x: tf.signal.overlap_and_add(x, 2), (3, 4)),
    of("signal.mfccs_from_log_mel_spectrograms", tf.signal.mfccs_from_log_mel_spectrograms, (2, 6)),
]

INDICES = tf.constant([[0, 1], [1, 0], [2, 2]], tf.int64)


def sparse(values):
    return tf.SparseTensor(INDICES, values, [3, 3])


SPARSE = [
    of(
        "sparse.sparse_dense_matmul",
        lambda v, d: tf.sparse.sparse_dense_matmul(sparse(v), d),
        (3,),
        (3, 2),
    ),
    of("sparse.to_dense", lambda v: tf.sparse.to_dense(sparse(v)), (3,)),
    of("sparse.reduce_sum", lambda v: tf.sparse.reduce_sum(sparse(v), 0), (3,)),
    of(
        "sparse.add",
        lambda v, w: tf.sparse.add(sparse(v), sparse(w)).values,
        (3,),
        (3,),
        leak="SparseAddGrad",
    ),
    of(
        "sparse.softmax",
        lambda v: tf.sparse.softmax(sparse(v)).values,
        (3,),
        leak="SparseDenseCwiseAdd",
    ),
    of("sparse.reorder", lambda v: tf.sparse.reorder(sparse(v)).values, (3,)),
    of(
        "sparse.concat",
        lambda v: tf.sparse.to_dense(tf.sparse.concat(0, [sparse(v), sparse(v**2)])),
        (3,),
        leak="SparseConcat",
    ),
    of(
        "sparse.slice",
        lambda v: tf.sparse.slice(sparse(v), [0, 0], [2, 2]).values,
        (3,),
        leak="SparseSliceGrad",
    ),
]

ARRAYS = [
    of("gather", lambda x: tf.gather(x, [2, 0, 2], axis=1), M),
    of("gather_nd", lambda x: tf.gather_nd(x, [[2, 1], [0, 3]]), M),
    of("scatter_nd", lambda x: tf.scatter_nd([[1], [3], [1]], x, [5]), (3,)),
    of(
        "tensor_scatter_nd_update",
        lambda x, y: tf.tensor_scatter_nd_update(x, [[0], [2]], y),
        V,
        (2,),
    ),
    of("tensor_scatter_nd_add", lambda x, y: tf.tensor_scatter_nd_add(x, [[0], [0]], y), V, (2,)),
    of("tensor_scatter_nd_max", lambda x, y: tf.tensor_scatter_nd_max(x, [[0], [2]], y), V, (2,)),
    of("boolean_mask", lambda x: tf.boolean_mask(x, [True, False, True, True]), V),
    of("where", lambda x, y: tf.where(x > y, x**2, y), V, V),
    of("sort", tf.sort, V),
    of("reverse_sequence", lambda x: tf.reverse_sequence(x, [2, 3, 1], 1), M),
    of("strided_slice", lambda x: x[:, ::-2], M),
    of("roll", lambda x: tf.roll(x, 1, 0), V),
    of("pad (symmetric)", lambda x: tf.pad(x, [[1, 1], [2, 0]], "SYMMETRIC"), M),
    of("repeat", lambda x: tf.repeat(x, [1, 2, 0, 3]), V),
    of("dynamic_partition", lambda x: tf.dynamic_partition(x, [1, 0, 1, 0], 2), V),
    of("dynamic_stitch", lambda x: tf.dynamic_stitch([[0, 2], [1, 3]], [x[:2], x[2:]]), V),
    of("broadcast_to", lambda x: tf.broadcast_to(x, [2, 4]), V),
    of("tile", lambda x: tf.tile(x, [2, 3]), M),
    of("RaggedTensor", lambda x: tf.reduce_sum(tf.RaggedTensor.from_row_lengths(x, [1, 3]), 1), V),
    of("meshgrid", lambda x, y: tf.meshgrid(x, y), V, (3,)),
    of(
        "cast (through float32)", lambda x: tf.cast(tf.cast(x, tf.float32), tf.float64), V, **SINGLE
    ),
]

# --- control flow ---------------------------------------------------------------------------------


def by_tensor_array(x):
    def body(i, array):
        return i + 1, array.write(i, tf.sin(x[i]) * x[i])

    array = tf.TensorArray(x.dtype, 3, element_shape=[4])
    return tf.while_loop(lambda i, _: i < 3, body, (0, array))[1].stack()


def powers(x):
    return tf.while_loop(
        lambda i, y: i < 3, lambda i, y: (i + 1, tf.sin(y) * y), (0, x), maximum_iterations=3
    )[1]


@tf.function
def nested(x):
    return tf.function(lambda y: tf.sin(y) * y)(x) + x


@tf.function
def by_autograph(x):
    for i in tf.range(2):
        if x[0] > -9.0:
            x = x * tf.sin(x) + tf.cast(i, x.dtype)
    return x


FLOW = [
    of(
        "cond",
        lambda x: tf.cond(x[0] > 0, lambda: tf.sin(x), lambda: x**2),
        V,
    ),
    of("case", lambda x: tf.case([(x[0] > 9, lambda: x)], default=lambda: tf.exp(x)), V),
    of("switch_case", lambda x: tf.switch_case(tf.constant(1), [lambda: x, lambda: tf.sin(x)]), V),
    of("while_loop", powers, V, orders=LOOP),
    of("map_fn", lambda x: tf.map_fn(lambda a: tf.sin(a) * a, x), V, orders=LOOP),
    of("scan", lambda x: tf.scan(lambda c, a: tf.sin(a) * c, x), V, orders=LOOP),
    of("foldl", lambda x: tf.foldl(lambda c, a: tf.sin(a) * c, x), V, orders=LOOP),
    of("vectorized_map", lambda x: tf.vectorized_map(lambda a: tf.sin(a) * a, x), V),
    of("TensorArray", by_tensor_array, M, orders=LOOP, xla_fails=LISTS),
    of("function (nested)", nested, V, fast=True),
    of("function (autograph)", by_autograph, V, orders=LOOP, xla_fails=LISTS),
    of("custom_gradient", linear_rule, V),
    of(
        "custom_gradient (straight through)",
        straight_through,
        V,
        surrogate=lambda x: x,
        note="the transpose of the rule",
    ),
    of(
        "custom_gradient (reversed)",
        reversed_gradient,
        V,
        surrogate=lambda x: -2.0 * x,
        note="the transpose of the rule",
    ),
    of(
        "py_function",
        lambda x: tf.ensure_shape(tf.py_function(tf.sin, [x], x.dtype), [4]),
        V,
        leak="EagerPyFunc",
    ),
]

CASES = [
    *LEAKS,
    *REFUSED,
    *MATH,
    *NN,
    *LINALG,
    *IMAGE,
    *SIGNAL,
    *SPARSE,
    *ARRAYS,
    *FLOW,
]
