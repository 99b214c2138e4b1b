"""`Monotonic`: outputs that must not fall, or not rise, with chosen inputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_fwd._derivatives import example_jacobians
from keras_fwd._models.serializable import serializable
from keras_fwd._spaces import given, nest
from keras_fwd.errors import ConfigurationError, StructureError
from keras_fwd.regularizers import features as by_feature
from keras_fwd.regularizers.base import SensitivityRegularizer
from keras_fwd.regularizers.batch import Batch
from keras_fwd.regularizers.examples import each, squared_norms
from keras_fwd.typing import Feature, Strength, Tensor


@serializable
class Monotonic(SensitivityRegularizer):
    """`Σ max(0, −sign · ∂yₒ/∂xᵢ)²` over the chosen inputs i and all outputs o; the mean.

    Args:
        strength: As in `SensitivityRegularizer`.
        features: A feature or a list of them: the name of an input, of one of its components
            (`"name[3]"`, as in a sensitivity report), or its place in the last axis of the inputs.
        sign: 1 where the outputs must not fall with the feature, −1 where they must not rise; one
            for all features, or a list of one for each. Default 1.
        name: As in `SensitivityRegularizer`.

    Raises:
        ConfigurationError: a bad argument, or a feature that the model does not have.

    Cost: A product for each output, or for each component of the chosen inputs if those are fewer.

    References:
        Gupta, Shukla, Marla, Kolbeinsson and Yellepeddi (2019), How to Incorporate Monotonicity in
        Deep Networks While Preserving Flexibility?, arXiv:1909.10662.

    Example:

    >>> import keras
    >>> falling = keras.layers.Lambda(lambda x: -2.0 * x)
    >>> float(Monotonic(1.0, 0)(falling, tf.ones([4, 1])))
    4.0
    >>> float(Monotonic(1.0, 0, sign=-1)(falling, tf.ones([4, 1])))
    0.0
    """

    def __init__(
        self,
        strength: Strength,
        features: Feature | Sequence[Feature],
        sign: int | Sequence[int] = 1,
        name: str = "monotonic",
    ) -> None:
        super().__init__(strength, name)
        call = type(self).__name__
        several = isinstance(features, (list, tuple))
        self.features: list[Any] = list(features) if several else [features]
        signs = list(sign) if isinstance(sign, (list, tuple)) else [sign] * len(self.features)
        for key in self.features:
            by_feature.check_key(call, key)
        if not self.features or len(signs) != len(self.features) or set(signs) - {1, -1}:
            raise ConfigurationError(
                f"{call}: `sign` must be 1 or -1, or a list of one for each of at least one "
                f"feature. Received: features={features!r}, sign={sign!r}."
            )
        self.sign: list[int] = [int(s) for s in signs]

    def penalty(self, batch: Batch) -> Tensor:
        """The mean over the examples."""
        named = dict(zip(self.features, self.sign, strict=True))
        signs = by_feature.resolve(batch, named, default=0.0)
        J, inside, outside = batch.jacobian, batch.inside, batch.outside
        rows = example_jacobians.example_size(outside)
        chosen = None
        if example_jacobians.example_size(inside) is not None:
            chosen = np.flatnonzero(np.concatenate([np.ravel(s) for s in nest.live(signs)]))
        if rows is None and chosen is None:
            raise StructureError(
                f"{batch.call} needs inputs or outputs of a known shape. Received: inputs "
                f"{given.describe(inside)}, outputs {given.describe(outside)}."
            )
        signs = nest.map_live(lambda x, s: tf.constant(s, x.dtype), inside, signs)
        # Whichever takes fewer products: pullbacks of outputs, or pushforwards of the features.
        if chosen is None or (rows is not None and rows <= len(chosen)):

            def of_output(index):
                one = batch.basis(outside, index, tf.ones([batch.size], batch.dtype))
                wrong = nest.map_live(lambda g, s: tf.nn.relu(-s * g), J.T(one), signs)
                return squared_norms(wrong)

            total = each(of_output, tf.range(rows))
        else:

            def of_feature(index):
                one = batch.basis(inside, index, tf.ones([batch.size], batch.dtype))
                moved = J(nest.map_live(lambda u, s: s * u, one, signs))
                return squared_norms(nest.map_live(lambda g: tf.nn.relu(-g), moved))

            total = each(of_feature, tf.constant(chosen, tf.int32))
        return tf.reduce_mean(tf.reduce_sum(total, axis=0))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "features": self.features, "sign": self.sign}
