"""Pooling and morphology: the tangent of what was chosen, or the mean over the same regions."""

import tensorflow as tf

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
