"""Some examples of a batch, which tell the curvature of its loss."""

import tensorflow as tf

from keras_fwd._curvature import loss_hessian
from keras_fwd._derivatives import double_gradient
from keras_fwd._models import nested_layers
from keras_fwd._models.training_pass import TrainingPass
from keras_fwd._spaces import nest
from keras_fwd.optimizers._steps import replicas

#: Reductions of a loss that are means, so that a part of the batch stands for all of it.
MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


class SubBatch:
    """A part of a batch, on which curvature is measured and steps are tried.

    It is at most `most` examples at even distances, or the whole batch if that is no larger, or if
    a part of it would not do: a loss that is no mean over examples or not known, a model that is
    built for one batch size, or keeps a state for each example.

    Attributes:
        model_pass: The `TrainingPass` of the part.
        loss: Of the part, a scalar.
        leaves: The curvature leaves of the part.
        jacobian: `LinearMap` from the weights to `{"loss", "outputs"}`, the outputs being a list of
            curvature leaves.
        hessian: Symmetric `LinearMap` on that list: of the loss.

    Args:
        model_pass: The `TrainingPass` of the batch.
        expansion: Its `Expansion`.
        most: Number of examples, of all replicas together, or None for all.
    """

    def __init__(self, model_pass, expansion, most):
        share = None if most is None else -(-most // replicas.count())
        part = None if share is None else _part(model_pass, share)
        if part is None:
            self.model_pass, forward = model_pass, expansion.forward
            self.jacobian = double_gradient.jacobian_at(forward)
        else:
            self.model_pass = part
            forward, self.jacobian = double_gradient.linearization(
                "linearize", part, expansion.values
            )
        (self.loss,) = replicas.sums([forward.outputs["loss"]])
        self.leaves = forward.outputs["outputs"]
        self.hessian = loss_hessian.loss_hessian(self.model_pass.loss_of_leaves, self.leaves)

    def loss_at(self, values):
        """The loss of this replica's share of the part at other values of the weights."""
        return self.model_pass(values)["loss"]


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
    stride = -(-count // most)  # rounded up: never more examples than are asked for
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
