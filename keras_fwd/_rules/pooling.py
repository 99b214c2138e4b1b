"""Pooling and morphology: the tangent of what was chosen, or the mean over the same regions."""

import functools

import tensorflow as tf

from keras_fwd._graphs import registry
from keras_fwd._rules.transposes import transposes

ops = tf.raw_ops


def argmax_gradient(op, cotangent):
    """Rule for `MaxPoolGradWithArgmax`: the components at the maxima."""
    x, _, argmax = op.inputs
    indices = tf.cast(argmax, tf.int64)
    if not op.get_attr("include_batch_in_index"):
        batch = tf.shape(x, tf.int64)[0]
        image = tf.size(x, tf.int64) // batch
        indices += tf.reshape(tf.range(batch) * image, [-1, 1, 1, 1])
    return None, tf.gather(tf.reshape(cotangent, [-1]), indices), None


def fractional_max_gradient(op, cotangent):
    """Rule for `FractionalMaxPoolGrad`: the components at the first maximum of each region."""
    x, _, _, rows, columns = op.inputs
    overlapping = op.get_attr("overlapping")
    values, inside = _regions(x, rows, columns, overlapping)
    # Places past the end of a smaller region must not win.
    lowest = tf.where(inside, values, values.dtype.min)
    chosen = tf.one_hot(tf.argmax(lowest, axis=-1), tf.shape(values)[-1], dtype=x.dtype)
    tangents, _ = _regions(cotangent, rows, columns, overlapping)
    return None, None, tf.reduce_sum(chosen * tangents, axis=-1), None, None


def fractional_average_gradient(op, cotangent):
    """Rule for `FractionalAvgPoolGrad`: the mean over each region."""
    _, _, rows, columns = op.inputs
    tangents, inside = _regions(cotangent, rows, columns, op.get_attr("overlapping"))
    weights = tf.cast(inside, cotangent.dtype)
    total = tf.reduce_sum(weights * tangents, axis=-1)
    return None, total / tf.reduce_sum(weights, axis=-1), None, None


def _regions(x, rows, columns, overlapping):
    """`[batch, rows, columns, channels, place in the region]`, and which places are inside."""
    (row, row_inside), (column, column_inside) = (
        _places(sequence, size, overlapping)
        for sequence, size in ((rows, tf.shape(x)[1]), (columns, tf.shape(x)[2]))
    )
    values = tf.gather(tf.gather(x, row, axis=1), column, axis=3)  # [batch, i, k, j, l, channels]
    values = tf.transpose(values, [0, 1, 3, 5, 2, 4])
    inside = row_inside[:, None, None, :, None] & column_inside[None, :, None, None, :]
    flat = tf.concat([tf.shape(values)[:4], [-1]], axis=0)
    inside = tf.broadcast_to(inside, tf.shape(values)[1:])
    return tf.reshape(values, flat), tf.reshape(inside, tf.concat([[1], flat[1:]], axis=0))


def _places(sequence, size, overlapping):
    """`[cells, places]`: the indices along one axis, and which of them are in the cell."""
    # TensorFlow infers one entry too few for the sequence: go by what it is when it runs.
    sequence = ops.PlaceholderWithDefault(input=sequence, shape=[None])
    sequence = tf.cast(sequence, tf.int32)
    start, end = sequence[:-1], sequence[1:]
    if overlapping:  # a cell reaches one further, to where the next one begins
        end = tf.minimum(end + 1, size)
    places = start[:, None] + tf.range(tf.reduce_max(end - start))
    return tf.minimum(places, size - 1), places < end[:, None]


def dilation_input_gradient(op, cotangent):
    """Rule for `Dilation2DBackpropInput`: the components at the maximum of each window."""
    x, kernel, _ = op.inputs
    chosen = _chosen(op, x, kernel)
    return None, None, tf.reduce_sum(chosen * _patches(op, cotangent, kernel), axis=-2)


def dilation_filter_gradient(op, cotangent):
    """Rule for `Dilation2DBackpropFilter`: the components at the maximum of each window."""
    x, kernel, _ = op.inputs
    components = tf.reshape(cotangent, [-1, tf.shape(kernel)[-1]])
    return None, None, tf.reduce_sum(_chosen(op, x, kernel) * components, axis=-2)


def _chosen(op, x, kernel):
    """`[batch, rows, columns, place in the window, channels]`: one at the maximum, else zero."""
    inside = _patches(op, tf.ones_like(x), kernel) > 0
    sums = _patches(op, x, kernel) + tf.reshape(kernel, [-1, tf.shape(kernel)[-1]])
    sums = tf.where(inside, sums, sums.dtype.min)
    places = tf.shape(sums)[3]
    return tf.one_hot(tf.argmax(sums, axis=3), places, axis=3, dtype=x.dtype)


def _patches(op, x, kernel):
    """`[batch, rows, columns, place in the window, channels]`, zero outside of the image."""
    height, width, channels = (kernel.shape[i] or tf.shape(kernel)[i] for i in range(3))
    patches = ops.ExtractImagePatches(
        images=x,
        ksizes=[1, height, width, 1],
        strides=op.get_attr("strides"),
        rates=op.get_attr("rates"),
        padding=op.get_attr("padding"),
    )
    shape = tf.concat([tf.shape(patches)[:3], [height * width, channels]], axis=0)
    return tf.reshape(patches, shape)


# Max pooling: the tangent at the first maximum of each window.
#
# TensorFlow's kernels for that, `MaxPoolGradGrad` and its transpose, take ten forward passes and
# more on a CPU, and break ties each in its own way. A comparison of the strided slices of the input
# takes one when it is compiled, and its transpose two.


def max_pool(op_type):
    """Rule for `MaxPool` or `MaxPool3D`, in any layout that has an axis for each size."""

    def rule(op, cotangent):
        x, y = op.inputs[0], op.outputs[0]
        window, strides = tuple(op.get_attr("ksize")), tuple(op.get_attr("strides"))
        if len(window) != x.shape.rank:
            return registry.own_gradient(op_type)(op, cotangent)
        explicit = op.get_attr("padding") == b"EXPLICIT"
        before = tuple(op.get_attr("explicit_paddings")[::2]) if explicit else None
        select, spread = _compiled(window, strides, before, tuple(x.shape), x.dtype)

        def push(tangent, x, y):
            return tf.ensure_shape(select(tangent, x, y), y.shape)

        def pull(cotangent, x, y):
            return tf.ensure_shape(spread(cotangent, x, y), x.shape)

        return transposes(push, pull, x, y)[1](cotangent)

    return rule


@functools.lru_cache(maxsize=512)
def _compiled(window, strides, before, shape, dtype):
    """Both directions, for one shape: none is traced twice, and eager calls find it compiled.

    `before` is the padding at the start of each axis, or `None` for "SAME" and "VALID".
    """
    # Only keys of the cache: one function for each is never traced twice.
    del shape, dtype

    def select(tangent, x, y):
        # Along one axis after the other, the last one first: of equal values the first in row-major
        # order stays, as in TensorFlow.
        for axis in reversed(range(len(window))):
            if window[axis] > 1 or strides[axis] > 1:
                last = (tf.shape(y)[axis] - 1) * strides[axis]  # where the last window starts
                padding = tf.maximum(last + window[axis] - tf.shape(x)[axis], 0)
                start = padding // 2 if before is None else before[axis]
                pad = start, tf.maximum(padding - start, 0)
                places = [slice(i, last + i + 1, strides[axis]) for i in range(window[axis])]
                values = _along(axis, x, pad, -float("inf"), places)
                tangents = _along(axis, tangent, pad, 0.0, places)
                x, tangent = functools.reduce(_larger, zip(values, tangents, strict=True))
        return tangent

    def spread(cotangent, x, y):
        zeros = tf.zeros_like(x)
        return tf.gradients(select(zeros, x, y), zeros, cotangent)[0]

    return [tf.function(f, jit_compile=True, autograph=False) for f in (select, spread)]


def _along(axis, tensor, pad, value, places):
    """The slices of a padded tensor along one axis."""
    paddings = tf.pad([pad], [[axis, len(tensor.shape) - axis - 1], [0, 0]])
    tensor = tf.pad(tensor, paddings, constant_values=tf.constant(value, tensor.dtype))
    return [tensor[(*[slice(None)] * axis, place)] for place in places]


def _larger(best, candidate):
    """The larger value and its tangent; of equal ones the first."""
    larger = candidate[0] > best[0]
    return [tf.where(larger, c, b) for b, c in zip(best, candidate, strict=True)]
