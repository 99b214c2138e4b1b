"""Steps on residuals in eager code: compiled once for a function, kept as long as it lives."""

import inspect
import warnings
import weakref

import tensorflow as tf

from keras_fwd.optimizers._residuals.residual_pass import CALL, precise, trainable

#: After so many calls in a row that each had to trace a new function of the same code, a warning.
PATIENCE = 5


class ResidualSteps:
    """The compiled steps of one optimizer.

    A function is known again by its identity, a method by its object. It is held weakly, but for
    what its graph holds: the variables, and the arrays that it closes over.

    Args:
        step: Function `(residual_fn, variables, data, weights, reduction)`.
    """

    def __init__(self, step):
        self._step = step
        self._known = weakref.WeakKeyDictionary()
        self._last_code = None
        self._in_row = 0

    def __call__(self, residual_fn, variables, data, weights, reduction, jit_compile):
        """One step; traced at the first call, and for new shapes of `data` and `weights`."""
        if data is not None:
            data = tf.nest.map_structure(tf.convert_to_tensor, data)
        if weights is not None:
            weights = tf.nest.map_structure(precise, weights)
        listed = trainable(variables)
        mine = self._steps_of(residual_fn)
        key = (
            getattr(residual_fn, "__func__", None),
            reduction,
            jit_compile,
            *map(id, listed),  # kept alive by the graph, so that no other gets the same number
        )
        known = mine.get(key)
        if known is None:
            self._count(residual_fn)
            known = mine[key] = self._compiled(residual_fn, listed, reduction, jit_compile)
        else:
            self._in_row = 0
        return known(data, weights)

    def _steps_of(self, residual_fn):
        anchor = residual_fn.__self__ if inspect.ismethod(residual_fn) else residual_fn
        try:
            return self._known.setdefault(anchor, {})
        except TypeError:  # not hashable, or takes no weak reference
            return {}

    def _compiled(self, residual_fn, variables, reduction, jit_compile):
        refer = weakref.WeakMethod if inspect.ismethod(residual_fn) else weakref.ref
        try:
            function = refer(residual_fn)
        except TypeError:
            function = _strong(residual_fn)
        step = self._step

        def compiled(data, weights):
            return step(function(), variables, data, weights, reduction)

        return tf.function(compiled, jit_compile=jit_compile)

    def _count(self, residual_fn):
        """Warn of functions that are made anew for each call, and traced for each."""
        code = getattr(residual_fn, "__code__", type(residual_fn))
        self._in_row = self._in_row + 1 if code is self._last_code else 1
        self._last_code = code
        if self._in_row == PATIENCE:
            warnings.warn(
                f"{CALL}.step: `residual_fn` should be one function for all steps, for each new "
                f"one is traced and compiled. Received: a new function of the same code in each of "
                f"{PATIENCE} calls in a row ({residual_fn!r}). Make it once, outside of the loop, "
                "and hand it what changes as `data`.",
                RuntimeWarning,
                stacklevel=4,
            )


def _strong(value):
    return lambda: value
