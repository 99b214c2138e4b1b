"""`Directional`: tangent propagation."""

from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from keras_fwd._models.serializable import serializable
from keras_fwd._spaces import given, nest
from keras_fwd.errors import ConfigurationError, StructureError
from keras_fwd.regularizers.base import SensitivityRegularizer
from keras_fwd.regularizers.batch import Batch
from keras_fwd.regularizers.examples import squared_norms
from keras_fwd.typing import Strength, Tensor

# Tangents of images: how each pixel changes when the image is shifted, rotated or scaled.


def image_gradients(images):
    """`(along rows, along columns)`: central differences of images, in values per pixel.

    Args:
        images: `[batch, height, width]` or `[batch, height, width, channels]`.
    """

    def difference(axis):
        padding = [[0, 0]] * images.shape.rank
        padding[axis] = [1, 1]
        # The edge repeated: the difference there is one-sided, and halved.
        padded = tf.pad(images, padding, "SYMMETRIC")
        begin, size = [0] * images.shape.rank, [-1] * images.shape.rank
        size[axis] = tf.shape(images)[axis]
        before = tf.slice(padded, begin, size)
        begin[axis] = 2
        return (tf.slice(padded, begin, size) - before) / 2

    return difference(1), difference(2)


def _positions(images):
    """Distances from the center in pixels, along rows and along columns."""

    def distance(axis):
        count = tf.shape(images)[axis]
        places = tf.cast(tf.range(count), images.dtype)
        shape = [1] * images.shape.rank
        shape[axis] = -1
        return tf.reshape(places - tf.cast(count - 1, images.dtype) / 2, shape)

    return distance(1), distance(2)


def shift(images):
    """By one pixel: two tangents, down and to the right, `[2, *images.shape]`."""
    down, right = image_gradients(images)
    return -tf.stack([down, right])


def rotation(images):
    """By one radian about the center, counter-clockwise as displayed: `[1, *images.shape]`."""
    down, right = image_gradients(images)
    y, x = _positions(images)
    # The pixel at (y, x) shows what was at (y, x) turned back: it came from (y + θ x, x − θ y).
    return (x * down - y * right)[None]


def scale(images):
    """Enlarged about the center by a factor of e, in the small: `[1, *images.shape]`."""
    down, right = image_gradients(images)
    y, x = _positions(images)
    return -(y * down + x * right)[None]


TANGENTS = {"shift": shift, "rotation": rotation, "scale": scale}


def of_images(call, name, inputs):
    """The built-in tangents of that name: nest like the inputs, one more axis in front.

    Raises:
        StructureError: The inputs are not one tensor of images.
    """
    leaves = nest.flatten(inputs)
    if len(leaves) != 1 or leaves[0].shape.rank not in (3, 4):
        raise StructureError(
            f"{call}: directions={name!r} needs one input of images, [batch, height, width] or "
            f"[batch, height, width, channels]. Received: {given.describe(inputs)}. For inputs of "
            "another form give a function from a batch to its directions."
        )
    return nest.pack(inputs, [TANGENTS[name](leaves[0])])


@serializable
class Directional(SensitivityRegularizer):
    """`Σ ‖J t‖²` over directions t at each example, averaged over the batch.

    Zero for a model that does not change when its inputs move along the directions.

    Args:
        strength: As in `SensitivityRegularizer`.
        directions: One of the following, or a list of several.

            - an array of the shape of one example, or of several directions, `[count, …]`: the
              same for all examples (a nest of arrays for a nest of inputs);
            - a function from the inputs of a batch to directions for it: like the inputs, or with
              one more axis in front for several. To give directions as data, let the inputs be a
              dict, and the function return an entry of it;
            - `"shift"` (two tangents, by one pixel), `"rotation"` (by one radian about the
              center) or `"scale"` (by a factor of e), of images
              `[batch, height, width(, channels)]`, from central differences between pixels.
        name: As in `SensitivityRegularizer`.

    Raises:
        ConfigurationError: a bad argument.
        StructureError: directions of another shape than the inputs, or tangents of images for
            inputs that are none.

    Cost: A product with the Jacobian for each direction, and its derivative.

    References:
        Simard, Victorri, LeCun and Denker (1992), Tangent Prop, NIPS 4.

    Example:

    >>> total = keras.layers.Lambda(lambda x: tf.reduce_sum(x, axis=1))
    >>> float(Directional(1.0, [1.0, -1.0])(total, tf.ones([4, 2])))
    0.0
    >>> float(Directional(1.0, [[1.0, -1.0], [1.0, 0.0]])(total, tf.ones([4, 2])))
    1.0
    """

    def __init__(self, strength: Strength, directions: Any, name: str = "directional") -> None:
        super().__init__(strength, name)
        # A list of numbers is one array.
        several = isinstance(directions, (list, tuple)) and any(
            isinstance(part, (str, np.ndarray)) or callable(part) for part in directions
        )
        self.directions: list[Any] = [
            _checked(part) for part in (directions if several else [directions])
        ]

    def penalty(self, batch: Batch) -> Tensor:
        """The mean over the examples."""
        total = []
        for part in self.directions:
            stacked = _stacked(batch, part)
            for k in range(nest.live(stacked)[0].shape[0]):
                u = nest.map_live(lambda leaf, k=k: leaf[k], stacked)
                total.append(tf.reduce_mean(squared_norms(batch.jacobian(u))))
        return tf.add_n(total)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "directions": [_config(part) for part in self.directions]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The inverse of `get_config`."""
        parts = [_from_config(part) for part in config["directions"]]
        return super().from_config({**config, "directions": parts})


def _checked(part):
    if callable(part):
        return part
    if isinstance(part, str):
        if part not in TANGENTS:
            raise ConfigurationError(
                "Directional: `directions` must be an array, a function of a batch, or one of "
                f"{', '.join(map(repr, TANGENTS))}. Received: directions={part!r}."
            )
        return part
    return tf.nest.map_structure(_array, part) if isinstance(part, (dict, tuple)) else _array(part)


def _array(values):
    try:
        array = np.asarray(values, dtype="float64")
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if not array.size or not np.isfinite(array).all():
        raise ConfigurationError(
            f"Directional: `directions` must hold finite numbers. Received: directions={values!r}."
        )
    return array


def _stacked(batch, part):
    """Nest like `batch.inside` of tensors `[count, batch, …]`."""
    if isinstance(part, str):
        chosen, shared = of_images(batch.call, part, batch.inside), False
    elif callable(part):
        chosen, shared = part(batch.inputs), False
    else:
        chosen, shared = part, True
    try:
        tf.nest.assert_same_structure(chosen, batch.inside)
    except (TypeError, ValueError):
        _refuse(batch, chosen)
    leaves = [
        None if x is None else _leaf(batch, chosen, d, x, shared)
        for d, x in zip(nest.flatten(chosen), nest.flatten(batch.inside), strict=True)
    ]
    if len({leaf.shape[0] for leaf in leaves if leaf is not None}) > 1:
        _refuse(batch, chosen)
    return nest.pack(batch.inside, leaves)


def _leaf(batch, chosen, direction, x, shared):
    direction = tf.cast(direction, x.dtype)
    wanted = x.shape[1:] if shared else x.shape
    if direction.shape.rank == wanted.rank:
        direction = direction[None]
    if direction.shape.rank != wanted.rank + 1 or direction.shape[0] is None:
        _refuse(batch, chosen)
    if not direction.shape[1:].is_compatible_with(wanted):
        _refuse(batch, chosen)
    if shared:
        shape = tf.concat([tf.shape(direction)[:1], tf.shape(x)], axis=0)
        direction = tf.broadcast_to(direction[:, None], shape)
        direction.set_shape([direction.shape[0], *x.shape])
    return direction


def _refuse(batch, chosen):
    raise StructureError(
        f"{batch.call}: `directions` must have the shape of one example (or, from a function, of "
        "the batch), or one more axis in front for several. Received: "
        f"{tf.nest.map_structure(lambda d: tuple(d.shape), chosen)} for inputs "
        f"{given.describe(batch.inside)}."
    )


def _config(part):
    if isinstance(part, str):
        return part
    if callable(part):
        return {"function": keras.saving.serialize_keras_object(part)}
    return {"arrays": tf.nest.map_structure(lambda array: array.tolist(), part)}


def _from_config(part):
    if isinstance(part, str):
        return part
    if "function" in part:
        return keras.saving.deserialize_keras_object(part["function"])
    arrays = part["arrays"]
    return arrays if isinstance(arrays, dict) else np.array(arrays)
