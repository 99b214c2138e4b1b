"""A layer and its pushforward, so that tangents flow through a functional model."""

from typing import Any

import keras

from keras_fwd._derivatives import double_gradient
from keras_fwd._models.serializable import serializable
from keras_fwd._models.wrapping import DerivativeLayer
from keras_fwd.typing import Nest


@serializable
class Linearized(DerivativeLayer):
    """`[x, dx]` in, `[y, dy]` out: `y` is what the layer returns, `dy = J dx`.

    Chains of them carry a tangent through a model, whatever else the model does with it.

    Args:
        layer: A Keras layer or model of one input tensor (or one nest of floating-point tensors).
        **kwargs: As of `keras.layers.Layer`.

    Raises:
        StructureError: the tangent has not the shape of the input.
        LeakError: TensorFlow would get the derivative wrong; names the op and the layer.

    Cost: That of one `jvp`: about two forward passes of the layer in a `tf.function`.

    Example:

    >>> import numpy as np
    >>> square = keras.layers.Lambda(lambda x: x**2)
    >>> x, dx = np.array([[3.0]], "float32"), np.array([[1.0]], "float32")
    >>> y, dy = Linearized(square)([x, dx])
    >>> float(y[0, 0]), float(dy[0, 0])
    (9.0, 6.0)
    """

    def build(self, input_shape: Any) -> None:
        """Build the layer."""
        super().build(input_shape[0])

    def call(self, inputs: Nest, training: bool | None = None, mask: Nest | None = None) -> Nest:
        """The outputs of the layer and their tangents."""
        x, dx = inputs
        # That of x: a tangent brings none of its own.
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        return list(double_gradient.jvp(self.function(training, mask), x, dx))

    def compute_output_spec(self, inputs: Nest, *args: Any, **kwargs: Any) -> Nest:
        """Twice that of the layer."""
        spec = self.layer.compute_output_spec(inputs[0])
        return [spec, keras.tree.map_structure(_again, spec)]

    def compute_mask(self, inputs: Nest, previous_mask: Nest | None) -> Nest | None:
        """That of the layer, for both."""
        mask = previous_mask[0] if isinstance(previous_mask, (list, tuple)) else previous_mask
        mask = self.layer.compute_mask(inputs[0], mask)
        return [mask, mask]


def _again(spec):
    return keras.KerasTensor(spec.shape, spec.dtype)
