"""A robust loss that Keras lacks."""

from typing import Any

import keras

from keras_fwd._checks import check_number
from keras_fwd._models.serializable import serializable
from keras_fwd.typing import Function, Tensor, TensorLike

__all__ = ["Cauchy", "cauchy"]


@serializable
def cauchy(y_true: TensorLike, y_pred: TensorLike, scale: float = 1.0) -> Tensor:
    """Cauchy's loss: `scale² / 2 · log(1 + (y_true − y_pred)² / scale²)`, mean of the last axis.

    Args:
        y_true: Targets, `[batch, …, d]`.
        y_pred: Outputs, the same shape.
        scale: As of `Cauchy`.

    Returns:
        `[batch, …]`, in the dtype of the outputs.

    Example:

    >>> cauchy([[0.0], [0.0]], [[0.1], [100.0]]).numpy().round(3)
    array([0.005, 4.605], dtype=float32)
    """
    outputs: Any = keras.ops.convert_to_tensor(y_pred)
    targets: Any = keras.ops.cast(y_true, outputs.dtype)
    # Small residuals keep their digits, which 1 + r² would swallow.
    logarithms: Any = keras.ops.log1p(((targets - outputs) / scale) ** 2)
    return keras.ops.mean(scale**2 / 2 * logarithms, axis=-1)


@serializable
class Cauchy(keras.losses.Loss):
    """Cauchy's robust loss, `scale² / 2 · log(1 + r² / scale²)` of each residual `r`.

    Near zero it is half the square, as Huber's; far away it grows as a logarithm, so that an
    outlier counts the less the further away it is: it is not convex. `scipy.optimize.least_squares`
    has it as `loss="cauchy"` with `f_scale`.

    Args:
        scale: The residual from which the loss counts as far, in units of the target: positive.
            Default 1.0.
        reduction: As of `keras.losses.Loss`.
        name: Name of the loss.
        dtype: As of `keras.losses.Loss`.

    Raises:
        ConfigurationError: `scale` is not a positive number.

    Example:

    >>> round(float(Cauchy(scale=2.0)([[0.0, 0.0]], [[2.0, 0.0]])), 4)  # log(2)
    0.6931
    """

    fn: Function = staticmethod(cauchy)  # what the loss is known by, as Keras' own

    def __init__(
        self,
        scale: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "cauchy",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        check_number("Cauchy", "scale", scale, above=True)
        self.scale: float = float(scale)

    def call(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        """The loss of each example."""
        targets: Any = keras.ops.convert_to_tensor(y_true)
        outputs: Any = keras.ops.convert_to_tensor(y_pred)
        if len(targets.shape) == len(outputs.shape) - 1:
            targets = keras.ops.expand_dims(targets, -1)
        return cauchy(targets, outputs, self.scale)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "scale": self.scale}
