"""Cropping of images at boxes: rules for the two gradients of `CropAndResize`.

A pixel of a crop is the bilinear interpolation of four pixels of the image around a point that is
an affine function of the corners of the box.
"""

import dataclasses

import tensorflow as tf

ops = tf.raw_ops


def image_gradient(op, cotangent):
    """Rule for `CropAndResizeGradImage`, by the cotangents and by the boxes."""
    grads, boxes, box_ind, _ = op.inputs
    method = op.get_attr("method").decode()
    cropped = ops.CropAndResize(
        image=cotangent,
        boxes=boxes,
        box_ind=box_ind,
        crop_size=tf.shape(grads)[1:3],
        method=method,
    )
    by_boxes = None
    if method == "bilinear":
        by_boxes = ops.CropAndResizeGradBoxes(
            grads=grads, image=cotangent, boxes=boxes, box_ind=box_ind, method=method
        )
    return cropped, by_boxes, None, None


def boxes_gradient(op, cotangent):
    """Rule for `CropAndResizeGradBoxes`, of which there is a bilinear one only.

    Its product with a tangent of the boxes, which the cotangent is, moves the points and with them
    the crop: `push` is that movement, and the gradient by the cotangents.
    """
    grads, image, boxes, box_ind = op.inputs
    points = _points(tf.shape(image), boxes, tf.shape(grads)[1:3])
    corners = _Corners(tf.cast(image, grads.dtype), box_ind, points)
    move_y, move_x = points.tangent(cotangent)
    push = corners.inside * (move_y * corners.slope_y() + move_x * corners.slope_x())
    grads = grads * corners.inside
    by_image = tf.cast(corners.scatter_slopes(grads, move_y, move_x), image.dtype)
    mixed = tf.reduce_sum(grads * corners.twist(), axis=-1)
    by_boxes = points.pull(mixed * move_x[..., 0], mixed * move_y[..., 0])
    return push, by_image, by_boxes, None


@dataclasses.dataclass(frozen=True)
class _Axis:
    """The points along one axis: `position = (1 - share) · start + share · end`, in pixels."""

    position: tf.Tensor  # [boxes, points]
    share: tf.Tensor  # [points]
    last: tf.Tensor  # the last pixel, a scalar

    @classmethod
    def at(cls, pixels, start, end, points):
        last = tf.cast(pixels - 1, start.dtype)
        steps = tf.range(tf.cast(points, start.dtype))
        # A single point lies in the middle of the box.
        share = tf.where(
            points > 1, steps / tf.cast(tf.maximum(points - 1, 1), start.dtype), steps + 0.5
        )
        return cls(last * _between(start, end, share), share, last)

    def tangent(self, start, end):
        return self.last * _between(start, end, self.share)

    def pull(self, cotangent):
        """Sums over `[boxes, points]`, for the start and the end of each box."""
        return [
            self.last * tf.linalg.matvec(cotangent, share) for share in (1 - self.share, self.share)
        ]

    def cells(self):
        """The pixels before and after each point, how far it is between them, and if inside."""
        inside = tf.cast((self.position >= 0) & (self.position <= self.last), self.position.dtype)
        here = tf.clip_by_value(self.position, 0.0, self.last)
        before, after = tf.floor(here), tf.math.ceil(here)
        return tf.cast(before, tf.int32), tf.cast(after, tf.int32), self.position - before, inside


def _between(start, end, share):
    return (1 - share) * start[:, None] + share * end[:, None]


@dataclasses.dataclass(frozen=True)
class _Points:
    y: _Axis
    x: _Axis

    def tangent(self, boxes):
        """How far a tangent of the boxes moves each point, as `[boxes, y, 1, 1]` and so on."""
        y1, x1, y2, x2 = tf.unstack(boxes, axis=1)
        move_y, move_x = self.y.tangent(y1, y2), self.x.tangent(x1, x2)
        return move_y[:, :, None, None], move_x[:, None, :, None]

    def pull(self, by_y, by_x):
        """Its transpose, of two tensors `[boxes, y, x]`."""
        y1, y2 = self.y.pull(tf.reduce_sum(by_y, axis=2))
        x1, x2 = self.x.pull(tf.reduce_sum(by_x, axis=1))
        return tf.stack([y1, x1, y2, x2], axis=1)


def _points(image_shape, boxes, crop_size):
    y1, x1, y2, x2 = tf.unstack(boxes, axis=1)
    y = _Axis.at(image_shape[1], y1, y2, crop_size[0])
    return _Points(y, _Axis.at(image_shape[2], x1, x2, crop_size[1]))


class _Corners:
    """The four pixels around each point, `[boxes, y, x, channels]` each."""

    def __init__(self, image, box_ind, points):
        top, bottom, y, inside_y = points.y.cells()
        left, right, x, inside_x = points.x.cells()
        self.y, self.x = y[:, :, None, None], x[:, None, :, None]
        self.inside = inside_y[:, :, None, None] * inside_x[:, None, :, None]
        self.indices = [
            _indices(box_ind, rows, columns) for rows in (top, bottom) for columns in (left, right)
        ]
        self.pixels = [tf.gather_nd(image, i) for i in self.indices]
        self.shape = tf.shape(image)

    def slope_y(self):
        top_left, top_right, bottom_left, bottom_right = self.pixels
        return (1 - self.x) * (bottom_left - top_left) + self.x * (bottom_right - top_right)

    def slope_x(self):
        top_left, top_right, bottom_left, bottom_right = self.pixels
        return (1 - self.y) * (top_right - top_left) + self.y * (bottom_right - bottom_left)

    def twist(self):
        """The derivative of one slope along the other axis."""
        top_left, top_right, bottom_left, bottom_right = self.pixels
        return bottom_right - top_right - bottom_left + top_left

    def scatter_slopes(self, grads, move_y, move_x):
        """The transpose of `move_y * slope_y() + move_x * slope_x()` in the image."""
        along_y = [-move_y * (1 - self.x), -move_y * self.x]
        along_x = [-move_x * (1 - self.y), -move_x * self.y]
        weights = [
            along_y[0] + along_x[0],
            along_y[1] - along_x[0],
            along_x[1] - along_y[0],
            -along_y[1] - along_x[1],
        ]
        pairs = zip(self.indices, weights, strict=True)
        return tf.add_n([tf.scatter_nd(i, grads * w, self.shape) for i, w in pairs])


def _indices(box_ind, rows, columns):
    """`[boxes, y, x, 3]`: example, row and column."""
    shape = [tf.shape(rows)[0], tf.shape(rows)[1], tf.shape(columns)[1]]
    parts = [box_ind[:, None, None], rows[:, :, None], columns[:, None, :]]
    return tf.stack([tf.broadcast_to(part, shape) for part in parts], axis=-1)
