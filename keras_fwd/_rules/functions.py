"""Functions that take the place of TensorFlow's and Keras' while derivatives are taken.

A rule for an op cannot mend a composition: `tf.nn.moments` holds its mean constant, `hypot` takes
the maximum of absolute values, recomputation refuses a second pass. Such a function is replaced by
one of the same value, as an attribute of the module it lives in, for the threads inside the
context alone.
"""

import inspect
import sys
import weakref
from typing import Any

import tensorflow as tf

from keras_fwd._graphs import graph as graphs
from keras_fwd._graphs import registry
from keras_fwd._rules import custom_rules
from keras_fwd._rules.transposes import local


def moments(original):
    """`tf.nn.moments` whose variance depends on the mean, as it should to second order."""
    del original

    def sealed(x, axes, shift=None, keepdims=False, name=None):
        del shift  # TensorFlow does not use it either
        with tf.name_scope(name or "moments"):
            x = tf.convert_to_tensor(x)
            # The range of half precision is too small for sums of squares.
            y = tf.cast(x, tf.float32 if x.dtype == tf.float16 else x.dtype)
            mean = tf.reduce_mean(y, axes, keepdims=True)
            variance = _variance(y, axes)
            if not keepdims:
                mean, variance = tf.squeeze(mean, axes), tf.squeeze(variance, axes)
            return tf.cast(mean, x.dtype), tf.cast(variance, x.dtype)

    return sealed


def moments_v1(original):
    """`tf.compat.v1.nn.moments`, with its older names of arguments."""
    sealed = moments(original)

    def sealed_v1(x, axes, shift=None, name=None, keep_dims=None, keepdims=None):
        return sealed(x, axes, shift, keepdims=bool(keepdims or keep_dims), name=name)

    return sealed_v1


def _variance(y, axes):
    """Over some axes, kept. The path through the mean is zero at first order, and is left out."""

    @tf.custom_gradient
    def variance(y):
        mean = tf.reduce_mean(y, axes, keepdims=True)
        value = tf.reduce_mean(tf.math.squared_difference(y, mean), axes, keepdims=True)

        def gradient(cotangent):
            centered = y - tf.reduce_mean(y, axes, keepdims=True)
            # How many entries each variance is a mean of.
            count = tf.cast(tf.size(y), y.dtype) / tf.cast(tf.size(value), y.dtype)
            return centered * (2.0 * cotangent / count)

        return value, gradient

    return variance(y)


def hypot(original):
    """√(x² + y²): Keras' own derivative is wrong on the diagonals, its second one on the axes."""

    def sealed(x1, x2):
        return _hypot(tf.convert_to_tensor(x1), tf.convert_to_tensor(x2))

    def _hypot(x1, x2):
        value = original(x1, x2)
        if not value.dtype.is_floating:
            return value
        x1, x2 = tf.cast(x1, value.dtype), tf.cast(x2, value.dtype)
        shape = tf.shape(value)
        return _broadcast_hypot(tf.broadcast_to(x1, shape), tf.broadcast_to(x2, shape))

    @tf.custom_gradient
    def _broadcast_hypot(x1, x2):
        def gradient(cotangent):
            sides = local([x1, x2])
            # By the function itself, so that higher derivatives come through this rule again.
            ratio = tf.math.divide_no_nan(cotangent, _broadcast_hypot(*sides))
            return [ratio * side for side in sides]

        return original(x1, x2), gradient

    return sealed


def inner(original):
    """Keras' `inner` without the conditional on a rank that is known, whose branches have results
    of different shapes: TensorFlow mixes them up in the second derivative.
    """

    def sealed(x1, x2):
        ranks = tf.convert_to_tensor(x1).shape.rank, tf.convert_to_tensor(x2).shape.rank
        if None in ranks:
            return original(x1, x2)
        module = keras_numpy()
        return module.multiply(x1, x2) if 0 in ranks else module.tensordot(x1, x2, [[-1], [-1]])

    return sealed


def keras_numpy() -> Any:
    """Keras' own module of NumPy functions; None where a release has moved it."""
    return sys.modules.get("keras.src.backend.tensorflow.numpy")


def cudnn(original):
    """No cuDNN kernel: Keras then runs the layer's own loop, which differentiates twice."""
    del original

    def sealed(*args, **kwargs):
        raise NotImplementedError("the gradient of a cuDNN kernel cannot be differentiated again")

    return sealed


def recompute(original):
    """`tf.recompute_grad` without recomputation: a second pass needs what the first one read."""
    del original
    return lambda function: function


def custom_gradient(original):
    """Where TensorFlow runs a `tf.custom_gradient` function: its rule is looked at.

    In a graph, the rule is then kept by the graph and no longer by TensorFlow's registry.
    """

    def sealed(function, args, kwargs):
        if function.__qualname__ == "recompute_grad.<locals>.inner":  # wrapped before
            return inspect.getclosurevars(function).nonlocals["f"](*args, **kwargs)
        result = original(custom_rules.checked(function), args, kwargs)
        for tensor in tf.nest.flatten(result):
            if tf.is_tensor(tensor) and graphs.is_symbolic(tensor):
                registry.hand_to_graph(tensor.op)
        return result

    return sealed


def nested_function(original):
    """A `tf.function` inside of what is differentiated: a copy of it that is traced in here.

    TensorFlow keeps with a traced function the backward functions that it once built, which may
    lack the rules of this package.
    """
    copies = weakref.WeakKeyDictionary()

    def sealed(self, *args, **kwargs):
        if (getattr(self.python_function, "__module__", None) or "").startswith(_FRESH):
            return original(self, *args, **kwargs)
        if self not in copies:
            copies[self] = tf.function(
                self.python_function,
                input_signature=self.input_signature,
                autograph=getattr(self, "_autograph", True),
                jit_compile=getattr(self, "_jit_compile", None),
            )
        copy = copies[self]
        if not tf.executing_eagerly() and _only_convolves(copy, args, kwargs):
            return copy.python_function(*args, **kwargs)
        return original(copy, *args, **kwargs)

    return sealed


def _only_convolves(function, args, kwargs):
    """Whether it was compiled for the backward kernels of a convolution in groups alone.

    Its forward kernel needs no compiler, and `convolution` brings a rule (an IdentityN in the
    graph) with backward ones that need none either.
    """
    if not getattr(function, "_jit_compile", None):
        return False
    graph = function.get_concrete_function(*args, **kwargs).graph
    types = {op.type for op in graph.get_operations()}
    return {"Conv2D", "IdentityN"} <= types <= _AROUND_CONVOLUTIONS


#: What Keras compiles together with a convolution in groups.
_AROUND_CONVOLUTIONS = frozenset(
    "Placeholder Const Identity IdentityN NoOp Cast Shape Reshape ExpandDims Squeeze Pad "
    "ReadVariableOp Conv2D".split()
)

#: Modules whose functions are made anew for each use, and differentiate right.
_FRESH = ("keras_fwd.", "tensorflow.python.")
