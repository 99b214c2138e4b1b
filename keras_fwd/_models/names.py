"""What the inputs and outputs of a model are called, entry by entry."""

import re

import numpy as np
import tensorflow as tf

from keras_fwd._spaces import nest

_AUTOMATIC = re.compile(r"(input_layer|keras_tensor)(_\d+)?")  # names that Keras makes up


def input_stems(model, x):
    """A name for each leaf of a model's inputs."""
    if isinstance(x, dict) and not any(tf.nest.is_nested(value) for value in x.values()):
        return [str(key) for key in sorted(x)]
    declared = [tensor.name for tensor in getattr(model, "inputs", None) or []]
    leaves = nest.flatten(x)
    # A name that Keras made up says nothing, and changes from model to model.
    if len(declared) == len(leaves) and not any(map(_AUTOMATIC.fullmatch, declared)):
        return declared
    return [f"x{path}" for path in nest.paths(x)]


def output_names(model, outputs):
    """A name for each entry of a model's floating-point outputs."""
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
    if tf.TensorShape(shape).num_elements() == 1:
        return [stem]
    return [f"{stem}[{','.join(map(str, index))}]" for index in np.ndindex(*shape)]
