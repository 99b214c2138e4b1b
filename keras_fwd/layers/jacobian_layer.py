"""The Jacobian of a layer, for each example, as a layer."""

from typing import Any

import keras
import tensorflow as tf

from keras_fwd._derivatives import jacobians
from keras_fwd._models.serializable import serializable
from keras_fwd._models.wrapping import DerivativeLayer, check_floating
from keras_fwd._spaces import nest
from keras_fwd.typing import JacobianMode, Nest


@serializable
class JacobianLayer(DerivativeLayer):
    """`∂y/∂x` of each example: `[batch, …output, …input]`.

    Args:
        layer: A Keras layer or model that does not mix examples.
        mode: As in `jacobian`.
        chunk_size: As in `jacobian`.
        **kwargs: As of `keras.layers.Layer`.

    Raises:
        ConfigurationError: `mode` or `chunk_size` has no meaning.
        StructureError: no input is a floating-point tensor.
        LeakError: TensorFlow would get the derivative wrong; names the op and the layer.

    Returns:
        The structure of the outputs; at each of its leaves the structure of the inputs.

    Cost: That of `jacobian(per_example=True)`.

    Example:

    >>> import numpy as np
    >>> square = keras.layers.Lambda(lambda x: x**2)
    >>> JacobianLayer(square)(np.array([[1.0, 2.0]], "float32")).numpy()
    array([[[2., 0.],
            [0., 4.]]], dtype=float32)
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        mode: JacobianMode = "auto",
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, **kwargs)
        jacobians.check_options(mode, chunk_size)
        self.mode = mode
        self.chunk_size = chunk_size

    def call(self, inputs: Nest, training: bool | None = None, mask: Nest | None = None) -> Nest:
        """The Jacobian."""
        check_floating("JacobianLayer", inputs, self.layer)
        return jacobians.jacobian(
            self.function(training, mask),
            inputs,
            mode=self.mode,
            chunk_size=self.chunk_size,
            per_example=True,
        )

    def compute_output_spec(self, inputs: Nest, *args: Any, **kwargs: Any) -> Nest:
        """`[batch, …output, …input]` at each leaf."""
        outputs = self.layer.compute_output_spec(inputs)

        def block_row(y):
            return tf.nest.map_structure(lambda x: _block(y, x), inputs)

        return tf.nest.map_structure(block_row, outputs)

    def compute_mask(self, inputs: Nest, previous_mask: Nest | None) -> Nest | None:
        """None: a Jacobian has no steps of its own."""
        return None

    def get_config(self) -> dict[str, Any]:
        """With the mode and the chunk size."""
        return {**super().get_config(), "mode": self.mode, "chunk_size": self.chunk_size}


def _block(y, x):
    return keras.KerasTensor((*y.shape, *x.shape[1:]), y.dtype) if _live(x) and _live(y) else None


def _live(tensor):
    return nest.is_differentiable(tensor.dtype)
