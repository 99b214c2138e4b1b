"""`Einsum` of two tensors: its tangents by the equation of the op itself.

TensorFlow's gradient of its gradient contracts the same axes in another order, with transposes of
its own: in attention that costs half as much again as the op.
"""

import tensorflow as tf

from keras_fwd._graphs import registry
from keras_fwd._rules.transposes import local


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
