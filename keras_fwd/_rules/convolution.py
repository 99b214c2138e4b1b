"""Convolutions in groups: forward kernels for the tangents, backward kernels that exist.

TensorFlow's CPU kernels convolve in groups, but do not run that backward; Keras therefore compiles
the whole convolution with XLA, which is many times slower and keeps its own pullback inside. The
three functions here are each linear in two tensors, and each other's derivatives:

    convolve(x, kernel), pull_input(kernel, c), pull_kernel(x, c)

so that any derivative of any order is one of them. `<c, convolve(x, k)>` is what all of them are
partial derivatives of.
"""

import copy

import tensorflow as tf

from keras_fwd._graphs import registry
from keras_fwd._rules.transposes import local

_ATTRS = ("strides", "padding", "explicit_paddings", "data_format", "dilations")


def conv2d(op, cotangent):
    """Rule for `Conv2D`: TensorFlow's own unless the channels are in groups.

    It stays with a dilation, which `tf.nn.convolution` turns into smaller images.
    """
    x, kernel = op.inputs
    attrs = {name: _plain(op.get_attr(name)) for name in _ATTRS}
    axis = 3 if attrs["data_format"] == "NHWC" else 1
    channels, depth = x.shape[axis], kernel.shape[2]
    if channels is None or depth in (None, channels) or set(attrs["dilations"]) != {1}:
        return registry.own_gradient("Conv2D")(op, cotangent)
    pair = _Groups(attrs, axis, x, kernel)
    return pair.pull_input(kernel, cotangent), pair.pull_kernel(x, cotangent)


def convolution(original):
    """`tf.nn.convolution` that can be differentiated for groups of channels in two dimensions.

    A tape of the user's own asks TensorFlow for the backward kernels of the op, outside of the
    context in which the rule holds.
    """

    def sealed(input, filters, strides=None, padding="VALID", data_format=None, dilations=None):
        x, kernel = tf.convert_to_tensor(input), tf.convert_to_tensor(filters)
        data_format = data_format or "NHWC"
        axis = 1 if data_format.startswith("NC") else -1
        depth = kernel.shape[-2]
        plain = kernel.shape.rank != 4 or x.shape[axis] in (None, depth) or depth is None
        if plain or dilations not in (None, 1, [1, 1], (1, 1)):
            return original(x, kernel, strides, padding, data_format, dilations)

        def along(steps):  # one number, or one a spatial axis
            steps = [1] if steps is None else [steps] if isinstance(steps, int) else list(steps)
            steps = steps * 2 if len(steps) == 1 else steps
            return [1, *steps, 1] if axis == -1 else [1, 1, *steps]

        attrs = {
            "strides": along(strides),
            "padding": padding.upper(),
            "explicit_paddings": [],
            "data_format": data_format,
            "dilations": [1, 1, 1, 1],
        }
        return _Groups(attrs, axis % 4, x, kernel).convolve(x, kernel)

    return sealed


def _plain(value):
    return value.decode() if isinstance(value, bytes) else value


class _Groups:
    """The three functions for the attributes of one op; `x` and `kernel` have fixed shapes."""

    def __init__(self, attrs, axis, x, kernel):
        self.attrs = attrs
        self.axis = axis  # of the channels in x and in the outputs; a kernel has them last
        self.groups = x.shape[axis] // kernel.shape[2]
        self.static = x.shape, kernel.shape
        self.shapes = tf.shape(x), tf.shape(kernel)

    def _here(self):
        """The same, in the graph that is being built."""
        here = copy.copy(self)
        here.shapes = [
            tf.constant(static.as_list()) if static.is_fully_defined() else tf.identity(shape)
            for static, shape in zip(self.static, self.shapes, strict=True)
        ]
        return here

    def convolve(self, x, kernel):
        """The outputs."""
        here = self._here()

        @tf.custom_gradient
        def function(x, kernel):
            def gradient(c):
                return here.pull_input(kernel, c), here.pull_kernel(x, c)

            return tf.raw_ops.Conv2D(input=x, filter=kernel, **self.attrs), gradient

        return function(*local([x, kernel]))

    def pull_input(self, kernel, cotangent):
        """A cotangent of the outputs, pulled back to `x`."""
        here = self._here()

        @tf.custom_gradient
        def function(kernel, cotangent):
            def gradient(t):
                return here.pull_kernel(t, cotangent), here.convolve(t, kernel)

            pulled = here._backward_input(kernel, cotangent)
            return tf.ensure_shape(pulled, self.static[0]), gradient

        return function(*local([kernel, cotangent]))

    def pull_kernel(self, x, cotangent):
        """A cotangent of the outputs, pulled back to the kernel."""
        here = self._here()

        @tf.custom_gradient
        def function(x, cotangent):
            def gradient(t):
                return here.pull_input(t, cotangent), here.convolve(x, t)

            pulled = here._backward_kernel(x, cotangent)
            return tf.ensure_shape(pulled, self.static[1]), gradient

        return function(*local([x, cotangent]))

    def _backward_input(self, kernel, cotangent):
        if self._depthwise():
            return tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=self.shapes[0],
                filter=tf.reshape(kernel, self._by_channel()),
                out_backprop=cotangent,
                **self.attrs,
            )
        sizes = self._one_group(self.shapes[0], self.axis)
        parts = [
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=sizes, filter=k, out_backprop=c, **self.attrs
            )
            for k, c in zip(self._split(kernel, 3), self._split(cotangent), strict=True)
        ]
        return tf.concat(parts, self.axis)

    def _backward_kernel(self, x, cotangent):
        if self._depthwise():
            pulled = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                input=x, filter_sizes=self._by_channel(), out_backprop=cotangent, **self.attrs
            )
            return tf.reshape(pulled, self.shapes[1])
        sizes = self._one_group(self.shapes[1], 3)
        parts = [
            tf.raw_ops.Conv2DBackpropFilter(
                input=x, filter_sizes=sizes, out_backprop=c, **self.attrs
            )
            for x, c in zip(self._split(x), self._split(cotangent), strict=True)
        ]
        return tf.concat(parts, 3)

    def _depthwise(self):
        """Whether TensorFlow's backward kernels for depthwise convolution do the same."""
        height, width = (1, 2) if self.axis == 3 else (2, 3)
        strides = self.attrs["strides"]
        # They take one stride for both axes.
        return self.static[1][2] == 1 and strides[height] == strides[width]

    def _by_channel(self):
        """The shape of the kernel for depthwise kernels."""
        height, width, _, channels = tf.unstack(self.shapes[1])
        return tf.stack([height, width, self.groups, channels // self.groups])

    def _split(self, tensor, axis=None):
        return tf.split(tensor, self.groups, self.axis if axis is None else axis)

    def _one_group(self, shape, axis):
        part = tf.one_hot(axis, 4, on_value=self.groups, off_value=1, dtype=tf.int32)
        return shape // part


# `Einsum` of two tensors: its tangents by the equation of the op itself.
#
# TensorFlow's gradient of its gradient contracts the same axes in another order, with transposes of
# its own: in attention that costs half as much again as the op.


def einsum(op, cotangent):
    """Rule for `Einsum`; TensorFlow's own where labels are summed within one tensor or repeat."""
    labels = _labels(op.get_attr("equation"))
    if labels is None or not op.inputs[0].dtype.is_floating:
        return registry.own_gradient("Einsum")(op, cotangent)
    first, second = op.inputs
    return (
        _contract(labels, {1: second, 2: cotangent}),
        _contract(labels, {0: first, 2: cotangent}),
    )


def _labels(equation):
    """Those of both inputs and of the output, if each label stands in two of them or in all."""
    equation = equation.decode() if isinstance(equation, bytes) else equation
    labels = equation.replace("->", ",").split(",")
    if len(labels) != 3 or "." in equation:
        return None
    for i, own in enumerate(labels):
        others = "".join(labels[:i] + labels[i + 1 :])
        if len(set(own)) < len(own) or not set(own) <= set(others):
            return None
    return labels


def _contract(labels, tensors):
    """The third of input 0, input 1 and output 2 from the other two; linear in both of them."""
    i, j = sorted(tensors)
    missing = 3 - i - j

    @tf.custom_gradient
    def function(x, y):
        def gradient(t):
            return _contract(labels, {j: y, missing: t}), _contract(labels, {i: x, missing: t})

        equation = f"{labels[i]},{labels[j]}->{labels[missing]}"
        return tf.raw_ops.Einsum(inputs=[x, y], equation=equation), gradient

    return function(*local([tensors[i], tensors[j]]))
