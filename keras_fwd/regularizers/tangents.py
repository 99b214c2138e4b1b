"""Tangents of images: how each pixel changes when the image is shifted, rotated or scaled."""

import tensorflow as tf

from keras_fwd._spaces import given, nest
from keras_fwd.errors import StructureError


def image_gradients(images):
    """`(along rows, along columns)`: central differences of images, in values per pixel.

    Args:
        images: `[batch, height, width]` or `[batch, height, width, channels]`.
    """

    def difference(axis):
        padding = [[0, 0]] * images.shape.rank
        padding[axis] = [1, 1]
        padded = tf.pad(images, padding, "SYMMETRIC")
        begin, size = [0] * images.shape.rank, [-1] * images.shape.rank
        size[axis] = tf.shape(images)[axis]
        before = tf.slice(padded, begin, size)
        begin[axis] = 2
        return (tf.slice(padded, begin, size) - before) / 2

    return difference(1), difference(2)


def _positions(images):
    """Distances from the center in pixels, along rows and along columns."""

    def distance(axis):
        count = tf.shape(images)[axis]
        places = tf.cast(tf.range(count), images.dtype)
        shape = [1] * images.shape.rank
        shape[axis] = -1
        return tf.reshape(places - tf.cast(count - 1, images.dtype) / 2, shape)

    return distance(1), distance(2)


def shift(images):
    """By one pixel: two tangents, down and to the right, `[2, *images.shape]`."""
    down, right = image_gradients(images)
    return -tf.stack([down, right])


def rotation(images):
    """By one radian about the center, counter-clockwise as displayed: `[1, *images.shape]`."""
    down, right = image_gradients(images)
    y, x = _positions(images)
    # The pixel at (y, x) shows what was at (y, x) turned back: it came from (y + θ x, x − θ y).
    return (x * down - y * right)[None]


def scale(images):
    """Enlarged about the center by a factor of e, in the small: `[1, *images.shape]`."""
    down, right = image_gradients(images)
    y, x = _positions(images)
    return -(y * down + x * right)[None]


TANGENTS = {"shift": shift, "rotation": rotation, "scale": scale}


def of_images(call, name, inputs):
    """The built-in tangents of that name: nest like the inputs, one more axis in front.

    Raises:
        StructureError: The inputs are not one tensor of images.
    """
    leaves = nest.flatten(inputs)
    if len(leaves) != 1 or leaves[0].shape.rank not in (3, 4):
        raise StructureError(
            f"{call}: directions={name!r} needs one input of images, [batch, height, width] or "
            f"[batch, height, width, channels]. Received: {given.describe(inputs)}. For inputs of "
            "another form give a function from a batch to its directions."
        )
    return nest.pack(inputs, [TANGENTS[name](leaves[0])])
