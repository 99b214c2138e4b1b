"""Models whose outputs for an example depend on that example alone, by the layers they hold.

A layer of the user's says so itself, by an attribute `keeps_examples_apart = True`.
"""

import re

import keras

from keras_fwd._models import nested_layers

_L = keras.layers
#: Layers that keep examples apart, draw no random numbers and keep no state. By their exact type:
#: of a subclass nothing is known.
_APART = frozenset(
    [
        keras.Sequential,
        *(_L.InputLayer, _L.Dropout, _L.Dense, _L.EinsumDense, _L.Embedding),
        *(_L.Activation, _L.Identity),
        *(_L.ReLU, _L.LeakyReLU, _L.PReLU, _L.ELU, _L.Softmax, _L.Rescaling, _L.Normalization),
        *(_L.LayerNormalization, _L.GroupNormalization, _L.MultiHeadAttention),
        *(_L.Conv1D, _L.Conv2D, _L.Conv3D, _L.DepthwiseConv1D, _L.DepthwiseConv2D),
        *(_L.SeparableConv1D, _L.SeparableConv2D, _L.Conv1DTranspose, _L.Conv2DTranspose),
        *(_L.MaxPooling1D, _L.MaxPooling2D, _L.AveragePooling1D, _L.AveragePooling2D),
        *(_L.GlobalMaxPooling1D, _L.GlobalMaxPooling2D),
        *(_L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D),
        *(_L.Flatten, _L.Reshape, _L.Permute, _L.RepeatVector, _L.UpSampling1D, _L.UpSampling2D),
        *(_L.ZeroPadding1D, _L.ZeroPadding2D, _L.Cropping1D, _L.Cropping2D),
        *(_L.Add, _L.Subtract, _L.Multiply, _L.Average, _L.Maximum, _L.Minimum, _L.Concatenate),
        *(_L.SimpleRNN, _L.LSTM, _L.GRU, _L.SimpleRNNCell, _L.LSTMCell, _L.GRUCell),
        *(_L.RNN, _L.Bidirectional, _L.TimeDistributed),
    ]
)
#: Attributes of those layers that hold functions of the user's choice.
_FUNCTIONS = ("activation", "recurrent_activation")


def keeps_examples_apart(model):
    """Whether a model is known to, and takes a batch of any size."""
    if not isinstance(model, keras.Model):
        return False
    inputs = getattr(model, "inputs", None) or []
    return first_unknown(model) is None and all(x.shape[0] is None for x in inputs)


def first_unknown(layer):
    """The first layer or operation that is not known to keep examples apart, or None.

    Known are stock layers with stock activations, and what says so itself.
    """
    if getattr(layer, "keeps_examples_apart", False):
        return None
    if not _is_apart(layer):
        return layer
    bare = (o for o in getattr(layer, "operations", []) if not isinstance(o, keras.Layer))
    within = map(first_unknown, nested_layers.directly_inside(layer))
    return next((found for found in (*bare, *within) if found is not None), None)


def _is_apart(layer):
    if not (type(layer) in _APART or _is_functional(layer)) or getattr(layer, "stateful", False):
        return False
    # One mask is drawn for the batch: examples taken one by one would get others.
    if any(getattr(layer, name, 0) for name in ("rate", "dropout", "recurrent_dropout")):
        return False
    if isinstance(layer, _L.Concatenate | _L.Softmax) and not _spares_the_batch(layer.axis):
        return False
    if isinstance(layer, _L.MultiHeadAttention) and 0 in (layer._attention_axes or ()):
        return False
    if isinstance(layer, _L.EinsumDense) and not _carries_the_batch(layer.equation):
        return False
    return all(_is_stock(getattr(layer, name, None)) for name in _FUNCTIONS)


def _spares_the_batch(axis):
    """Whether an axis, or each of several, cannot be the first: others from the end on may be."""
    axes = axis if isinstance(axis, tuple | list) else [axis]
    return all(a == -1 or a > 0 for a in axes)


def _carries_the_batch(equation):
    """Whether the first axis of the inputs is that of the outputs, and no axis of the kernel."""
    inputs, kernel, outputs = re.split(",|->", equation.replace(" ", ""))
    return inputs[0] == outputs[0] and (inputs[0] == "." or inputs[0] not in kernel)


def _is_functional(layer):
    """Whether it is what `keras.Model(inputs, outputs)` makes, a class without a public name."""
    kind = type(layer)
    stock = kind.__name__ == "Functional" and kind.__module__.startswith("keras.")
    return stock and isinstance(layer, keras.Model)


def _is_stock(activation):
    name = getattr(activation, "__name__", "")
    return activation is None or getattr(keras.activations, name, None) is activation
