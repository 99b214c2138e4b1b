"""In eager code there is no graph to look at: trace `fn` once, look, and forget the graph."""

import dataclasses
import weakref

import tensorflow as tf

from keras_fwd import nest

_clean = weakref.WeakKeyDictionary()  # fn -> signatures that were found clean


def trace_once(fn, point, passes, derivative):
    """Trace the derivative of `fn` at a point, unless that went well before.

    Args:
        fn: What the caller differentiates; clean signatures are remembered as long as it lives.
        point: The `Point` made of it.
        passes: How many reverse passes the derivative has.
        derivative: Function of a `Point` with symbolic sources; raises where it finds a leak.
    """
    specs = [tf.TensorSpec(s.shape, s.dtype) for s in nest.flatten(point.sources)]
    variables = nest.flatten(point.sources) if point.variables else []
    signature = (passes, str(specs), *map(id, variables))
    try:
        known = _clean.setdefault(fn, set())
    except TypeError:  # not hashable, or takes no weak reference
        known = set()
    if signature in known:
        return

    def trace(function):
        def traced(*leaves):
            sources = point.sources if point.variables else nest.pack(point.sources, leaves)
            derivative(dataclasses.replace(point, sources=sources, function=function))

        arguments = [] if point.variables else specs
        tf.function(traced, autograph=False).get_concrete_function(*arguments)

    try:
        trace(point.function)
    except tf.errors.OperatorNotAllowedInGraphError:  # `if` or `for` over a tensor
        trace(tf.autograph.to_graph(point.function))
    known.add(signature)
