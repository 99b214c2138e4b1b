"""Models whose outputs for an example depend on that example alone, by the layers they hold."""

import keras

from keras_fwd import nested_layers

_L = keras.layers
#: Layers that keep examples apart, draw no random numbers and keep no state. By their exact type:
#: of a subclass nothing is known.
_APART = frozenset(
    [
        keras.Sequential,
        *(_L.InputLayer, _L.Dense, _L.EinsumDense, _L.Embedding, _L.Activation, _L.Identity),
        *(_L.ReLU, _L.LeakyReLU, _L.PReLU, _L.ELU, _L.LayerNormalization, _L.Rescaling),
        *(_L.Conv1D, _L.Conv2D, _L.Conv3D, _L.DepthwiseConv1D, _L.DepthwiseConv2D),
        *(_L.SeparableConv1D, _L.SeparableConv2D, _L.Conv1DTranspose, _L.Conv2DTranspose),
        *(_L.MaxPooling1D, _L.MaxPooling2D, _L.AveragePooling1D, _L.AveragePooling2D),
        *(_L.GlobalMaxPooling1D, _L.GlobalMaxPooling2D),
        *(_L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D),
        *(_L.Flatten, _L.Reshape, _L.Permute, _L.RepeatVector, _L.UpSampling1D, _L.UpSampling2D),
        *(_L.ZeroPadding1D, _L.ZeroPadding2D, _L.Cropping1D, _L.Cropping2D),
        *(_L.Add, _L.Subtract, _L.Multiply, _L.Average, _L.Maximum, _L.Minimum, _L.Concatenate),
        *(_L.SimpleRNN, _L.LSTM, _L.GRU, _L.SimpleRNNCell, _L.LSTMCell, _L.GRUCell),
    ]
)
#: Attributes of those layers that hold functions of the user's choice.
_FUNCTIONS = ("activation", "recurrent_activation")


def keeps_examples_apart(model):
    """Whether a model is known to: built of stock layers, with stock activations."""
    if getattr(model, "inputs", None) is None:
        return False
    if any(tensor.shape[0] is not None for tensor in model.inputs):
        return False
    layers = [model, *nested_layers.inside(model)]
    return all(map(_is_apart, layers)) and all(map(_holds_layers_only, layers))


def _is_apart(layer):
    if not (type(layer) in _APART or _is_functional(layer)) or getattr(layer, "stateful", False):
        return False
    if getattr(layer, "dropout", 0) or getattr(layer, "recurrent_dropout", 0):
        return False
    if isinstance(layer, _L.Concatenate) and layer.axis == 0:
        return False
    return all(_is_stock(getattr(layer, name, None)) for name in _FUNCTIONS)


def _is_functional(layer):
    """Whether it is what `keras.Model(inputs, outputs)` makes, a class without a public name."""
    kind = type(layer)
    stock = kind.__name__ == "Functional" and kind.__module__.startswith("keras.")
    return stock and isinstance(layer, keras.Model)


def _is_stock(activation):
    name = getattr(activation, "__name__", "")
    return activation is None or getattr(keras.activations, name, None) is activation


def _holds_layers_only(layer):
    """A functional model may hold bare operations too, which may do anything."""
    operations = getattr(layer, "operations", [])
    return all(isinstance(operation, keras.Layer) for operation in operations)
