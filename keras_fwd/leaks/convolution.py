"""Convolutions in groups: forward kernels for the tangents, backward kernels that exist.

TensorFlow's CPU kernels convolve in groups, but do not run that backward; Keras therefore compiles
the whole convolution with XLA, which is many times slower and keeps its own pullback inside. The
three functions here are each linear in two tensors, and each other's derivatives:

    convolve(x, kernel), pull_input(kernel, c), pull_kernel(x, c)

so that any derivative of any order is one of them. `<c, convolve(x, k)>` is what all of them are
partial derivatives of.
"""

import tensorflow as tf

from keras_fwd.leaks import registry

_ATTRS = ("strides", "padding", "explicit_paddings", "data_format", "dilations")


def conv2d(op, cotangent):
    """Rule for `Conv2D`: TensorFlow's own unless the channels are in groups."""
    x, kernel = op.inputs
    attrs = {name: _plain(op.get_attr(name)) for name in _ATTRS}
    axis = 3 if attrs["data_format"] == "NHWC" else 1
    channels, depth = x.shape[axis], kernel.shape[2]
    if channels is None or depth is None or channels == depth:
        return registry.own_gradient("Conv2D")(op, cotangent)
    pair = _Groups(channels // depth, axis, attrs, tf.shape(x), tf.shape(kernel))
    return pair.pull_input(kernel, cotangent), pair.pull_kernel(x, cotangent)


def _plain(value):
    return value.decode() if isinstance(value, bytes) else value


class _Groups:
    """The three functions for the attributes of one op; `x` and `kernel` have fixed shapes."""

    def __init__(self, groups, axis, attrs, x_shape, kernel_shape):
        self.groups = groups
        self.axis = axis  # of the channels in x and in the outputs; a kernel has them last
        self.attrs = attrs
        self.x_shape = x_shape
        self.kernel_shape = kernel_shape

    def convolve(self, x, kernel):
        """The outputs."""

        @tf.custom_gradient
        def function(x, kernel):
            def gradient(c):
                return self.pull_input(kernel, c), self.pull_kernel(x, c)

            return tf.raw_ops.Conv2D(input=x, filter=kernel, **self.attrs), gradient

        return function(x, kernel)

    def pull_input(self, kernel, cotangent):
        """A cotangent of the outputs, pulled back to `x`."""

        @tf.custom_gradient
        def function(kernel, cotangent):
            def gradient(t):
                return self.pull_kernel(t, cotangent), self.convolve(t, kernel)

            return self._backward_input(kernel, cotangent), gradient

        return function(kernel, cotangent)

    def pull_kernel(self, x, cotangent):
        """A cotangent of the outputs, pulled back to the kernel."""

        @tf.custom_gradient
        def function(x, cotangent):
            def gradient(t):
                return self.pull_input(t, cotangent), self.convolve(x, t)

            return self._backward_kernel(x, cotangent), gradient

        return function(x, cotangent)

    def _backward_input(self, kernel, cotangent):
        if self._depthwise(kernel.shape[2]):
            return tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=self.x_shape,
                filter=tf.reshape(kernel, self._by_channel()),
                out_backprop=cotangent,
                **self.attrs,
            )
        sizes = self._one_group(self.x_shape, self.axis)
        parts = [
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=sizes, filter=k, out_backprop=c, **self.attrs
            )
            for k, c in zip(self._split(kernel, 3), self._split(cotangent), strict=True)
        ]
        return tf.concat(parts, self.axis)

    def _backward_kernel(self, x, cotangent):
        if self._depthwise(x.shape[self.axis] // self.groups):
            pulled = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                input=x, filter_sizes=self._by_channel(), out_backprop=cotangent, **self.attrs
            )
            return tf.reshape(pulled, self.kernel_shape)
        sizes = self._one_group(self.kernel_shape, 3)
        parts = [
            tf.raw_ops.Conv2DBackpropFilter(
                input=x, filter_sizes=sizes, out_backprop=c, **self.attrs
            )
            for x, c in zip(self._split(x), self._split(cotangent), strict=True)
        ]
        return tf.concat(parts, 3)

    def _depthwise(self, depth):
        """Whether TensorFlow's backward kernels for depthwise convolution do the same."""
        height, width = (1, 2) if self.axis == 3 else (2, 3)
        strides, dilations = self.attrs["strides"], self.attrs["dilations"]
        return depth == 1 and strides[height] == strides[width] and set(dilations) == {1}

    def _by_channel(self):
        """The shape of the kernel for depthwise kernels."""
        return tf.concat([self.kernel_shape[:2], [self.groups, -1]], 0)

    def _split(self, tensor, axis=None):
        return tf.split(tensor, self.groups, self.axis if axis is None else axis)

    def _one_group(self, shape, axis):
        part = tf.one_hot(axis, 4, on_value=self.groups, off_value=1, dtype=tf.int32)
        return shape // part
