"""Which layer made an op of a graph: marks among its name scopes, where TensorFlow's own mislead.

TensorFlow makes scopes unique: the ops of a layer `dense` may stand in a scope `dense_1`, which may
be the name of the next layer as well.
"""

import re

import keras
import tensorflow as tf

from keras_fwd._models import nested_layers

_MARK = re.compile(r"keras_fwd_layer_(\d+)(_\d+)?")


class LayerMarks:
    """Marks of a layer and of those inside it.

    Args:
        fn: A layer or model; of any other function no op is marked.
    """

    def __init__(self, fn):
        own = [fn] if isinstance(fn, keras.Layer) else []
        self._layers = list({id(x): x for x in [*own, *nested_layers.inside(fn)]}.values())

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
            with nested_layers.around_calls(mark):
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
