"""`JacobianNorm`: the squared Frobenius norm of each example's Jacobian."""

from collections.abc import Mapping
from typing import Any, Literal, Self

import tensorflow as tf

from keras_fwd._checks import check_count
from keras_fwd._derivatives import example_jacobians
from keras_fwd._models.serializable import serializable
from keras_fwd._spaces import given, nest
from keras_fwd.errors import ConfigurationError, StructureError
from keras_fwd.regularizers import features as by_feature
from keras_fwd.regularizers.base import SensitivityRegularizer
from keras_fwd.regularizers.batch import Batch
from keras_fwd.regularizers.examples import each, squared_norms
from keras_fwd.typing import Nest, Strength, Tensor


@serializable
class JacobianNorm(SensitivityRegularizer):
    """`‖J‖² = Σ (∂yₒ/∂xᵢ)²` of each example, averaged over the batch.

    Estimated without bias by `‖J u‖²` for random u with `E u uᵀ = I`, on whichever side of the
    Jacobian has fewer components; new u in every step. With `features`, `Σ wᵢ (∂yₒ/∂xᵢ)²`.

    Args:
        strength: As in `SensitivityRegularizer`.
        num_projections: How many random u each example gets, default 1; or `"exact"`: one product
            for each component of the smaller side.
        features: Weights, to damp chosen inputs more: a dict from the name of an input, of one of
            its components (`"name[3]"`, as in a sensitivity report) or its place in the last axis
            (a whole number) to a number of at least 0, 1 for those not named; or an array of the
            shape of one example. None (default): all 1.
        name: As in `SensitivityRegularizer`.

    Raises:
        ConfigurationError: a bad argument, or a feature that the model does not have.

    Cost: A training step takes about twice as long as without it for one projection.

    References:
        Hoffman, Roberts and Yaida (2019), Robust Learning with Jacobian Regularization,
        arXiv:1908.02729 (with a factor of 1/2, which is not here).

    Example:

    >>> import keras
    >>> linear = keras.layers.Dense(1, kernel_initializer="ones")
    >>> float(JacobianNorm(0.5, num_projections="exact")(linear, tf.ones([4, 3])))
    1.5
    """

    def __init__(
        self,
        strength: Strength,
        num_projections: int | Literal["exact"] = 1,
        features: Mapping[Any, float] | Nest | None = None,
        name: str = "jacobian_norm",
    ) -> None:
        super().__init__(strength, name)
        call = type(self).__name__
        if isinstance(num_projections, str) and num_projections != "exact":
            raise ConfigurationError(
                f'{call}: `num_projections` must be a whole number of at least 1, or "exact". '
                f"Received: num_projections={num_projections!r}."
            )
        if num_projections != "exact":
            check_count(call, "num_projections", num_projections)
        self.num_projections = num_projections
        self.features: Any = by_feature.checked(call, features)

    def penalty(self, batch: Batch) -> Tensor:
        """The mean over the examples."""
        scales = None
        if self.features is not None:
            weights = by_feature.weights(batch, self.features)
            # The norm is squared: Σᵢ wᵢ ‖J eᵢ‖² = ‖J √w‖².
            scales = nest.map_live(tf.sqrt, weights)
        product, space = batch.from_smaller_side(scales)
        if self.num_projections != "exact":
            squares = [
                squared_norms(product(batch.random(space, batch.seed(k))))
                for k in range(self.num_projections)
            ]
            return tf.reduce_mean(squares)
        width = example_jacobians.example_size(space)
        if width is None:
            raise StructureError(
                f'{batch.call}: num_projections="exact" needs inputs or outputs of a known shape. '
                f"Received: inputs {given.describe(batch.inside)}, outputs "
                f"{given.describe(batch.outside)}. Use a number of projections."
            )
        signs = batch.signs(space, batch.seed(0))
        squares = each(
            lambda index: squared_norms(product(batch.basis(space, index, signs))),
            tf.range(width),
        )
        return tf.reduce_mean(tf.reduce_sum(squares, axis=0))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "num_projections": self.num_projections,
            "features": by_feature.config(self.features),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The inverse of `get_config`."""
        if "features" in config:
            config = {**config, "features": by_feature.from_config(config["features"])}
        return super().from_config(config)
