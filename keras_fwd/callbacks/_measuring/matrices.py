"""The curvature matrices of a model's loss by its weights, as linear maps."""

import tensorflow as tf

from keras_fwd._curvature import loss_hessian, weight_penalties
from keras_fwd._derivatives import double_gradient
from keras_fwd._derivatives.hessian import hessian
from keras_fwd._models import model_losses
from keras_fwd._models.training_pass import TrainingPass
from keras_fwd._spaces import nest
from keras_fwd._spaces.linear_map import diagonal
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers._steps.expansion import to_leaves

MATRICES = ("hessian", "ggn", "fisher")


def curvature_matrix(matrix, model_pass, values):
    """A curvature matrix of the loss of a batch.

    Args:
        matrix: `"hessian"`: that of the total loss. `"ggn"`: `Jᵀ H J` at the outputs or logits,
            and the second derivatives of L1 and L2 regularizers. `"fisher"`: `Jᵀ H J` alone, for
            losses whose `H` is the Fisher information of the outputs.
        model_pass: A `TrainingPass` with its batch.
        values: List of the weights' values.

    Returns:
        Symmetric `LinearMap` on lists like the values.

    Raises:
        ConfigurationError: A loss that is not twice differentiable, or has no Fisher information.
        LeakError: As `linearize` and `hessian`.
    """
    if matrix == "hessian":
        return hessian(lambda point: model_pass(point)["loss"], values)
    forward, J = double_gradient.linearization("linearize", model_pass, values)
    J, leaves = to_leaves(J), forward.outputs["outputs"]
    _check_losses(matrix, model_pass, leaves)
    H = loss_hessian.loss_hessian(model_pass.loss_of_leaves, leaves)
    G = J.T @ H @ J
    if matrix == "fisher":
        return G
    return G + diagonal(weight_penalties.diagonal(model_pass.variables, values))


def _check_losses(matrix, model_pass, leaves):
    outputs = nest.flatten(model_pass.outputs)
    for leaf, output, loss in zip(leaves, outputs, model_pass.losses, strict=True):
        kind = loss_hessian.loss_kind(loss, model_losses.is_logits(leaf, output, loss))
        if matrix == "fisher" and kind in ("general", "entrywise"):
            raise ConfigurationError(
                'CurvatureCallback: `matrix="fisher"` needs a loss that is the negative logarithm '
                "of a likelihood: mse, or a cross-entropy at the logits (softmax or sigmoid as "
                "the last activation, or from_logits=True). Received: loss="
                f'{getattr(loss, "name", loss)!r}. Use matrix="ggn".'
            )


# The gradient noise scale: how much the gradients of single examples differ.
#
# An example's gradient is that of the loss of a batch which holds it alone.

#: Relative gap up to which the mean of the examples' losses is the loss of the batch.
TOLERANCE = 1e-3


class ExampleGradients:
    """The gradients of the loss of each example, by the weights, and of their mean.

    Args:
        call: Name of the public call, for messages.
        model: A compiled Keras model.
        batch: `(x, y)` or `(x, y, sample_weight)`, nests of tensors, of at least two examples.

    Raises:
        ConfigurationError: Fewer than two examples.
    """

    def __init__(self, call, model, batch):
        self._call = call
        self._model = model
        self._batch = batch
        self._summed = False  # the loss of a batch is the sum of its examples', not the mean
        if int(nest.flatten(batch)[0].shape[0]) < 2:
            raise ConfigurationError(
                f'{call}: `data` must hold at least two examples for "gradient_noise": one alone '
                "does not show how they differ. Received: one example."
            )

    def check(self):
        """Raise `ConfigurationError` unless the loss is the mean, or the sum, over the examples."""
        values = [tf.identity(variable.value) for variable in self._model.trainable_variables]

        def both():
            losses = self._of_each(self._batch, lambda loss: loss(values))
            return self._loss(self._batch)(values), losses

        # Not by a call, of which TensorFlow counts the traces, over all callbacks.
        whole, each = tf.function(both, autograph=False).get_concrete_function()()
        whole, each = float(whole), tf.cast(each, tf.float64)
        mean, size = float(tf.reduce_mean(each)), float(tf.reduce_mean(tf.abs(each)))
        if not abs(whole - mean) > TOLERANCE * size:  # not finite: nothing can be said
            return
        if abs(whole / len(each) - mean) > TOLERANCE * size:
            raise ConfigurationError(
                f'{self._call}: "gradient_noise" needs a loss that is the mean of the losses of '
                "single examples. Received: one that is not, because it compares examples, leaves "
                'masked steps out, or has reduction="mean_with_sample_weight". Leave it out of '
                "`quantities`."
            )
        self._summed = True

    def noise_scale(self, batch, values):
        """`tr Σ / |g|²`, with both estimated without bias; infinite where `|g|²` is not positive.

        Args:
            batch: Nest of tensors like that of the class, of at least two examples.
            values: List of the weights' values.

        Returns:
            Scalar, float64.
        """
        count = tf.cast(tf.shape(nest.flatten(batch)[0])[0], tf.float64)
        loss, pull = double_gradient.pullback(self._loss(batch), values)
        gradient = pull(tf.cast(1 / count if self._summed else 1.0, loss.dtype))
        norm = tf.cast(nest.squared_norm(gradient), tf.float64)
        spread = (self._mean_square(batch, values) - norm) * count / (count - 1)
        signal = norm - spread / count
        infinite = tf.constant(float("inf"), tf.float64)
        return tf.where(signal <= 0, infinite, spread / signal)

    def _mean_square(self, batch, values):
        def squared_norm(loss):
            value, pull = double_gradient.pullback(loss, values)
            return nest.squared_norm(pull(tf.ones_like(value)))

        return tf.reduce_mean(tf.cast(self._of_each(batch, squared_norm), tf.float64))

    def _of_each(self, batch, function):
        """`function` of the loss of each example; `[examples]`.

        Not vectorized: with one more axis in front, TensorFlow's fused products on a CPU (2.21,
        oneDNN: `x @ kernel + bias` of rank 4) overrun their memory.
        """

        def of_one(leaves):
            return function(self._loss(nest.pack(batch, [leaf[None] for leaf in leaves])))

        leaves = nest.flatten(batch)
        row = [tf.TensorSpec(leaf.shape[1:], leaf.dtype) for leaf in leaves]
        dtype = tf.function(of_one, autograph=False).get_concrete_function(row).output_dtypes
        return tf.map_fn(of_one, leaves, fn_output_signature=dtype)

    def _loss(self, batch):
        """The loss of a batch as a function of the weights."""
        model_pass = TrainingPass(self._model, training=False)
        model_pass.batch = (*batch, None)[:3]
        return lambda values: model_pass(values)["loss"]
