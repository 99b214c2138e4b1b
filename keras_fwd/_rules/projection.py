"""Projective transforms of images: rotations, shears, shifts, zooms.

TensorFlow's gradient is the transform by the inverse matrix, an approximation of the transpose
that is off by a tenth or more. Here each pixel goes back to where it was read from.
"""

import tensorflow as tf

from keras_fwd._rules.transposes import local, transposes


def projective_transform(op_type):
    """Rule for `ImageProjectiveTransformV2` or `V3`, by the images."""

    def rule(op, cotangent):
        attrs = {name: _plain(op.get_attr(name)) for name in ("interpolation", "fill_mode")}
        pulled = _pulled(op_type, *op.inputs[:2], cotangent, **attrs)
        return [pulled] + [None] * (len(op.inputs) - 1)

    return rule


def projective_transform_function(op_type):
    """The same as a function, for tapes of the caller around derivatives, where no rule holds."""

    def make(original):
        def sealed(images, transforms, interpolation, fill_mode="CONSTANT", **options):
            attrs = {"interpolation": interpolation, "fill_mode": fill_mode}

            @tf.custom_gradient
            def function(images):
                def gradient(cotangent):
                    return _pulled(op_type, *local([images, transforms]), cotangent, **attrs)

                return original(images=images, transforms=transforms, **attrs, **options), gradient

            images, transforms = tf.convert_to_tensor(images), tf.convert_to_tensor(transforms)
            return function(images)

        return sealed

    return make


def _pulled(op_type, images, transforms, cotangent, **attrs):
    def push(tangent, images, transforms, size):
        # Outside, a tangent is zero whatever value the op fills in.
        extra = {"fill_value": 0.0} if op_type.endswith("V3") else {}
        return getattr(tf.raw_ops, op_type)(
            images=tangent, transforms=transforms, output_shape=size, **attrs, **extra
        )

    def pull(cotangent, images, transforms, size):
        return _scatter(cotangent, tf.shape(images), transforms, **attrs)

    size = tf.shape(cotangent)[1:3]
    return transposes(push, pull, images, transforms, size)[1](cotangent)


def _plain(value):
    return value.decode() if isinstance(value, bytes) else value


def _scatter(cotangent, shape, transforms, interpolation, fill_mode):
    """Every component of the cotangent added to the pixels it was read from, by their weights."""
    batch, height, width, channels = tf.unstack(shape)
    x, y, inside = _sources(cotangent, transforms)
    x, y = _mapped(x, width, fill_mode), _mapped(y, height, fill_mode)
    pulled = tf.zeros([batch * height * width, channels], cotangent.dtype)
    for column, row, weight in _corners(x, y, interpolation):
        valid = inside & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        weight = tf.cast(tf.where(valid, weight, 0.0), cotangent.dtype)
        index = (tf.range(batch)[:, None, None] * height + row) * width + column
        # Somewhere that exists; the weight there is zero.
        index = tf.where(valid, index, 0)
        parts = tf.reshape(cotangent * weight[..., None], [-1, channels])
        index = tf.reshape(tf.broadcast_to(index, tf.shape(cotangent)[:3]), [-1])
        pulled += tf.math.unsorted_segment_sum(parts, index, batch * height * width)
    return tf.reshape(pulled, shape)


def _sources(cotangent, transforms):
    """`[batch, rows, columns]`: the coordinates that each output pixel was read from."""
    rows, columns = tf.shape(cotangent)[1], tf.shape(cotangent)[2]
    y = tf.range(tf.cast(rows, tf.float32))[None, :, None]
    x = tf.range(tf.cast(columns, tf.float32))[None, None, :]
    a = [entry[:, None, None] for entry in tf.unstack(transforms, 8, axis=-1)]
    k = a[6] * x + a[7] * y + 1.0
    # Points at infinity: the op fills them.
    inside = tf.broadcast_to(k != 0.0, tf.shape(k))
    k = tf.where(inside, k, 1.0)
    return (a[0] * x + a[1] * y + a[2]) / k, (a[3] * x + a[4] * y + a[5]) / k, inside


def _mapped(at, size, fill_mode):
    """Coordinates outside of the image, as the op takes them back into it."""
    n = tf.cast(size, tf.float32)
    if fill_mode == "CONSTANT":
        return at
    if fill_mode == "REFLECT":
        period = 2.0 * n
        below = at + tf.where(at < -period, period * tf.floor(-at / period), 0.0)
        below = tf.where(below < -n, below + period, -below - 1.0)
        above = at - period * tf.floor(at / period)
        above = tf.where(above >= n, period - above - 1.0, above)
        at = tf.where(at < 0, below, tf.where(at > n - 1, above, at))
    elif fill_mode == "WRAP":
        below = at + n * (tf.floor(-at / (n - 1.0)) + 1.0)
        above = at - n * tf.floor(at / (n - 1.0))
        at = tf.where(at < 0, below, tf.where(at > n - 1, above, at))
        at = tf.where(n > 1, at, 0.0)
    return tf.clip_by_value(at, 0.0, n - 1.0)


def _corners(x, y, interpolation):
    """`(column, row, weight)` of the pixels that a coordinate reads."""
    if interpolation == "NEAREST":
        yield tf.cast(tf.round(x), tf.int32), tf.cast(tf.round(y), tf.int32), tf.ones_like(x + y)
        return
    left, top = tf.floor(x), tf.floor(y)
    for column, across in ((left, left + 1.0 - x), (left + 1.0, x - left)):
        for row, down in ((top, top + 1.0 - y), (top + 1.0, y - top)):
            yield tf.cast(column, tf.int32), tf.cast(row, tf.int32), across * down
