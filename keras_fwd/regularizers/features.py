"""Which inputs a penalty speaks of: names and places of features, as numbers for each component."""

import numbers

import numpy as np
import tensorflow as tf

from keras_fwd._checks import check_number
from keras_fwd._models.names import components, input_stems
from keras_fwd._spaces import nest
from keras_fwd.errors import ConfigurationError, StructureError


def checked(call, features):
    """The weights as a dict or an array.

    Raises:
        ConfigurationError: Not a dict, array or None; or a weight that is negative or not finite.
    """
    if features is None:
        return None
    if isinstance(features, dict):
        for key, weight in features.items():
            check_key(call, key)
            check_number(call, f"features[{key!r}]", weight)
        return dict(features)
    try:
        array = np.asarray(features, dtype="float64")
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if not array.ndim or not np.isfinite(array).all() or (array < 0).any():
        raise ConfigurationError(
            f"{call}: `features` must be a dict from features to weights, or an array of weights, "
            f"finite and at least 0. Received: features={features!r}."
        )
    return array


def check_key(call, key):
    """Raise `ConfigurationError` unless a feature is a name or a whole number."""
    place = isinstance(key, numbers.Integral) and not isinstance(key, bool)
    if not place and not isinstance(key, str):
        raise ConfigurationError(
            f"{call}: a feature must be a name, or its place in the last axis of the inputs. "
            f"Received: {key!r}."
        )


def config(features):
    """Features as JSON can hold them; it knows no keys but texts."""
    if isinstance(features, dict):
        # Pairs, for a key may be a number.
        return {"by_name": [[key, weight] for key, weight in features.items()]}
    return None if features is None else features.tolist()


def from_config(features):
    """Inverse of `config`."""
    if isinstance(features, dict) and set(features) == {"by_name"}:
        return dict(features["by_name"])
    return features


def weights(batch, features):
    """The weight of each component of each input.

    Args:
        batch: `Batch`.
        features: Dict from features to numbers, or an array of the shape of one example.

    Returns:
        Nest like `batch.inside`, tensors of the shape of one example.
    """
    if isinstance(features, dict):
        resolved = resolve(batch, features, default=1.0)
        return nest.map_live(lambda x, w: tf.constant(w, x.dtype), batch.inside, resolved)
    leaves = nest.live(batch.inside)
    shapes = [leaf.shape[1:] for leaf in leaves]
    if len(leaves) != 1 or not shapes[0].is_compatible_with(features.shape):
        raise StructureError(
            f"{batch.call}: `features` must have the shape of one example, here "
            f"{', '.join(map(str, shapes))}. Received: an array of shape {features.shape}."
        )
    return nest.map_live(lambda leaf: tf.constant(features, leaf.dtype), batch.inside)


def resolve(batch, features, default):
    """A number for each component of the inputs, from numbers by feature.

    Args:
        batch: `Batch`.
        features: Dict from a name of an input or component, or a place in the last axis.
        default: The number of components that are not named.

    Returns:
        Nest like `batch.inside`, arrays of the shape of one example.

    Raises:
        ConfigurationError: The model has no such feature.
    """
    stems = input_stems(batch.replay.layer, batch.inputs)
    leaves = nest.flatten(batch.inside)
    shapes = [None if leaf is None else _example_shape(leaf) for leaf in leaves]
    arrays = [None if shape is None else np.full(shape, float(default)) for shape in shapes]
    for key, number in features.items():
        pairs = zip(arrays, stems, strict=True)
        if not any([_set(array, stem, key, number) for array, stem in pairs]):
            raise ConfigurationError(
                f"{batch.call}: `features` must name inputs of the model. Received: {key!r}; the "
                f"model has {_known(stems, arrays)}."
            )
    return nest.pack(batch.inside, arrays)


def _example_shape(leaf):
    """The shape of one example, with 1 (which is broadcast) for unknown lengths."""
    return [1 if n is None else n for n in leaf.shape[1:]]


def _set(array, stem, key, number):
    if array is None:
        return False
    if isinstance(key, numbers.Integral):
        if not array.ndim or not -array.shape[-1] <= key < array.shape[-1]:
            return False
        array[..., key] = number
        return True
    if key == stem:
        array[...] = number
        return True
    names = components(stem, tf.TensorShape(array.shape))
    if key in names:
        array.flat[names.index(key)] = number
        return True
    return False


def _known(stems, arrays):
    pairs = zip(stems, arrays, strict=True)
    live = [(stem, array) for stem, array in pairs if array is not None]
    return ", ".join(
        f"{stem!r}" + (f" (shape {array.shape}: {stem}[0], …)" if array.size > 1 else "")
        for stem, array in live
    )
