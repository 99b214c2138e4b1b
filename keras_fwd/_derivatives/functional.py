"""What a public call differentiates: a callable, its point, and with respect to what.

Layers and models are recognized by what they offer (`trainable_variables`, `call`), so that the
derivatives below need no Keras.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_fwd._spaces import given, nest
from keras_fwd.errors import ConfigurationError, StructureError


@dataclasses.dataclass(frozen=True)
class Point:
    """A function of `sources`, ready to be differentiated there.

    Attributes:
        sources: Nest of tensors (inputs) or of `tf.Variable`s (weights).
        function: Of one argument.
        primals: Its argument when `sources` holds variables, which it reads itself; else `None`.
    """

    sources: Any
    function: Callable
    primals: Any = None

    @property
    def variables(self):
        """Whether `sources` holds variables."""
        return self.primals is not None

    def call(self, sources):
        """The outputs at `sources`, or at the values that the variables have now."""
        return self.function(self.primals if self.variables else sources)


def public(call):
    """Decorator of the public calls whose first argument is `fn`.

    Inside a `tf.function`, AutoGraph would rewrite this package's code as well as the user's. Only
    the user's `fn` is handed to it.
    """
    unconverted = tf.autograph.experimental.do_not_convert(call)

    @functools.wraps(call)
    def wrapper(fn, *args, **kwargs):
        return unconverted(converted(fn), *args, **kwargs)

    return wrapper


def converted(fn):
    """The user's function, rewritten by AutoGraph where a graph is built."""
    if tf.executing_eagerly() or is_layer(fn) or not callable(fn):
        return fn
    # In the state that tf.function is in, so that `autograph=False` of the user holds here too.
    autograph = tf.__internal__.autograph
    return autograph.tf_convert(fn, autograph.control_status_ctx())


def is_layer(fn):
    """Whether `fn` is a layer or a model: something callable with trainable variables."""
    return hasattr(fn, "trainable_variables") and hasattr(fn, "call")


def check_callable(call, argument, fn):
    """Raise `ConfigurationError` if `fn` cannot be called."""
    if not callable(fn):
        raise ConfigurationError(
            f"{call}: `{argument}` must be a function, a layer or a model that takes one argument. "
            f"Received: {argument}={fn!r}."
        )


def resolve(call, fn, primals, wrt):
    """The `Point` that the arguments of a public call describe.

    Raises:
        ConfigurationError: `fn` is not callable, or `wrt` has no meaning.
        StructureError: a primal is not a tensor, or nothing can carry a tangent.
    """
    check_callable(call, "fn", fn)
    function = (lambda x: fn(x, training=False)) if is_layer(fn) else fn
    tensors = given.to_tensors(call, "primals", primals)
    primals = nest.pack(primals, tensors)
    if isinstance(wrt, str) and wrt == "inputs":
        _check_differentiable(call, tensors)
        return Point(primals, function)
    return Point(_variables(call, fn, wrt), function, primals)


def _check_differentiable(call, tensors):
    if any(tensor.dtype.is_complex for tensor in tensors):
        raise StructureError(
            f"{call}: `primals` must be real; split a complex input into its real and imaginary "
            f"part inside `fn`. Received: {given.describe(tensors)}."
        )
    if not any(nest.is_differentiable(tensor.dtype) for tensor in tensors):
        raise StructureError(
            f"{call}: `primals` holds no floating-point tensor, so nothing can carry a tangent. "
            f'Received: {given.describe(tensors)}. Differentiate with wrt="weights", or start '
            "from the output of the embedding."
        )


def _variables(call, fn, wrt):
    if isinstance(wrt, str):
        if wrt != "weights":
            raise ConfigurationError(
                f'{call}: `wrt` must be "inputs", "weights" or a list of variables. '
                f"Received: wrt={wrt!r}."
            )
        if not is_layer(fn):
            raise ConfigurationError(
                f'{call}: wrt="weights" needs a layer or a model as `fn`; pass the list of '
                f"variables that the function reads. Received: fn={fn!r}."
            )
        if not getattr(fn, "built", True):
            raise ConfigurationError(
                f'{call}: wrt="weights" needs a built model; call `{getattr(fn, "name", "model")}'
                f"(inputs)` once before. Received: fn={fn!r}."
            )
        wrt = list(fn.trainable_variables)
    variables = tf.nest.map_structure(unwrap, wrt)
    leaves = nest.flatten(variables)
    bad = [v for v in leaves if not _is_source(v)]
    if bad or not leaves:
        raise ConfigurationError(
            f"{call}: `wrt` must name at least one floating-point variable (tf.Variable or "
            f"keras.Variable). Received: wrt={(bad or wrt)!r}."
        )
    return variables


def as_tensors(call, outputs):
    """What `fn` returned, with tensors at the leaves.

    Raises:
        StructureError: nothing, not tensors, or complex ones.
    """
    leaves = nest.flatten(outputs)
    if not leaves or any(leaf is None for leaf in leaves):
        raise StructureError(
            f"{call}: `fn` must return a tensor or a nest of tensors. Received: {outputs!r}."
        )
    tensors = given.to_tensors(call, "fn(primals)", outputs)
    if any(tensor.dtype.is_complex for tensor in tensors):
        raise StructureError(
            f"{call}: `fn` must return real tensors; return the real and the imaginary part of a "
            f"complex one. Received: {given.describe(outputs)}."
        )
    return nest.pack(outputs, tensors)


def unwrap(variable):
    """The tf.Variable behind a keras.Variable, or the tensor that stands for it in a scope."""
    return variable if isinstance(variable, tf.Variable) else getattr(variable, "value", variable)


def _is_source(leaf):
    tensor_like = isinstance(leaf, tf.Variable) or tf.is_tensor(leaf)
    return tensor_like and nest.is_differentiable(leaf.dtype)
