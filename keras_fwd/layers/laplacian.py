"""The Laplacian of a layer, for physics-informed models in the functional interface."""

from typing import Any

import keras

from keras_fwd._derivatives import taylor
from keras_fwd._models.serializable import serializable
from keras_fwd._models.wrapping import DerivativeLayer, check_floating
from keras_fwd.typing import Nest


@serializable
class Laplacian(DerivativeLayer):
    """`Δy = Σᵢ ∂²y/∂xᵢ²` over the last axis of the inputs, for each example.

    Args:
        layer: A Keras layer or model `[…examples, d] -> […examples, …]`, which does not mix
            examples.
        chunk_size: As in `laplacian`.
        **kwargs: As of `keras.layers.Layer`.

    Raises:
        ConfigurationError: `chunk_size` is not a whole number of at least 1.
        StructureError: no input is a floating-point tensor, or the outputs do not depend on it.
        LeakError: TensorFlow would get a derivative wrong; names the op and the layer.

    Returns:
        A nest like the outputs of the layer.

    Cost: That of `laplacian`, about `d + 2` forward passes at most.

    Example:

    >>> import numpy as np
    >>> square = keras.layers.Lambda(lambda x: x**2)
    >>> Laplacian(square)(np.array([[1.0, 2.0]], "float32")).numpy()
    array([[2., 2.]], dtype=float32)
    """

    def __init__(
        self, layer: keras.layers.Layer, chunk_size: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(layer, **kwargs)
        taylor.check_chunk_size(chunk_size)
        self.chunk_size = chunk_size

    def call(self, inputs: Nest, training: bool | None = None, mask: Nest | None = None) -> Nest:
        """The Laplacian."""
        check_floating("Laplacian", inputs, self.layer)
        return taylor.laplacian(self.function(training, mask), inputs, self.chunk_size)

    def compute_output_spec(self, inputs: Nest, *args: Any, **kwargs: Any) -> Nest:
        """That of the layer."""
        return self.layer.compute_output_spec(inputs)

    def get_config(self) -> dict[str, Any]:
        """With the chunk size."""
        return {**super().get_config(), "chunk_size": self.chunk_size}
