"""Resizing of images: linear maps whose transposes TensorFlow does not differentiate.

The pushforward of a linear op is the op itself, so each rule below for the gradient of an op calls
that op, whose own gradient is the first one again: every order is right.
"""

import tensorflow as tf

from keras_fwd._rules.transposes import transposes

ops = tf.raw_ops


def _size(images):
    return tf.shape(images)[1:3]


def nearest_gradient(op, cotangent):
    """Rule for `ResizeNearestNeighborGrad`."""
    resized = ops.ResizeNearestNeighbor(
        images=cotangent, size=_size(op.inputs[0]), **_attrs(op, "align_corners half_pixel_centers")
    )
    return resized, None


def bicubic_gradient(op, cotangent):
    """Rule for `ResizeBicubicGrad`."""
    resized = ops.ResizeBicubic(
        images=cotangent, size=_size(op.inputs[0]), **_attrs(op, "align_corners half_pixel_centers")
    )
    return resized, None


def bilinear(op, cotangent):
    """Rule for `ResizeBilinear`: TensorFlow marks its gradient as not differentiable."""
    images, size = op.inputs[0], _size(cotangent)
    if not images.dtype.is_floating:
        return None, None
    attrs = _attrs(op, "align_corners half_pixel_centers")

    def push(tangent, images, size):
        return ops.ResizeBilinear(images=tangent, size=size, **attrs)

    def pull(cotangent, images, size):
        # In float32 like the op, whatever it is given: XLA's kernel has no other.
        images_ = tf.cast(images, tf.float32)
        pulled = ops.ResizeBilinearGrad(grads=cotangent, original_image=images_, **attrs)
        return tf.cast(pulled, images.dtype)

    return transposes(push, pull, images, size)[1](cotangent), None


def scale_and_translate(op, cotangent):
    """Rule for `ScaleAndTranslate`: TensorFlow's own takes float32 images alone."""
    images, _, scale, translation = op.inputs
    size = _size(cotangent)
    if not images.dtype.is_floating:
        return None, None, None, None
    attrs = _attrs(op, "kernel_type antialias")

    def push(tangent, images, size, scale, translation):
        return ops.ScaleAndTranslate(
            images=tangent, size=size, scale=scale, translation=translation, **attrs
        )

    def pull(cotangent, images, size, scale, translation):
        pulled = ops.ScaleAndTranslateGrad(
            grads=cotangent,
            original_image=tf.cast(images, tf.float32),
            scale=scale,
            translation=translation,
            **attrs,
        )
        return tf.cast(pulled, images.dtype)

    pair = transposes(push, pull, images, size, scale, translation)
    return pair[1](cotangent), None, None, None


def scale_and_translate_function(original):
    """The op as a function, for tapes of the caller: its gradient takes float32 images alone.

    The result is float32 whatever the images are.
    """

    def sealed(images, *args, **kwargs):
        images = tf.convert_to_tensor(images)
        if images.dtype.is_floating:
            images = tf.cast(images, tf.float32)
        return original(images, *args, **kwargs)

    return sealed


def scale_and_translate_gradient(op, cotangent):
    """Rule for `ScaleAndTranslateGrad`."""
    grads, _, scale, translation = op.inputs
    resized = ops.ScaleAndTranslate(
        images=cotangent,
        size=_size(grads),
        scale=scale,
        translation=translation,
        **_attrs(op, "kernel_type antialias"),
    )
    return resized, None, None, None


def area(op, cotangent):
    """Rule for `ResizeArea`: an output pixel is the mean of the input over its rectangle."""
    images, size = op.inputs
    if not images.dtype.is_floating:
        return None, None
    align = bool(op.get_attr("align_corners"))

    def push(tangent, images, size):
        return ops.ResizeArea(images=tangent, size=size, align_corners=align)

    def pull(cotangent, images, size):
        rows, columns = (_shares(tf.shape(images)[axis], size[axis - 1], align) for axis in (1, 2))
        pulled = tf.einsum("byxc,yi,xj->bijc", cotangent, rows, columns)
        return tf.cast(pulled, images.dtype)

    return transposes(push, pull, images, size)[1](cotangent), None


def _shares(pixels, cells, align):
    """`[cells, pixels]`: the share of each cell that lies in each pixel, along one axis."""
    # With aligned corners the last cells, not the edges, fall together, unless there is only one.
    corners = tf.cast(align, tf.int32) * tf.cast(cells > 1, tf.int32)
    scale = tf.cast(pixels - corners, tf.float32) / tf.cast(cells - corners, tf.float32)
    start = tf.range(tf.cast(cells, tf.float32))[:, None] * scale
    beyond = tf.cast(tf.math.ceil(scale), tf.int32)  # past the edge, the last pixel counts
    left = tf.range(tf.cast(pixels + beyond, tf.float32))
    overlap = tf.minimum(left + 1, start + scale) - tf.maximum(left, start)
    shares = tf.maximum(overlap, 0.0) / scale
    inside, outside = shares[:, :pixels], shares[:, pixels:]
    last = tf.one_hot(pixels - 1, pixels)
    return inside + tf.reduce_sum(outside, axis=1, keepdims=True) * last


def _attrs(op, names):
    values = {name: op.get_attr(name) for name in names.split()}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}
