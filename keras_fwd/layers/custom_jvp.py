"""A layer or function in a Keras model, with a JVP rule of the user's."""

from collections.abc import Callable
from typing import Any, Self

import keras
import tensorflow as tf

from keras_fwd._derivatives import double_gradient, functional
from keras_fwd._derivatives.custom_jvp import custom_jvp
from keras_fwd._models.serializable import serializable
from keras_fwd._models.training_pass import Recorder
from keras_fwd._spaces import nest
from keras_fwd.typing import Function, Nest


@serializable
class CustomJVP(keras.layers.Layer):
    """Gives a function or a layer the JVP rule you write, inside of a Keras model.

    Right under `jvp`, `vjp`, their compositions and gradients of them, as `custom_jvp` is.

    Args:
        function: Function of one argument (any nest of tensors), or a Keras layer. To be saved, a
            function is registered with `keras.saving.register_keras_serializable`.
        rule: For a function `rule(primals, tangents) -> (outputs, output_tangents)`, for a layer
            `rule(layer, primals, tangents)`, which may read the layer's weights. Linear in the
            tangents. The derivative by the weights of a layer is that of its own ops.
        **kwargs: As of `keras.layers.Layer`.

    Raises:
        ConfigurationError: `function` or `rule` cannot be called.
        StructureError: the rule does not fit what the function returns.

    Cost: As `custom_jvp`; around a layer with weights a pushforward also costs a JVP of the layer
        by them.

    Example:

    >>> import numpy as np
    >>> def exact(x, dx):
    ...     return tf.nn.softplus(x), dx * tf.sigmoid(x)
    >>> layer = CustomJVP(tf.nn.softplus, exact)
    >>> _, tangent = double_gradient.jvp(layer, np.zeros([1], "float32"), np.ones([1], "float32"))
    >>> tangent.numpy()
    array([0.5], dtype=float32)
    """

    def __init__(
        self, function: Function, rule: Callable[..., tuple[Nest, Nest]], **kwargs: Any
    ) -> None:
        functional.check_callable("CustomJVP", "function", function)
        functional.check_callable("CustomJVP", "rule", rule)
        super().__init__(**kwargs)
        self.function = function
        self.rule = rule
        self.supports_masking: bool = getattr(function, "supports_masking", True)

    @property
    def _wraps_layer(self):
        return isinstance(self.function, keras.Layer)

    def build(self, input_shape: Any) -> None:
        """Build the wrapped layer."""
        if self._wraps_layer and not self.function.built:
            self.function.build(input_shape)

    def call(self, inputs: Nest, training: bool | None = None) -> Nest:
        """The outputs of the function."""
        if not self._wraps_layer:
            ruled = custom_jvp(self.function)
            ruled.defjvp(self.rule)
            return ruled(inputs)
        weights = list(self.function.trainable_variables)
        options = {} if training is None else {"training": training}
        scopes = []

        def with_weights(primals, call):
            with Recorder(weights, primals["weights"]) as scope:
                result = call(primals["inputs"])
            scopes.append(scope)
            return result

        def forward(primals):
            return with_weights(primals, lambda x: self.function(x, **options))

        def rule(primals, tangents):
            outputs, pushed = with_weights(
                primals, lambda x: self.rule(self.function, x, tangents["inputs"])
            )
            if weights:
                # The rule speaks of the inputs alone: the weights' part comes from the layer's own
                # ops.
                _, by_weights = double_gradient.jvp(
                    lambda w: forward({"inputs": primals["inputs"], "weights": w}),
                    primals["weights"],
                    tangents["weights"],
                )
                pushed = nest.map_live(tf.add, pushed, by_weights)
            return outputs, pushed

        ruled = custom_jvp(forward)
        ruled.defjvp(rule)
        values = [tf.convert_to_tensor(w.value) for w in weights]
        outputs = ruled({"inputs": inputs, "weights": values})
        # Statistics and seeds of the first, real call; rules evaluate the layer again and must
        # leave none.
        scopes[0].commit(True)
        return outputs

    def get_config(self) -> dict[str, Any]:
        """With the function and the rule."""
        serialize = keras.saving.serialize_keras_object
        own = {"function": serialize(self.function), "rule": serialize(self.rule)}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The inverse of `get_config`."""
        revive = keras.saving.deserialize_keras_object
        own = {name: revive(config.pop(name)) for name in ("function", "rule")}
        return cls(**own, **config)
