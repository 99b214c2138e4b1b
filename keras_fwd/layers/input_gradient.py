"""The gradient of a layer's outputs by its inputs: energies to forces."""

from typing import Any

import keras
import tensorflow as tf

from keras_fwd._derivatives import double_gradient
from keras_fwd._models.serializable import serializable
from keras_fwd._models.wrapping import DerivativeLayer, check_floating
from keras_fwd._spaces import nest
from keras_fwd.errors import ConfigurationError
from keras_fwd.typing import Nest


@serializable
class InputGradientLayer(DerivativeLayer):
    """`[y, scale · ∂(Σ y)/∂x]`: the outputs of a layer and their gradient by its inputs.

    With the energy of each example as the output and `scale=-1.0`, the second one is the force.

    Args:
        layer: A Keras layer or model with one output tensor. The sum runs over all of its
            components, and is the gradient of each example if the layer does not mix them.
        scale: Factor of the gradient.
        **kwargs: As of `keras.layers.Layer`.

    Raises:
        ConfigurationError: `scale` is not a finite number.
        StructureError: no input is a floating-point tensor, or the outputs do not depend on it.
        LeakError: TensorFlow would get the derivative wrong; names the op and the layer.

    Returns:
        A list: the outputs, and a nest like the inputs, zeros at integer leaves.

    Cost: One forward pass and one gradient.

    Example:

    >>> import numpy as np
    >>> spring = keras.layers.Lambda(lambda x: x**2 / 2)
    >>> energy, force = InputGradientLayer(spring, scale=-1.0)(np.array([[3.0]], "float32"))
    >>> float(energy[0, 0]), float(force[0, 0])
    (4.5, -3.0)
    """

    def __init__(self, layer: keras.layers.Layer, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        if not isinstance(scale, (int, float)) or not abs(scale) < float("inf"):
            raise ConfigurationError(
                "InputGradientLayer: `scale` must be a finite number; -1.0 turns energies into "
                f"forces. Received: scale={scale!r}."
            )
        self.scale: float = float(scale)

    def call(self, inputs: Nest, training: bool | None = None, mask: Nest | None = None) -> Nest:
        """The outputs and their gradient."""
        check_floating("InputGradientLayer", inputs, self.layer)
        outputs, pull = double_gradient.pullback(
            self.function(training, mask), inputs, call="InputGradientLayer"
        )
        # The factor in the cotangent: the gradient comes out scaled, with no pass of its own.
        pulled = pull(tf.fill(tf.shape(outputs), tf.cast(self.scale, outputs.dtype)))
        leaves = [
            # Keras has no outputs that are None.
            tf.zeros_like(x) if g is None else g
            for x, g in zip(nest.flatten(inputs), nest.flatten(pulled), strict=True)
        ]
        return [outputs, nest.pack(inputs, leaves)]

    def compute_output_spec(self, inputs: Nest, *args: Any, **kwargs: Any) -> Nest:
        """That of the layer, and that of the inputs."""
        gradient = tf.nest.map_structure(lambda x: keras.KerasTensor(x.shape, x.dtype), inputs)
        return [self.layer.compute_output_spec(inputs), gradient]

    def compute_mask(self, inputs: Nest, previous_mask: Nest | None) -> Nest | None:
        """That of the layer, and that of the inputs."""
        return [self.layer.compute_mask(inputs, previous_mask), previous_mask]

    def get_config(self) -> dict[str, Any]:
        """With the scale."""
        return {**super().get_config(), "scale": self.scale}
