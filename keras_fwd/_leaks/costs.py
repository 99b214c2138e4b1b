"""What a JVP of each layer of a model costs, in forward passes of that layer."""

import statistics
import time

import numpy as np
import tensorflow as tf

from keras_fwd._derivatives import double_gradient, functional
from keras_fwd._models import nested_layers
from keras_fwd._spaces import given, nest
from keras_fwd.errors import StructureError

ROUNDS = 7


def run_once(fn, function, primals):
    """Run a function on data; returns the calls `(path, layer, inputs, options)` of its layers.

    Raises:
        StructureError: the data do not fit.
    """
    calls = []
    paths = {id(layer): layer.path or layer.name for layer in nested_layers.inside(fn)}

    def recording(layer, args, options, call):
        # Only calls of one argument can be made again as a function of it.
        if id(layer) in paths and len(args) == 1:
            calls.append((paths[id(layer)], layer, args[0], options))
        return call()

    before = [v.value.numpy() for v in getattr(fn, "non_trainable_variables", [])]
    try:
        with nested_layers.around_calls(recording):
            functional.as_tensors("find_leaks", function(primals))
    except StructureError:
        raise
    except Exception as error:
        raise StructureError(
            f"find_leaks: `inputs` must be what {getattr(fn, 'name', fn)!r} takes. Received: "
            f"{given.describe(primals)} ({type(error).__name__}: {str(error).splitlines()[0]})."
        ) from error
    finally:
        for variable, value in zip(getattr(fn, "non_trainable_variables", []), before, strict=True):
            variable.assign(value)  # statistics and seeds, as if nothing had been run
    return calls


def measure(calls):
    """Layer path -> time of a JVP over that of the forward pass; medians of interleaved runs."""
    found = {}
    for path, layer, inputs, options in calls:
        leaves = nest.flatten(inputs)
        if path in found or not any(nest.is_differentiable(x.dtype) for x in leaves):
            continue
        try:
            found[path] = _ratio(layer, inputs, options)
        except Exception:  # a leak has a row of its own; a layer may return what is no tensor
            continue
    return found


def _ratio(layer, inputs, options):
    def call(x):
        return layer(x, **options)

    def pushed(x):
        tangents = nest.map_live(lambda s: tf.ones(s.shape, s.dtype), nest.spec(x))
        return double_gradient.jvp(call, x, tangents)

    sides = [tf.function(f, autograph=False) for f in (call, pushed)]
    times = [[], []]
    for _ in range(ROUNDS + 1):
        for side, seconds in zip(sides, times, strict=True):
            start = time.perf_counter()
            for leaf in nest.flatten(side(inputs)):
                # Waits until it is computed.
                np.asarray(leaf)
            seconds.append(time.perf_counter() - start)
    forward, both = (statistics.median(seconds[1:]) for seconds in times)  # the first one traces
    return both / forward
