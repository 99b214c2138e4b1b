"""`find_leaks`: where the trick would fail in a function or a Keras model, as a table."""

import keras
import numpy as np
import tensorflow as tf

from keras_fwd._derivatives import functional
from keras_fwd._leaks import costs, search, verification
from keras_fwd._leaks.report import Leak, LeakReport
from keras_fwd._models.nested_layers import LayerMarks
from keras_fwd._spaces import given, nest
from keras_fwd.errors import ConfigurationError
from keras_fwd.typing import Function, Nest

#: A layer whose JVP takes more forward passes than this is reported as slow.
SLOW = 6.0


def find_leaks(
    fn: Function,
    inputs: Nest | None = None,
    training: bool = False,
    verify: bool = False,
    measure_cost: bool = False,
) -> LeakReport:
    """Where TensorFlow's own derivatives of derivatives break in a function or model.

    Args:
        fn: Function of one argument, Keras layer or model. A model must be built.
        inputs: The point: nest of tensors or arrays. Default: random ones with a batch of two,
            from the model's input specs; needed for a function.
        training: Whether a layer or model is called with `training=True`.
        verify: If True, compare JVPs along a random direction with central differences: that of
            this package, and the plain trick with dummy cotangents of zeros, random numbers, NaN.
        measure_cost: If True, time the JVP of each layer of a model in forward passes (`costs` of
            the report), and list those above `SLOW` (6).

    Returns:
        `LeakReport`: true if there are leaks; prints as a table; `to_frame()`.

    Raises:
        ConfigurationError: no inputs are given and none can be made, or the model is not built.
        StructureError: the inputs do not fit the model.

    Cost: Two traces of the function and its pullback; nothing runs unless asked for.

    Example:

    >>> import keras, keras_fwd
    >>> net = keras.Sequential([keras.Input([3]), keras.layers.Dense(2, "tanh")])
    >>> keras_fwd.find_leaks(net)
    no leaks
    """
    functional.check_callable("find_leaks", "fn", fn)
    layer = functional.is_layer(fn)
    if layer:
        check_built("find_leaks", fn)
    primals = _random_inputs(fn) if inputs is None else inputs
    primals = nest.pack(
        primals,
        [given.to_tensor("find_leaks", "inputs", leaf) for leaf in nest.flatten(primals)],
    )
    function = (lambda x: fn(x, training=training)) if layer else fn
    # First of all: data that do not fit are named before anything is traced.
    calls = costs.run_once(fn, function, primals)
    variables = [functional.unwrap(v) for v in getattr(fn, "trainable_variables", [])]
    marks = LayerMarks(fn)
    places, sealed = search.leaks(marks.marking(function), primals, variables, marks.label)
    verified = verification.verify(function, primals) if verify else {}
    measured = costs.measure(calls) if measure_cost else {}
    rows = [_row(place, place in sealed, measured) for place in places]
    advice = "exact, but its JVP takes many forward passes: run it less often, or use another layer"
    slow = [
        Leak(path, "JVP", "slow", 1, False, advice, cost)
        for path, cost in measured.items()
        if cost > SLOW
    ]
    return LeakReport(rows + slow, measured, verified)


_SEALED = (
    "nothing to do inside keras_fwd, which has a rule for it; for tapes of your own, use "
    "keras_fwd.seal_leaks(model)"
)


_ADVICE = {
    "missing": "TensorFlow has no gradient for it: use another op, or give it a rule with "
    "keras_fwd.custom_jvp",
    "severed": "TensorFlow counts it as constant: use another op, or give it a rule with "
    "keras_fwd.custom_jvp",
    "poisoned": "not finite where the cotangent is zero: use another op",
    "second-order": "right in a first derivative only: use a layer that was not exported, or do "
    "not differentiate twice",
    "dependent": "the backward rule is not linear in its cotangent: clip or normalize gradients "
    "in the optimizer (clipnorm, clipvalue), outside of what is differentiated",
    "custom rule": "the declared backward rule {words}; J u is its transpose. If that is meant "
    "(gradient reversal, straight-through), nothing to do; for the true derivative use the "
    "function without its rule, or keras_fwd.custom_jvp",
}


def _row(place, sealed, measured):
    advice = _SEALED if sealed else _ADVICE[place.kind].format(words=place.words)
    order = 2 if place.kind == "second-order" else 1
    cost = measured.get(place.layer)
    return Leak(place.layer, place.op, place.kind, order, sealed, advice, cost)


def check_built(call, fn):
    """Raise `ConfigurationError` for a layer or model without weights yet."""
    if not fn.built:
        raise ConfigurationError(
            f"{call}: the {type(fn).__name__} {fn.name!r} must be built; call it once on data "
            "before, or give it an Input. Received: one without weights."
        )


def _random_inputs(fn):
    """Random inputs with a batch of two that fit a model's own description of them."""
    if isinstance(fn, keras.Model) and getattr(fn, "inputs", None):
        tensors = [_random(spec.shape, spec.dtype, i) for i, spec in enumerate(fn.inputs)]
        structure = getattr(fn, "_inputs_struct", fn.inputs)  # Keras has no public name for it
        return tf.nest.pack_sequence_as(structure, tensors) if len(tensors) > 1 else tensors[0]
    config = fn.get_build_config() if functional.is_layer(fn) else None
    shape = (config or {}).get("input_shape")
    if not shape or not isinstance(shape, (list, tuple)):
        raise ConfigurationError(
            "find_leaks: `inputs` is needed, because the function or model does not say what it "
            f"takes. Received: inputs=None for {fn!r}. Pass a batch of data."
        )
    return _random(shape, fn.compute_dtype, 0)


def _random(shape, dtype, seed):
    sizes = [n or (2 if axis == 0 else 4) for axis, n in enumerate(shape)]
    if tf.as_dtype(dtype).is_floating:
        return tf.constant(np.random.default_rng(seed).normal(size=sizes), dtype)
    return tf.zeros(sizes, dtype)  # a valid index, whatever is looked up
