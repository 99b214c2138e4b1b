"""The curvature of a batch's loss from some of its examples."""

import tensorflow as tf

from keras_fwd import curvature, double_gradient, nest, nested_layers
from keras_fwd.model import TrainingPass
from keras_fwd.optimizers import replicas
from keras_fwd.optimizers.expansion import to_leaves

#: Reductions of a loss that are means, so that a part of the batch stands for all of it.
MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


def jacobian_and_hessian(model_pass, expansion, most):
    """The Jacobian from the weights to the curvature leaves, and the loss's Hessian there.

    They are those of at most `most` examples at even distances, or of the whole batch if it is no
    larger, or if a part of it would not do: a loss that is no mean over examples or not known, a
    model that is built for one batch size, or keeps a state for each example.

    Args:
        model_pass: The `keras_fwd.model.TrainingPass` of the batch.
        expansion: Its `Expansion`.
        most: Number of examples, of all replicas together, or None for all.

    Returns:
        `(J, H)`: `LinearMap` from the weights to a list of leaves, and between such lists.
    """
    share = None if most is None else -(-most // replicas.count())
    part = None if share is None else _part(model_pass, share)
    if part is None:
        J = double_gradient.jacobian_at(expansion.forward)
        return to_leaves(J), curvature.loss_hessian(model_pass.loss_of_leaves, expansion.leaves)
    forward, J = double_gradient.linearization("linearize", part, expansion.values)
    leaves = forward.outputs["outputs"]
    return to_leaves(J), curvature.loss_hessian(part.loss_of_leaves, leaves)


def _part(model_pass, most):
    """A `TrainingPass` of examples at even distances, or None if all of them are needed."""
    model, batch = model_pass.model, model_pass.batch
    first = nest.live(batch[0])[0]
    if first.shape[0] is not None and first.shape[0] <= most:
        return None
    if any(getattr(loss, "reduction", None) not in MEANS for loss in model_pass.losses):
        return None
    if any(spec.shape[0] is not None for spec in getattr(model, "inputs", None) or []):
        return None
    if any(getattr(layer, "stateful", False) for layer in nested_layers.inside(model)):
        return None
    count = tf.shape(first)[0] if first.shape[0] is None else first.shape[0]
    stride = -(-count // most)
    if tf.is_tensor(stride):
        stride = tf.maximum(stride, 1)  # the share of a replica may be empty
    part = TrainingPass(model)
    part.batch = tf.nest.map_structure(lambda leaf: _every(stride, leaf), batch)
    return part


def _every(stride, leaf):
    if leaf is None or not leaf.shape.rank:
        return leaf
    part = leaf[::stride]
    part.set_shape([None, *leaf.shape[1:]])  # not known to TensorFlow if the stride is a tensor
    return part
