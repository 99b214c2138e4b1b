"""Which loss of a Keras model belongs to which output, where its curvature is taken, its examples.

Private interface used here: the list of resolved losses that `compile` builds
(`model._compile_loss._flat_losses`), the logits that Keras' own softmax and sigmoid leave on their
result (`_keras_logits`), and the mask on it (`_keras_mask`). Without the first, every loss is
treated as one of unknown form (exact Hessian products, no closed form); without the second,
curvature is taken at the probabilities; without the third, curvature counts masked steps.
"""

import keras
import tensorflow as tf

from keras_fwd._spaces import nest
from keras_fwd.errors import ConfigurationError


def output_losses(model, outputs):
    """The Keras loss of each leaf of the outputs; None where it is not known to be the only one."""
    leaves = nest.flatten(outputs)
    if type(model).compute_loss is not keras.Model.compute_loss:
        return [None] * len(leaves)
    found = _entries(model, outputs)
    # Of two losses on one output no closed form is known.
    return [entries[0].loss if len(entries) == 1 else None for entries in found]


def _entries(model, outputs):
    """The resolved losses of each leaf of the outputs, a list for each."""
    leaves = nest.flatten(outputs)
    found = [[] for _ in leaves]
    for entry in getattr(getattr(model, "_compile_loss", None), "_flat_losses", None) or []:
        leaf = _follow(outputs, entry.path)
        for i, candidate in enumerate(leaves):
            if candidate is leaf:
                found[i].append(entry)
    return found


def _follow(outputs, path):
    try:
        for step in path:
            outputs = outputs[step]
    except (KeyError, IndexError, TypeError):
        return None
    return outputs


def loss_function(loss):
    """The Keras function behind a loss object, or the callable itself."""
    return getattr(loss, "fn", loss)


#: Losses of probabilities, and the activation whose input is the place for curvature.
_ACTIVATIONS = {
    keras.losses.categorical_crossentropy: keras.activations.softmax,
    keras.losses.sparse_categorical_crossentropy: keras.activations.softmax,
    keras.losses.binary_crossentropy: keras.activations.sigmoid,
}


def _activation(loss):
    """The activation that a cross-entropy of probabilities looks back through, or None."""
    return _ACTIVATIONS.get(loss_function(loss))


def curvature_leaf(output, loss):
    """The logits of an output whose loss looks back to them, else the output."""
    return output if _activation(loss) is None else getattr(output, "_keras_logits", output)


def is_logits(leaf, output, loss):
    """Whether a curvature leaf holds the logits of a cross-entropy."""
    return getattr(loss, "from_logits", False) or leaf is not output


def model_output(leaf, output, loss):
    """Inverse of `curvature_leaf`: what the model would have returned for this leaf."""
    activation = _activation(loss)
    if activation is not None and hasattr(output, "_keras_logits"):
        leaf = activation(leaf)
    if getattr(output, "_keras_mask", None) is not None:  # losses leave masked steps out
        leaf._keras_mask = output._keras_mask
    return leaf


def example_losses(model, outputs, targets, sample_weight=None):
    """The loss of each example as `compile` defines it, before the mean over the batch.

    Args:
        model: A compiled model whose stock `compute_loss` has run once: that resolves its losses.
        outputs: Nest of the model's outputs.
        targets: As in `fit`.
        sample_weight: As in `fit`.

    Returns:
        A tensor `[batch]`.
    """
    leaves = nest.flatten(outputs)
    total = []
    for place, entries in enumerate(_entries(model, outputs)):
        for entry in entries:
            y, w = (
                _part(tensors, entry.path, place, len(leaves))
                for tensors in (targets, sample_weight)
            )
            values = _unreduced(entry.loss, y, leaves[place], w)
            total.append(values if entry.loss_weights is None else entry.loss_weights * values)
    return tf.add_n(total)


def leaf_losses(model, outputs):
    """The Keras loss of each leaf of the outputs, or None, for `example_losses`.

    Raises:
        ConfigurationError: no loss, or several of one output.
    """
    found = _entries(model, outputs)
    if not any(found) or any(len(entries) > 1 for entries in found):
        raise ConfigurationError(
            "A penalty on the loss needs a model that is compiled with one `loss` for each output "
            f"that has any. Received: loss={model.loss!r}."
        )
    return [entries[0].loss if entries else None for entries in found]


def _part(tensors, path, place, count):
    """The target or sample weight of one output: by its path, else by its place."""
    if tensors is None or not tf.nest.is_nested(tensors):
        return tensors
    found = _follow(tensors, path) if path else None
    leaves = nest.flatten(tensors)
    return found if found is not None or len(leaves) != count else leaves[place]


def _unreduced(loss, y, output, sample_weight):
    dtype = loss.dtype
    values = loss.call(tf.cast(y, dtype), tf.cast(output, dtype))
    mask = getattr(output, "_keras_mask", None)
    if mask is not None:
        mask = tf.cast(mask, dtype)
        if loss.reduction != "sum":  # Keras takes the mean over the steps that are not masked
            mask *= tf.math.divide_no_nan(tf.cast(tf.size(mask), dtype), tf.reduce_sum(mask))
    for factor in (sample_weight, mask):
        if factor is not None:
            values *= _of_rank(tf.cast(factor, dtype), values.shape.rank)
    axes = list(range(1, values.shape.rank))
    return (tf.reduce_sum if loss.reduction == "sum" else tf.reduce_mean)(values, axis=axes)


def _of_rank(factor, rank):
    """A sample weight or mask with the axes that the losses have."""
    while factor.shape.rank > rank:
        factor = tf.squeeze(factor, -1)
    while factor.shape.rank < rank:
        factor = factor[..., None]
    return factor
