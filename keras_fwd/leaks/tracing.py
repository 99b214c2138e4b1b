"""In eager code there is no graph to look at: trace `fn` once, look, and forget the graph."""

import dataclasses
import weakref

import tensorflow as tf

from keras_fwd import nest

_seen = weakref.WeakKeyDictionary()  # fn -> {signature: what `derivative` returned}


def trace_once(fn, point, passes, derivative):
    """Trace the derivative of `fn` at a point, unless that went well before.

    Args:
        fn: What the caller differentiates; clean signatures are remembered as long as it lives.
        point: The `Point` made of it.
        passes: How many reverse passes the derivative has.
        derivative: Function of a `Point` with symbolic sources; raises where it finds a leak.

    Returns:
        What `derivative` returned, now or then.
    """
    specs = [tf.TensorSpec(s.shape, s.dtype) for s in nest.flatten(point.sources)]
    variables = nest.flatten(point.sources) if point.variables else []
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
        trace(point.function)
    except tf.errors.OperatorNotAllowedInGraphError:  # `if` or `for` over a tensor
        trace(tf.autograph.to_graph(point.function))
    return known[signature]
