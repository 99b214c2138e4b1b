"""What stands in for functions of TensorFlow and Keras is right to third order."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import MODES, central_difference, random, relative_error
from support.rule_checks import Row, check_twice

from keras_fwd import hessian, jvp
from keras_fwd._rules import sealing, stand_ins


def normalize(x):
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return tf.tanh((x - mean) / tf.sqrt(variance + 1e-3)) * x


def normalize_v1(x):
    mean, variance = tf.compat.v1.nn.moments(x, [0], keep_dims=True)
    return (x - mean) / tf.sqrt(variance + 1e-3) * x


nested = tf.function(normalize)
compiled = tf.function(normalize, jit_compile=True)
FUNCTIONS = {
    "moments": normalize,
    "moments by their older name": normalize_v1,
    "in a nested function": lambda x: nested(x) * x,
    "in a compiled function": lambda x: compiled(x) * x,
    "in a loop": lambda x: tf.while_loop(
        lambda i, x: i < 2, lambda i, x: (i + 1, normalize(x)), (0, x)
    )[1],
    "hypot": lambda x: keras.ops.hypot(x, tf.reverse(x, [-1])) * x,
    "hypot, broadcast": lambda x: keras.ops.hypot(x, x[:1]) * x,
    "hypot on the diagonal": lambda x: keras.ops.hypot(x, 1.0 * x) * x**3,
    "silu": tf.nn.silu,
    "recompute_grad": tf.recompute_grad(normalize),
    "recompute_grad, inside": lambda x: tf.recompute_grad(normalize)(x) * x,
}


needs_hypot = pytest.mark.skipif(
    not hasattr(keras.ops, "hypot"), reason="the oldest versions of Keras have no hypot"
)


def marks(name, mode):
    slow = mode == "eager" or " a " in name
    return [pytest.mark.slow] * slow + [needs_hypot] * ("hypot" in name)


@pytest.mark.parametrize(
    ("name", "mode"),
    [pytest.param(n, m, marks=marks(n, m)) for m in ("eager", "graph") for n in FUNCTIONS],
)
def test_functions_are_exact_to_third_order(name, mode):
    fn, run = FUNCTIONS[name], MODES[mode]
    x, u = random([3, 4]), random([3, 4], 1)

    def first(x):
        return jvp(fn, x, u)[1]

    def second(x):
        return jvp(first, x, u)[1]

    def energy(x):
        return tf.reduce_sum(second(x) ** 2)

    def slope(x):  # the tape is the user's own, outside of the context
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = energy(x)
        return tf.reduce_sum(tape.gradient(value, x) * u)

    assert relative_error(run(first)(x), central_difference(run(fn), x, u)) < 1e-7
    assert relative_error(run(second)(x), central_difference(run(first), x, u)) < 1e-6
    assert relative_error(run(slope)(x), central_difference(run(energy), x, u)) < 1e-5


@needs_hypot
def test_second_derivative_of_hypot_on_an_axis():
    # d²/dy² √(x² + y²) = 1/x at y = 0, where TensorFlow's own composition gives 0.
    H = hessian(lambda p: keras.ops.hypot(p[0], p[1]), tf.constant([2.0, 0.0], tf.float64))
    np.testing.assert_allclose(H.to_dense(), [[0, 0], [0, 0.5]], atol=1e-12)


@pytest.mark.slow
def test_a_function_that_was_differentiated_before_is_traced_anew():
    # TensorFlow keeps the backward function of the first use, in which the mean is constant.
    normalized = tf.function(normalize)
    x, u = random([3, 4]), random([3, 4], 1)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = normalized(x)
    tape.gradient(y, x)

    def first(x):
        return jvp(normalized, x, u)[1]

    assert relative_error(jvp(first, x, u)[1], central_difference(first, x, u)) < 1e-6


def test_recurrent_layers_run_without_cudnn(monkeypatch):
    # As on a machine with a GPU: Keras asks for the kernel, and takes its own loop if it may not.
    asked = []
    kernel = tf.raw_ops.CudnnRNNV3
    monkeypatch.setattr(tf.raw_ops, "CudnnRNNV3", lambda **kwargs: asked.append(1) or kernel())
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["a GPU"])
    layer = keras.layers.LSTM(3)
    layer.build([2, 4, 3])
    x, u = random([2, 4, 3], dtype="float32"), random([2, 4, 3], 1, "float32")
    _, pushed = tf.function(lambda x: jvp(layer, x, u), autograph=False)(x)
    assert not asked
    # A long step, for single precision.
    expected = tf.stack(central_difference(layer_loop(layer), x, 1000 * u)) / 1000
    assert relative_error(pushed, expected) < 1e-3


def layer_loop(layer):
    def call(x):
        with sealing.sealed():
            return layer(x)

    return call


# --- a case for each function, in under a second --------------------------------------------------


def name_of(holder, attribute):
    """As in `tf.nn.moments`, without the `tf`."""
    module = holder.__name__.removeprefix("tensorflow._api.v2.").removeprefix("keras.src.backend.")
    return f"{module}.{attribute}"


def stand_in_names():
    return {name_of(holder, attribute) for holder, attribute, _ in stand_ins.table()}


def turned(version, **options):
    turn = [[0.7, -0.9, 3.3, 0.8, 0.75, -2.1, 0.01, -0.02]] * 2
    options = {"interpolation": "BILINEAR", "fill_mode": "WRAP", **options}

    def fn(x):  # as an attribute: it is replaced
        op = getattr(tf.raw_ops, f"ImageProjectiveTransformV{version}")
        return op(images=x, transforms=turn, output_shape=[6, 6], **options)

    return fn


@tf.custom_gradient
def cubed(x):
    return x**3, lambda dy: 3 * x**2 * dy


KERNEL = random([3, 2, 2, 6], 7)
IMAGE = (2, 6, 6, 2)
ROWS = {
    "nn.moments": Row("", normalize, (3, 4)),
    "compat.v1.nn.moments": Row("", normalize_v1, (3, 4)),
    "nn.convolution": Row("", lambda x: tf.nn.convolution(x, KERNEL), (2, 5, 6, 2)),
    "nn.silu": Row("", lambda x: tf.nn.silu(x, 1.3), (5,)),
    "nn.swish": Row("", lambda x: tf.nn.swish(x, x[0]), (5,)),
    "image.hsv_to_rgb": Row("", lambda x: tf.image.hsv_to_rgb(x), (1, 2, 2, 3), positive=True),
    "raw_ops.ImageProjectiveTransformV2": Row("", turned(2), IMAGE, single=True, linear=True),
    "raw_ops.ImageProjectiveTransformV3": Row(
        "", turned(3, fill_value=0.3), IMAGE, single=True, linear=True
    ),
    "tensorflow.recompute_grad": Row("", lambda x: tf.recompute_grad(normalize)(x) * x, (3, 4)),
    f"{type(nested).__name__}.__call__": Row("", lambda x: nested(x) * x, (3, 4)),
    "tensorflow.python.ops.gen_image_ops.scale_and_translate": Row(
        "",
        lambda x: tf.image.resize(x, [9, 10], "lanczos3"),
        IMAGE,
        single=True,
        linear=True,
    ),
    "tensorflow.python.ops.custom_gradient._graph_mode_decorator": Row("", cubed, (5,)),
    "tensorflow.numpy.hypot": Row(
        "", lambda x: keras.ops.hypot(x, tf.reverse(x, [-1])) * x, (3, 4)
    ),
    "tensorflow.numpy.inner": Row("", lambda x: keras.ops.inner(x, tf.sin(x)), (3, 4)),
}
KERNELS = ["CudnnRNN", "CudnnRNNV2", "CudnnRNNV3"]  # only refused
EAGER = "tensorflow.python.ops.custom_gradient._eager_mode_decorator"


def called(name, monkeypatch):
    """A list that grows with each call of what stands in for a function."""
    calls, rows = [], stand_ins.table()

    def spying(make):
        def made(original):
            sealed = make(original)

            def spy(*args, **kwargs):
                calls.append(name)
                return sealed(*args, **kwargs)

            return spy

        return made

    spied = [(h, a, spying(make) if name_of(h, a) == name else make) for h, a, make in rows]
    monkeypatch.setattr(stand_ins, "table", lambda: spied)
    return calls


@pytest.mark.parametrize("name", sorted(ROWS.keys() & stand_in_names()))
def test_what_stands_in_for_a_function(name, monkeypatch):
    calls = called(name, monkeypatch)
    check_twice(ROWS[name])
    assert calls, f"nothing calls {name}"


def test_what_stands_in_for_custom_gradients_in_eager_code(monkeypatch):
    calls = called(EAGER, monkeypatch)
    x, u = random([5]), random([5], 1)
    with sealing.sealed(), tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(cubed(x) * u)
    assert relative_error(tape.gradient(y, x), central_difference(cubed, x, u)) < 1e-7
    assert calls


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_kernel_of_cudnn_runs_inside(kernel):
    with sealing.sealed(), pytest.raises(NotImplementedError, match="cuDNN"):
        getattr(tf.raw_ops, kernel)()


def test_every_function_that_is_replaced_has_a_case():
    known = {*ROWS, EAGER, *(f"raw_ops.{kernel}" for kernel in KERNELS)}
    missing = stand_in_names() - known
    assert not missing, f"give them a row in {__name__}.py: {sorted(missing)}"
