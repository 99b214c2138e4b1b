"""Which functions of TensorFlow and Keras have a replacement, and how it is put in their place.

Private names used here: where TensorFlow wraps `tf.custom_gradient` functions, the type of a
`tf.function`, the op that `tf.image.resize` calls, and Keras' own module of NumPy functions. Each
is replaced only where it is found; without them the leak is still raised as a `LeakError`.
"""

import functools
import sys

import tensorflow as tf

from keras_fwd._rules import color, convolution, elementwise, functions, projection, resizing

_TRANSFORMS = ("ImageProjectiveTransformV2", "ImageProjectiveTransformV3")


def table():
    """Rows: the object that holds a function, its attribute, what makes the replacement of it."""
    rows = [
        (tf.nn, "moments", functions.moments),
        (tf.compat.v1.nn, "moments", functions.moments_v1),
        (tf.nn, "convolution", convolution.convolution),
        (tf.nn, "silu", elementwise.silu),
        (tf.nn, "swish", elementwise.silu),
        (tf.image, "hsv_to_rgb", color.hsv_to_rgb),
        (tf.raw_ops, "CudnnRNN", functions.cudnn),
        (tf.raw_ops, "CudnnRNNV2", functions.cudnn),
        (tf.raw_ops, "CudnnRNNV3", functions.cudnn),
        *((tf.raw_ops, op, projection.projective_transform_function(op)) for op in _TRANSFORMS),
        (tf, "recompute_grad", functions.recompute),
        (type(tf.function(lambda: None)), "__call__", functions.nested_function),
    ]
    custom, arrays = "tensorflow.python.ops.custom_gradient", functions.keras_numpy()
    private = [
        (
            "tensorflow.python.ops.gen_image_ops",
            "scale_and_translate",
            resizing.scale_and_translate_function,
        ),
        (custom, "_graph_mode_decorator", functions.custom_gradient),
        (custom, "_eager_mode_decorator", functions.custom_gradient),
    ]
    rows += [(sys.modules.get(name), attribute, make) for name, attribute, make in private]
    rows += [(arrays, "hypot", functions.hypot), (arrays, "inner", functions.inner)]
    # What a release does not have has nothing to be mended.
    return [row for row in rows if hasattr(row[0], row[1])]


def stand_in(rows, active):
    """Put the replacements in place, for wherever `active()` is true; returns what undoes it."""
    own = [(holder, name, getattr(holder, name)) for holder, name, _ in rows]
    for (holder, name, function), (_, _, make) in zip(own, rows, strict=True):
        setattr(holder, name, _either(_replacement(make, function), function, active))

    def undo():
        for holder, name, function in own:
            setattr(holder, name, function)

    return undo


# Made once: what a replacement keeps, such as traces of nested functions, serves again.
@functools.cache
def _replacement(make, function):
    return make(function)


def _either(replacement, function, active):
    @functools.wraps(function)
    def either(*args, **kwargs):
        return (replacement if active() else function)(*args, **kwargs)

    return either
