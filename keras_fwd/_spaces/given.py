"""Whether what a user gives is a vector of a space: structure, shapes, dtypes; as tensors."""

import tensorflow as tf

from keras_fwd._spaces import nest as nests
from keras_fwd.errors import StructureError


def to_tensors(call, where, x):
    """The leaves of a nest as tensors, a list; messages name them by their paths after `where`."""
    pairs = zip(nests.paths(x), nests.flatten(x), strict=True)
    return [to_tensor(call, f"{where}{path}", leaf) for path, leaf in pairs]


def check_structure(call, argument, value, like, whose):
    """Raise `StructureError` unless `value` is a nest like `like`, the structure of `whose`."""
    try:
        tf.nest.assert_same_structure(like, value)
    except (ValueError, TypeError):
        raise StructureError(
            f"{call}: `{argument}` must have the structure of {whose}: expected "
            f"{describe(like)}. Received: {describe(value)}."
        ) from None


def match(call, argument, value, spec_):
    """Check that `value` is a vector of `spec_` and convert its leaves to tensors.

    Args:
        call: Name of the public call, for the message.
        argument: Name of the argument, for the message.
        value: Nest of array-likes; `None` where the spec has `None`.
        spec_: Nest of `tf.TensorSpec` or `None`.

    Raises:
        StructureError: Structure, shape or dtype differ; names the leaf.
    """
    check_structure(call, argument, value, spec_, "the space it lies in")
    checked = [
        _match_leaf(call, f"{argument}{path}", leaf, wanted)
        for path, leaf, wanted in zip(
            nests.paths(spec_), nests.flatten(value), nests.flatten(spec_), strict=True
        )
    ]
    return nests.pack(spec_, checked)


def _match_leaf(call, where, leaf, wanted):
    if wanted is None:
        if leaf is None:
            return None
        raise StructureError(
            f"{call}: `{where}` belongs to an integer or boolean input, which has no tangent: "
            f"pass None there. Received: {describe(leaf)}."
        )
    if leaf is None:
        raise StructureError(
            f"{call}: `{where}` must be a tensor; pass zeros for a direction that is not moved. "
            f"Expected {describe(wanted)}. Received: None."
        )
    if isinstance(leaf, (int, float)):
        # A Python number has no dtype yet: `convert_to_tensor` would make it float32 in a float64
        # space.
        leaf = tf.constant(leaf, wanted.dtype)
    tensor = to_tensor(call, where, leaf)
    if tensor.dtype != wanted.dtype or not wanted.shape.is_compatible_with(tensor.shape):
        raise StructureError(
            f"{call}: `{where}` must have the shape and dtype of the space it lies in: expected "
            f"{describe(wanted)}. Received: {describe(tensor)}."
        )
    return tensor


def to_tensor(call, where, leaf):
    """`tf.convert_to_tensor` with an error that names the leaf."""
    if isinstance(leaf, (tf.RaggedTensor, tf.SparseTensor)):
        raise StructureError(
            f"{call}: `{where}` must be a dense tensor; convert it first (`.to_tensor()`, "
            f"`tf.sparse.to_dense`). Received: {type(leaf).__name__}."
        )
    try:
        return tf.convert_to_tensor(leaf)
    except Exception as error:  # TensorFlow and Keras raise many types here
        raise StructureError(
            f"{call}: `{where}` must be a tensor or an array. Received: {leaf!r} "
            f"({type(error).__name__}: {str(error).splitlines()[0]})."
        ) from None


def describe(nest):
    """A nest's structure with `dtype[shape]` at its leaves, for messages."""
    if isinstance(nest, dict):
        return "{" + ", ".join(f"{key!r}: {describe(nest[key])}" for key in sorted(nest)) + "}"
    if isinstance(nest, (list, tuple)):
        inner = ", ".join(describe(value) for value in nest)
        return f"[{inner}]" if isinstance(nest, list) else f"({inner})"
    if hasattr(nest, "shape") and hasattr(nest, "dtype"):
        shape = tf.TensorShape(nest.shape)
        dims = "?" if shape.rank is None else ", ".join(str(d) for d in shape.as_list())
        return f"{tf.as_dtype(nest.dtype).name}[{dims}]"
    return repr(nest)
