"""A `tf.custom_gradient` function, with its backward rule looked at when it runs.

A rule that ignores its cotangent gives a number that no dummy cotangent reaches: beside another
path the derivative would silently lack this one.
"""

import functools
import inspect

import tensorflow as tf

from keras_fwd._graphs import graph as graphs
from keras_fwd.errors import LeakError

_OURS = ("tensorflow.python.", "keras_fwd.")


def checked(function):
    """The function; its backward rule raises `LeakError` when it ignores its cotangents."""
    # TensorFlow's own rules and ours are tested; a look at each costs time in every trace.
    if (function.__module__ or "").startswith(_OURS):
        return function

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        result, rule = function(*args, **kwargs)
        return result, _checked_rule(rule, function.__qualname__)

    return wrapper


def _checked_rule(rule, name):
    def check(pulled, cotangents):
        if not tf.executing_eagerly():
            for leaf in tf.nest.flatten(pulled):
                if tf.is_tensor(leaf) and not (_is_zero(leaf) or _reads(leaf, cotangents)):
                    raise LeakError(
                        f"{name}: the backward rule of a tf.custom_gradient must be linear in its "
                        f"cotangent. Received: a result that does not depend on it, {leaf.name}. "
                        "Multiply by the cotangent, or return zeros if the derivative is meant to "
                        "be left out."
                    )
        return pulled

    parameters = inspect.signature(rule).parameters.values()
    if any(p.name == "variables" or p.kind is p.VAR_KEYWORD for p in parameters):
        # TensorFlow looks for this argument by name.
        return lambda *c, variables=None: check(
            rule(*c, variables=variables) if variables else rule(*c), c
        )
    return lambda *c: check(rule(*c), c)


def _is_zero(tensor):
    if not tensor.dtype.is_floating or tensor.op.type == "ZerosLike":
        return True
    if tensor.op.type in ("Fill", "BroadcastTo", "Identity", "Reshape", "Cast"):
        # Fill takes its value second.
        return _is_zero(tensor.op.inputs[-1 if tensor.op.type == "Fill" else 0])
    value = tf.get_static_value(tensor)
    return value is not None and not value.any()


def _reads(tensor, sources):
    """Whether a tensor's value, and not its shape alone, is computed from a source."""
    wanted = {id(leaf) for leaf in tf.nest.flatten(sources) if tf.is_tensor(leaf)}
    stack, seen = [tensor], set()
    while stack:
        current = stack.pop()
        if id(current) in wanted:
            return True
        if id(current.op) not in seen and current.op.type not in graphs.SHAPE_ONLY:
            seen.add(id(current.op))
            stack += current.op.inputs
    return False
