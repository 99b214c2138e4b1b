"""Which layers are inside which, and when one of them is called.

Private interface used here: Keras' own walk through sublayers and list of them, which hold those in
lists and dictionaries and within layers that are no models, as `Model.layers` does not; and the
call context, which knows the outermost layer of a call. Without them: labels without layers, and a
penalty that is lost without a word.
"""

import contextlib
import re

import keras
import tensorflow as tf


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

    # Python looks `__call__` up in the class, so no instance can be wrapped by itself.
    keras.Layer.__call__ = replaced
    try:
        yield
    finally:
        keras.Layer.__call__ = own


# Which layer made an op of a graph: marks among its name scopes, where TensorFlow's own mislead.
#
# TensorFlow makes scopes unique: ops of a layer `dense` may stand in a scope `dense_1`, which may
# be the name of the next layer as well.

_MARK = re.compile(r"keras_fwd_layer_(\d+)(_\d+)?")


class LayerMarks:
    """Marks of a layer and of those inside it.

    Args:
        fn: A layer or model; of any other function no op is marked.
    """

    def __init__(self, fn):
        own = [fn] if isinstance(fn, keras.Layer) else []
        # Each once, for shared layers are met several times.
        self._layers = list({id(x): x for x in [*own, *inside(fn)]}.values())

    def marking(self, function):
        """The function, whose layers mark their ops while a graph is traced."""
        numbers = {id(layer): i for i, layer in enumerate(self._layers)}

        def mark(layer, args, options, call):
            del args, options
            number = numbers.get(id(layer))
            if number is None or tf.executing_eagerly():
                return call()
            with tf.name_scope(f"keras_fwd_layer_{number}"):
                return call()

        def marked(primals):
            with around_calls(mark):
                return function(primals)

        return marked

    def label(self, scopes):
        """From the scopes around an op to the path of its layer; as they are, if there is none."""
        marks = [_MARK.fullmatch(part) for part in scopes.split("/")]
        numbers = dict.fromkeys(int(mark[1]) for mark in marks if mark)  # loops repeat them
        if numbers:
            return "/".join(self._layers[i].name for i in numbers)
        names = {layer.name for layer in self._layers}  # of functions that were traced before
        parts = [s if s in names else re.sub(r"_\d+$", "", s) for s in scopes.split("/")]
        return "/".join(dict.fromkeys(part for part in parts if part in names)) or scopes
