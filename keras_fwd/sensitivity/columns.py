"""A model's inputs and outputs as flat, named columns, and the derivatives between them."""

import itertools
import re

import numpy as np
import tensorflow as tf

from keras_fwd import nest
from keras_fwd.derivatives import jacobian
from keras_fwd.errors import ConfigurationError

_AUTOMATIC = re.compile(r"(input_layer|keras_tensor)(_\d+)?")  # names that Keras makes up


class FlatJacobian:
    """The derivatives of all outputs by all floating-point inputs, one matrix an example.

    Attributes:
        output_names: One name for each column of the outputs; None before the first call.
    """

    def __init__(self, model):
        self.output_names = None
        self._model = model
        self._compute = tf.function(self._columns, autograph=False, reduce_retracing=True)

    def __call__(self, x):
        """The columns of a batch.

        Args:
            x: Nest of tensors.

        Returns:
            `(features, derivatives)`, `[batch, features]` and `[batch, features, outputs]`, both
            NumPy float64.

        Raises:
            StructureError, LeakError: As `keras_fwd.jacobian`.

        Cost: As `keras_fwd.jacobian` with `per_example=True`.
        """
        features, derivatives = self._compute(x)
        return features.numpy(), derivatives.numpy()

    @tf.autograph.experimental.do_not_convert
    def _call(self, x):
        outputs = self._model(x, training=False)
        self.output_names = _output_names(self._model, outputs)
        return outputs

    def _columns(self, x):
        leaves = [leaf for leaf in nest.flatten(x) if nest.is_differentiable(leaf.dtype)]
        blocks = nest.live(jacobian(self._call, x, per_example=True))  # inputs vary fastest
        sizes = itertools.cycle(leaf.shape[1:].num_elements() for leaf in leaves)
        blocks = [_flat(block, [-1, size]) for block, size in zip(blocks, sizes, strict=False)]
        rows = [
            tf.concat(blocks[start : start + len(leaves)], axis=2)
            for start in range(0, len(blocks), len(leaves))
        ]
        derivatives = tf.transpose(tf.concat(rows, axis=1), [0, 2, 1])
        return tf.concat([_flat(leaf, [-1]) for leaf in leaves], axis=1), derivatives


def _flat(tensor, shape):
    """`[batch, *shape]`, float64."""
    return tf.cast(tf.reshape(tensor, [tf.shape(tensor)[0], *shape]), tf.float64)


def input_columns(model, x):
    """The names of a model's features, and of its inputs that have no derivative.

    Args:
        model: Keras model or layer.
        x: Nest of tensors.

    Returns:
        `(features, others)`: `name[3]` for each component of a floating-point input, and the
        names of the integer, boolean and text inputs.

    Raises:
        ConfigurationError: There is no floating-point input.
    """
    features, others = [], []
    for name, leaf in zip(input_stems(model, x), nest.flatten(x), strict=True):
        if nest.is_differentiable(leaf.dtype):
            features += components(name, leaf.shape[1:])
        else:
            others.append(name)
    if not features:
        raise ConfigurationError(
            "sensitivity_report: `model` must have a floating-point input to differentiate by. "
            f"Received: inputs {nest.describe(x)}. For a model of token numbers, report on the "
            "part that follows the embedding."
        )
    return features, others


def input_stems(model, x):
    """A name for each leaf of a model's inputs."""
    if isinstance(x, dict) and not any(tf.nest.is_nested(value) for value in x.values()):
        return [str(key) for key in sorted(x)]
    declared = [tensor.name for tensor in getattr(model, "inputs", None) or []]
    leaves = nest.flatten(x)
    if len(declared) == len(leaves) and not any(map(_AUTOMATIC.fullmatch, declared)):
        return declared
    return [f"x{path}" for path in nest.paths(x)]


def _output_names(model, outputs):
    leaves = nest.flatten(outputs)
    names = getattr(model, "output_names", None) or []
    if isinstance(outputs, dict) and len(outputs) == len(leaves):
        stems = [str(key) for key in sorted(outputs)]
    elif len(leaves) > 1 and len(names) == len(leaves):
        stems = names
    else:
        stems = [f"y{path}" for path in nest.paths(outputs)]
    return [
        name
        for stem, leaf in zip(stems, leaves, strict=True)
        if nest.is_differentiable(leaf.dtype)
        for name in components(stem, leaf.shape[1:])
    ]


def components(stem, shape):
    """One name for each entry of a tensor of that shape (without the batch)."""
    if shape.num_elements() == 1:
        return [stem]
    return [f"{stem}[{','.join(map(str, index))}]" for index in np.ndindex(*shape)]
