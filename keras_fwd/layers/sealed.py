"""Layers and models that plain tapes differentiate by the rules of this package."""

from typing import Any

import keras
import tensorflow as tf

from keras_fwd._derivatives import double_gradient
from keras_fwd._leaks import search
from keras_fwd._models.serializable import serializable
from keras_fwd._models.training_pass import Recorder
from keras_fwd._models.wrapping import options
from keras_fwd._rules import sealing
from keras_fwd._rules.transposes import local
from keras_fwd._spaces import nest
from keras_fwd.typing import Nest

# A function whose derivatives by any tape, to any order, are those of this package.


def sealed_function(fn):
    """Wrap a function so that plain TensorFlow tapes differentiate it exactly.

    Args:
        fn: Function of a list of floating-point tensors that returns a nest of them. It must
            read no variable and write none.

    Returns:
        Function of the same value. Its gradient is the `vjp` of `fn`, wrapped in the same way, and
        so is the gradient of its gradient.

    Cost: Each gradient runs what it differentiates once more.

    Example:

    >>> square = sealed_function(lambda xs: xs[0] * xs[0])
    >>> float(square([tf.constant(3.0)]))
    9.0
    """

    def call(sources):
        structure = []

        @tf.custom_gradient
        def run(*sources):
            outputs = fn(list(sources))
            structure.append(outputs)

            def gradient(*cotangents):
                def pullback(arguments):
                    sources, cotangents = arguments[:count], arguments[count:]
                    cotangents = nest.pack(outputs, cotangents)
                    return double_gradient.vjp(fn, sources, cotangents)[1]

                return sealed_function(pullback)(local([*sources, *cotangents]))

            return nest.flatten(outputs), gradient

        count = len(sources)
        leaves = run(*sources)
        return nest.pack(structure[0], leaves)

    return call


def call_sealed(layer, inputs, given):
    """The outputs of a layer, whose derivatives are those of `sealed_function`.

    What it updates (statistics, seeds) is updated once; a gradient runs the layer again from the
    state before.
    """
    if sealing.active():  # the rules hold already
        return layer(inputs, **given)
    leaves = nest.flatten(inputs)
    live = [nest.is_differentiable(leaf.dtype) for leaf in leaves]
    weights = [v for v in layer.variables if nest.is_differentiable(tf.as_dtype(v.dtype))]
    # By identity: `in` would compare the values.
    state = [v for v in layer.variables if not any(v is w for w in weights)]
    before = [tf.identity(v.value) for v in state]
    xs = [leaf for leaf, on in zip(leaves, live, strict=True) if on]
    scopes = []

    def function(sources):
        values = iter(sources)
        now = [next(values) if on else leaf for leaf, on in zip(leaves, live, strict=True)]
        with Recorder([*weights, *state], [*values, *before]) as scope:
            outputs = layer(nest.pack(inputs, now), **given)
        scopes.append(scope)
        return outputs

    # As arguments, for a gradient by the weights must find them.
    values = [tf.convert_to_tensor(w.value) for w in weights]
    # By this name `find_leaks` knows that what is inside is right.
    with tf.name_scope(search.SEAL):
        outputs = sealed_function(function)([*xs, *values])
    scopes[0].commit(True)
    return outputs


@serializable
class Sealed(keras.layers.Wrapper):
    """A layer whose derivatives are right under any tape, to any order.

    Args:
        layer: A Keras layer. Its weights are shared, its outputs the same to the bit.
        **kwargs: As of `keras.layers.Wrapper`.

    Raises:
        LeakError: when a derivative is taken: there is no rule for an op of the layer.

    Cost: Each gradient runs the layer once more.

    Example:

    >>> import numpy as np
    >>> layer = Sealed(keras.layers.LayerNormalization())
    >>> layer(np.ones([1, 3], "float32")).shape
    TensorShape([1, 3])
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(layer, **kwargs)
        self.supports_masking: bool = layer.supports_masking

    def call(self, inputs: Nest, training: bool | None = None, mask: Nest | None = None) -> Nest:
        """The outputs of the layer."""
        return call_sealed(self.layer, inputs, options(self.layer, training, mask))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the layer."""
        return self.layer.compute_output_shape(input_shape)

    def compute_mask(self, inputs: Nest, previous_mask: Nest | None) -> Nest | None:
        """That of the layer."""
        return self.layer.compute_mask(inputs, previous_mask)


@serializable
class SealedModel(keras.Model):
    """A subclassed model, wrapped whole as `Sealed` wraps a layer.

    Args:
        model: A built Keras model.
    """

    def __init__(self, model, **kwargs):
        super().__init__(**kwargs)
        self.model = model

    def build(self, input_shape):
        """The model is built."""
        if not self.model.built:
            self.model.build(input_shape)

    def call(self, inputs, training=None):
        """The outputs of the model."""
        return call_sealed(self.model, inputs, options(self.model, training))

    def get_config(self):
        """With that of the model."""
        config = super().get_config()
        return {**config, "model": keras.saving.serialize_keras_object(self.model)}

    @classmethod
    def from_config(cls, config):
        """The inverse of `get_config`."""
        model = keras.saving.deserialize_keras_object(config.pop("model"))
        return cls(model, **config)
