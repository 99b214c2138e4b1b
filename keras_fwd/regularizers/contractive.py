"""`Contractive`: of encoders."""

from typing import Any, Literal

import keras
import tensorflow as tf

from keras_fwd._derivatives import double_gradient
from keras_fwd._models.serializable import serializable
from keras_fwd.regularizers.batch import Batch
from keras_fwd.regularizers.jacobian_norm import JacobianNorm
from keras_fwd.typing import Strength, Tensor

#: Activations that work entry by entry, so that the Jacobian of a dense layer is a scaled kernel.
_ELEMENTWISE = frozenset(
    getattr(keras.activations, name)
    for name in (
        "celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear "
        "log_sigmoid mish relu relu6 selu sigmoid silu soft_shrink softplus softsign squareplus "
        "tanh tanh_shrink threshold"
    ).split()
)


@serializable
class Contractive(JacobianNorm):
    """`‖∂h/∂x‖²` of an encoder h(x), averaged over the batch.

    In closed form for a `Dense` layer with an activation that works entry by entry:
    `Σⱼ a'(zⱼ)² ‖wⱼ‖²`, with wⱼ the j-th column of the kernel, at the cost of a product of vectors.
    For every other encoder as `JacobianNorm`, exact by default.

    Attach it to the encoder inside an autoencoder: `SensitivityPenalty(encoder, Contractive(0.1))`.

    Args:
        strength: As in `SensitivityRegularizer`.
        num_projections: As in `JacobianNorm`, where there is no closed form; default `"exact"`.
        name: As in `SensitivityRegularizer`.

    Raises:
        ConfigurationError: a bad argument.

    Cost: Next to none in closed form; else as `JacobianNorm`.

    References:
        Rifai, Vincent, Muller, Glorot and Bengio (2011), Contractive Auto-Encoders, ICML.

    Example:

    >>> encoder = keras.layers.Dense(2, "sigmoid", kernel_initializer="ones")
    >>> float(Contractive(1.0)(encoder, tf.zeros([4, 3])))
    0.375
    """

    def __init__(
        self,
        strength: Strength,
        num_projections: int | Literal["exact"] = "exact",
        name: str = "contractive",
    ) -> None:
        super().__init__(strength, num_projections, name=name)

    def penalty(self, batch: Batch) -> Tensor:
        """The mean over the examples."""
        layer = batch.replay.layer
        # Exactly a Dense: a subclass may compute anything.
        closed = type(layer) is keras.layers.Dense and layer.activation in _ELEMENTWISE
        if not closed or not tf.is_tensor(batch.inputs):
            return super().penalty(batch)
        x, kernel = tf.cast(batch.inputs, layer.compute_dtype), tf.convert_to_tensor(layer.kernel)
        kernel = tf.cast(kernel, x.dtype)
        z = tf.linalg.matmul(x, kernel) if x.shape.rank == 2 else tf.tensordot(x, kernel, 1)
        if layer.bias is not None:
            z += tf.cast(tf.convert_to_tensor(layer.bias), z.dtype)
        # The activation acts entry by entry: along ones its JVP is the slope in each.
        _, slopes = double_gradient.jvp(layer.activation, z, tf.ones_like(z))
        # Squares of half precision overflow beyond 255.
        wide = tf.float64 if z.dtype == tf.float64 else tf.float32
        squares = tf.square(tf.cast(slopes, wide))
        of_columns = tf.reduce_sum(tf.square(tf.cast(kernel, wide)), axis=0)
        axes = list(range(1, squares.shape.rank))
        return tf.reduce_mean(tf.reduce_sum(squares * of_columns, axis=axes))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = super().get_config()
        del config["features"]
        return config
