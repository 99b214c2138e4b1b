"""Reading data in the forms that `fit` takes: the inputs, batch by batch, as the model wants them.

Targets and sample weights are passed over, unless they are asked for. Two steps, because a callback
reads its data before it knows the model: `raw_batches` reads, `conform` casts to the dtypes that
the model declares.
"""

import itertools

import keras
import numpy as np
import tensorflow as tf

from keras_fwd._spaces import given, nest
from keras_fwd.errors import ConfigurationError, StructureError

ACCEPTED = (
    "an array, a list or dict of arrays (one for each input of the model), a tuple (x, y) or "
    "(x, y, sample_weight), a batched tf.data.Dataset or a keras.utils.PyDataset"
)


def raw_batches(call, data, batch_size, max_examples=None, whole=False):
    """The inputs in `data`, batch by batch, as they stand there.

    Args:
        call: Name of the public call, for messages.
        data: One of the forms in `ACCEPTED`; a data set has its own batches.
        batch_size: Examples in a batch of arrays.
        max_examples: Stop after that many examples; default None, all.
        whole: Yield tuples `(x, y)` or `(x, y, sample_weight)`, as they stand there, instead.

    Yields:
        Nests of arrays or tensors with the batch on axis 0, none of them empty.

    Raises:
        ConfigurationError: `data` has no such form, holds no example, or never ends.
        StructureError: An entry is no dense array, or lengths differ.
    """
    left, read = max_examples, 0
    for x in _inputs(call, data, batch_size, max_examples, whole):
        count = _length(call, x)
        if left is not None and count > left:
            x, count = tf.nest.map_structure(lambda leaf, n=left: leaf[:n], x), left
        if count:
            read += count
            yield x
        if left is not None:
            left -= count
            if left == 0:
                return
    if not read:
        raise ConfigurationError(
            f"{call}: `data` must hold at least one example. Received: data with none. A data set "
            "that was read to its end, or a split that came out empty, is the usual cause."
        )


def first_examples(call, data, count, whole=False):
    """The first examples of `data` as one batch of arrays.

    Args:
        call: Name of the public call, for messages.
        data: One of the forms in `ACCEPTED`.
        count: How many examples at most.
        whole: Return a tuple `(x, y)` or `(x, y, sample_weight)` of the data instead.

    Raises:
        ConfigurationError: `data` has no such form, holds no example, or a value is not finite.
        StructureError: An entry is no dense array, or lengths differ.
    """
    read = list(raw_batches(call, data, count, count, whole))
    arrays = tf.nest.map_structure(lambda *parts: np.concatenate(parts), *read)
    bad = sum(not np.isfinite(a).all() for a in nest.flatten(arrays) if a.dtype.kind == "f")
    if bad:
        raise ConfigurationError(
            f"{call}: `data` must be finite: NaN in one example would hide all others. Received: "
            f"NaN or infinity in {bad} of its arrays. Leave those examples out or fill them."
        )
    return arrays


def conform(call, model, x):
    """Inputs as tensors of the dtypes that the model declares.

    A functional or sequential model declares them with `keras.Input`, and columns of a dict that
    it does not name are dropped. For other models floating-point arrays become `variable_dtype`.

    Args:
        call: Name of the public call, for messages.
        model: Keras model or layer.
        x: Nest of arrays or tensors.

    Returns:
        Nest of tensors.

    Raises:
        StructureError: Number, names or ranks of the inputs are not those of the model.
    """
    declared = getattr(model, "inputs", None)
    if not declared:
        # Not the compute dtype: with mixed precision the layers cast for themselves.
        return tf.nest.map_structure(lambda leaf: _cast(leaf, model.variable_dtype), x)
    if isinstance(x, dict):
        x, declared = _select(call, model, x, declared)
    leaves = nest.flatten(x)
    if len(leaves) != len(declared):
        raise StructureError(
            f"{call}: `data` must hold one array for each input of the model, {len(declared)} in "
            f"all. Received: {given.describe(x)}. Pass several inputs as a list or dict; a tuple "
            "means (x, y)."
        )
    pairs = zip(leaves, declared, strict=True)
    return nest.pack(x, [_fit(call, leaf, wanted) for leaf, wanted in pairs])


def _inputs(call, data, batch_size, max_examples, whole):
    if isinstance(data, tf.data.Dataset | keras.utils.PyDataset):
        if max_examples is None and is_endless(data):
            raise ConfigurationError(
                f"{call}: `data` never ends, so `max_examples` must say when to stop. "
                f"Received: an infinite {type(data).__name__} and max_examples=None."
            )
        for element in _elements(data):
            x = _unpack(call, element, whole)
            yield tf.nest.map_structure(lambda leaf: _array(call, leaf), x)
        return
    x = _unpack(call, data, whole) if whole or isinstance(data, tuple) else data
    x = tf.nest.map_structure(lambda leaf: _array(call, leaf), x)
    for start in range(0, _length(call, x), batch_size):
        stop = start + batch_size
        yield tf.nest.map_structure(lambda leaf, a=start, b=stop: leaf[a:b], x)


def is_endless(data):
    """Whether a data set never ends."""
    if not isinstance(data, tf.data.Dataset | keras.utils.PyDataset):
        return False
    if isinstance(data, tf.data.Dataset):
        return data.cardinality() == tf.data.INFINITE_CARDINALITY
    return data.num_batches is None


def _elements(data):
    if isinstance(data, tf.data.Dataset):
        return data
    count = data.num_batches
    return (data[i] for i in (itertools.count() if count is None else range(count)))


def _unpack(call, element, whole):
    try:
        x, *rest = keras.utils.unpack_x_y_sample_weight(element)
        if not whole:
            return x
        return (x, *(part for part in rest if part is not None))
    except ValueError:
        raise ConfigurationError(
            f"{call}: `data` as a tuple must be (x,), (x, y) or (x, y, sample_weight). Received: "
            f"a tuple of {len(element)} entries. Pass several inputs as a list or dict."
        ) from None


def _array(call, leaf):
    if isinstance(leaf, tf.RaggedTensor | tf.SparseTensor):
        return given.to_tensor(call, "data", leaf)  # raises, and says what to do
    if tf.is_tensor(leaf):
        return leaf
    # A list of numbers too: in `fit` a list means several inputs.
    if not hasattr(leaf, "__array__"):
        raise ConfigurationError(
            f"{call}: `data` must be {ACCEPTED}. Received: {type(leaf).__name__}."
        )
    return np.asarray(leaf)


def _length(call, x):
    lengths = {leaf.shape[0] if len(leaf.shape) else None for leaf in nest.flatten(x)}
    if len(lengths) != 1 or None in lengths:
        raise StructureError(
            f"{call}: the arrays of `data` must have the batch on axis 0, equally long. "
            f"Received: {given.describe(x)}. A tf.data.Dataset must be batched: `.batch(256)`."
        )
    return lengths.pop()


def _select(call, model, x, declared):
    """The columns that the model reads, and the declared inputs in the order of `flatten`."""
    struct = getattr(model, "input", None)
    named = struct if isinstance(struct, dict) else {tensor.name: tensor for tensor in declared}
    if missing := sorted(set(named) - set(x)):
        raise StructureError(
            f"{call}: `data` must have an entry for each input of the model. Missing: {missing}. "
            f"Received: {given.describe(x)}."
        )
    return {name: x[name] for name in named}, nest.flatten(named)


def _fit(call, leaf, wanted):
    """One array as a tensor of the declared dtype; Keras itself adds or drops a last axis of 1."""
    rank, received = len(wanted.shape), len(leaf.shape)
    shape = wanted.shape if received < rank else leaf.shape
    if abs(rank - received) > 1 or (rank != received and shape[-1] != 1):
        raise StructureError(
            f"{call}: `data` must fit the model's input {wanted.name!r}, {given.describe(wanted)}. "
            f"Received: {given.describe(leaf)}. A tf.data.Dataset must be batched: `.batch(256)`."
        )
    if rank == received and not _compatible(tuple(leaf.shape)[1:], tuple(wanted.shape)[1:]):
        raise StructureError(
            f"{call}: `data` must have the shape of the model's input {wanted.name!r}, "
            f"{given.describe(wanted)}. Received: {given.describe(leaf)}. Give the columns that "
            "the model was trained on, without the target."
        )
    return tf.cast(given.to_tensor(call, "data", leaf), wanted.dtype)


def _compatible(shape, wanted):
    pairs = zip(shape, wanted, strict=True)
    return all(a is None or b is None or a == b for a, b in pairs)


def _cast(leaf, dtype):
    tensor = tf.convert_to_tensor(leaf)
    return tf.cast(tensor, dtype) if nest.is_differentiable(tensor.dtype) else tensor
