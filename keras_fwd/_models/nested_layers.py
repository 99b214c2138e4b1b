"""Which layers are inside which, and when one of them is called.

Private interface used here: Keras' own walk through sublayers and list of them, which hold those in
lists and dictionaries and within layers that are no models, as `Model.layers` does not; and the
call context, which knows the outermost layer of a call. Without them: labels without layers, and a
penalty that is lost without a word.
"""

import contextlib

import keras


def inside(layer):
    """All the layers within one, however deep; none for what is no layer."""
    return layer._flatten_layers(include_self=False) if isinstance(layer, keras.Layer) else []


def directly_inside(layer):
    """The layers within one, but not those within them."""
    return list(layer._layers) if isinstance(layer, keras.Layer) else []


def is_outermost(layer):
    """Whether the call that is running began with this layer."""
    return layer._get_call_context().entry_layer is layer


@contextlib.contextmanager
def around_calls(around):
    """While it lasts, a call of any layer is one of `around(layer, args, options, call)`.

    Args:
        around: Gets the layer, its arguments and its options; returns what the call is to return,
            which is what `call`, without arguments, does.
    """
    own = keras.Layer.__call__

    def replaced(self, *args, **options):
        return around(self, args, options, lambda: own(self, *args, **options))

    keras.Layer.__call__ = replaced
    try:
        yield
    finally:
        keras.Layer.__call__ = own
