"""What each position of a convolution sees: its inputs as rows of a matrix product."""

import itertools

import tensorflow as tf


class Window:
    """The geometry of a convolution op, in any number of dimensions.

    Attributes:
        size: Of the kernel, an entry for each spatial axis.
        groups: Of channels that do not mix; the channels themselves, if depthwise.
        depth: Input channels in a group.
        columns: Output channels in a group.
    """

    def __init__(self, op):
        x, kernel = op.inputs
        self._first = _text(op.get_attr("data_format")).startswith("NC")
        rank = kernel.shape.rank
        self._axes = slice(2, rank) if self._first else slice(1, rank - 1)
        self.size = kernel.shape[:-2].as_list()
        self._strides = op.get_attr("strides")[self._axes]
        self._dilations = op.get_attr("dilations")[self._axes]
        self._padding = _text(op.get_attr("padding"))
        explicit = op.get_attr("explicit_paddings") if self._padding == "EXPLICIT" else []
        pairs = list(zip(explicit[::2], explicit[1::2], strict=True))
        self._explicit = pairs[self._axes]
        inner, outer = kernel.shape[-2:]
        if op.type == "DepthwiseConv2dNative":
            self.groups, self.depth, self.columns = inner, 1, outer
        else:
            channels = x.shape[1 if self._first else -1]
            self.groups = channels // inner
            self.depth, self.columns = inner, outer // self.groups

    def channels_last(self, tensor):
        """A tensor in the op's own layout with its channels on the last axis."""
        if not self._first:
            return tensor
        rank = tensor.shape.rank
        return tf.transpose(tensor, [0, *range(2, rank), 1])

    def rows(self, x):
        """`[examples, *positions, groups · size · depth]`: group by group, window by window."""
        x = self.channels_last(x)
        lengths = tf.unstack(tf.shape(x)[1:-1])
        along = [self._along(axis, length) for axis, length in enumerate(lengths)]
        x = tf.pad(x, [[0, 0], *[[before, after] for before, after, _ in along], [0, 0]])
        seen = []
        for offsets in itertools.product(*map(range, self.size)):
            cut = [slice(None)]
            steps = zip(offsets, self._dilations, self._strides, along, strict=True)
            for offset, dilation, stride, (_, _, count) in steps:
                start = offset * dilation
                cut.append(slice(start, start + (count - 1) * stride + 1, stride))
            seen.append(x[tuple(cut)])
        stacked = tf.stack(seen, axis=-2)  # [examples, *positions, window, channels]
        shape = tf.shape(stacked)[:-2]
        by_group = [len(seen), self.groups, self.depth]
        split = tf.reshape(stacked, tf.concat([shape, by_group], 0))
        last = len(self.size) + 1  # the axis of the window
        # Groups before the window: each group's rows lie together.
        order = [*range(last), last + 1, last, last + 2]
        width = self.groups * len(seen) * self.depth
        return tf.reshape(tf.transpose(split, order), tf.concat([shape, [width]], 0))

    def _along(self, axis, length):
        """Padding before and after, and the number of positions, along one spatial axis."""
        reach = (self.size[axis] - 1) * self._dilations[axis] + 1
        stride = self._strides[axis]
        if self._padding == "SAME":
            count = -(-length // stride)
            total = tf.maximum((count - 1) * stride + reach - length, 0)
            # TensorFlow puts the odd one after.
            return total // 2, total - total // 2, count
        before, after = self._explicit[axis] if self._explicit else (0, 0)
        return before, after, (length + before + after - reach) // stride + 1


def _text(value):
    return value.decode() if isinstance(value, bytes) else value
