"""In eager code there is no graph to look at: trace `fn` once, look, and forget the graph."""

import dataclasses
import weakref

import tensorflow as tf

from keras_fwd._spaces import nest
from keras_fwd.errors import KerasFwdError, LeakError

_seen = weakref.WeakKeyDictionary()  # fn -> {signature: what `derivative` returned}


def trace_once(call, fn, point, passes, derivative):
    """Trace the derivative of `fn` at a point, unless that went well before.

    Args:
        call: Name of the public call, for the message.
        fn: What the caller differentiates; clean signatures are remembered as long as it lives.
        point: The `Point` made of it.
        passes: How many reverse passes the derivative has.
        derivative: Function of a `Point` with symbolic sources; raises where it finds a leak.

    Returns:
        What `derivative` returned, now or then.

    Raises:
        LeakError: `fn` runs in eager code alone.
    """
    specs = [tf.TensorSpec(s.shape, s.dtype) for s in nest.flatten(point.sources)]
    variables = nest.flatten(point.sources) if point.variables else []
    # Variables by identity: the same shapes may stand for others, with other leaks on the way.
    signature = (passes, str(specs), *map(id, variables))
    try:
        known = _seen.setdefault(fn, {})
    except TypeError:  # not hashable, or takes no weak reference
        known = {}
    if signature in known:
        return known[signature]

    def trace(function):
        def traced(*leaves):
            sources = point.sources if point.variables else nest.pack(point.sources, leaves)
            here = dataclasses.replace(point, sources=sources, function=function)
            known[signature] = derivative(here)

        arguments = [] if point.variables else specs
        tf.function(traced, autograph=False).get_concrete_function(*arguments)

    try:
        try:
            trace(point.function)
        except tf.errors.OperatorNotAllowedInGraphError:  # `if` or `for` over a tensor
            trace(tf.autograph.to_graph(point.function))
    except KerasFwdError:
        raise
    except Exception as error:  # whatever the function raises when its tensors hold no values
        point.call(point.sources)  # is it because of that?
        raise LeakError(
            f"{call}: `fn` must be something that tf.function can trace, for leaks are looked for "
            f"in its graph. Received: {_name(fn)}, which raises {type(error).__name__} there: "
            f"{_first_line(error)}. Compute with tensors alone: no `.numpy()`, no Python numbers "
            "made from values or shapes."
        ) from error
    return known[signature]


def _name(fn):
    return getattr(fn, "__qualname__", None) or repr(fn)


def _first_line(error):
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
