"""What the layers share that hold another layer and differentiate it."""

import inspect
from typing import Any

import keras

from keras_fwd._models import nested_layers
from keras_fwd._spaces import given, nest
from keras_fwd.errors import StructureError
from keras_fwd.typing import Function, Nest


def options(layer, training=None, mask=None):
    """The arguments, besides its inputs, that a layer is to be called with."""
    accepted = inspect.signature(layer.call).parameters
    # Keras hands a list of None on where no input has a mask.
    if all(part is None for part in nest.flatten(mask)):
        mask = None
    arguments = {"training": training, "mask": mask}
    return {name: v for name, v in arguments.items() if name in accepted and v is not None}


class DerivativeLayer(keras.layers.Wrapper):
    """Base of the layers that return a derivative of another one, by its inputs.

    Args:
        layer: A Keras layer or model. Its weights are shared, and train through the derivative.
        **kwargs: As of `keras.layers.Layer`.
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any) -> None:
        # Else Keras would cast the inputs to the default policy before the layer sees them.
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(layer, **kwargs)
        self.supports_masking = True  # as far as the layer does, which speaks for itself

    def function(self, training: bool | None, mask: Nest | None) -> Function:
        """The layer as a function of its inputs."""
        arguments = options(self.layer, training, mask)
        return lambda inputs: self.layer(inputs, **arguments)

    def compute_mask(self, inputs: Nest, previous_mask: Nest | None) -> Nest | None:
        """That of the layer."""
        return self.layer.compute_mask(inputs, previous_mask)


def check_floating(call, inputs, layer, wrapper=None):
    """Raise `StructureError` unless a floating-point tensor is among the inputs of a layer.

    Args:
        call: Name of the public call.
        inputs: Nest of tensors.
        layer: The layer.
        wrapper: What to wrap the layers in that come behind an embedding; as default the call.
    """
    if any(nest.is_differentiable(leaf.dtype) for leaf in nest.flatten(inputs)):
        return
    within = [layer, *nested_layers.inside(layer)]
    names = [repr(inner.name) for inner in within if isinstance(inner, keras.layers.Embedding)]
    raise StructureError(
        f"{call}: the inputs of {layer.name!r} must hold a floating-point tensor to differentiate "
        f"by. Received: {given.describe(inputs)}. Differentiate by the output of "
        f"{' or '.join(names) or 'the embedding'} instead: split the model there, and wrap the "
        f"layers that come behind it in `{wrapper or call}`."
    )
