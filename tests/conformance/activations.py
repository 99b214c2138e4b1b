"""Every function in `keras.activations`."""

import types

from keras import activations

from conformance.case import THIRD, listed, op, unit

FAMILY = "Activations"
NAMESPACE = {
    name: value
    for name, value in vars(activations).items()
    if isinstance(value, types.FunctionType)
}

ARGUMENTS = {"threshold": (0.3, 0.1)}
POINT = unit(2, 4) * 2


def activation(name):
    function = getattr(activations, name)
    options = {"orders": THIRD, "fast": name in ("softsign", "gelu")}
    return op(name, lambda x: function(x, *ARGUMENTS.get(name, ())), POINT, **options)


LISTED = listed("no activation: turns names into functions, and back", "deserialize get serialize")
CASES = [
    activation(name) for name in sorted(NAMESPACE) if name not in {entry.name for entry in LISTED}
]
