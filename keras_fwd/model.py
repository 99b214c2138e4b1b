"""A Keras model as a function of its weights, without touching the model, and its logits.

Private interface used here: the list of resolved losses that `compile` builds
(`model._compile_loss._flat_losses`), the logits that Keras' own softmax and sigmoid leave on their
result (`_keras_logits`), and the mask on it (`_keras_mask`). Without the first, every loss is
treated as one of unknown form (exact Hessian products, no closed form); without the second,
curvature is taken at the probabilities; without the third, curvature counts masked steps. Also
what `train_step` of Keras itself goes through: `model._compute_loss`, which knows overrides of
`compute_loss` without the argument `training`, and `model._loss_tracker`.
"""

from typing import Any

import keras
import tensorflow as tf

from keras_fwd import nest
from keras_fwd.errors import ConfigurationError
from keras_fwd.taylor import directional_derivatives


class Recorder(keras.StatelessScope):
    """A `keras.StatelessScope` that remembers which variables were to be updated.

    Inside it a model reads the given weights and every update (batch-norm statistics, seeds,
    metrics) is kept aside; `commit` carries the updates out.
    """

    def __init__(self, variables, values):
        super().__init__(list(zip(variables, values, strict=True)), collect_losses=True)
        self._updated = {}

    def add_update(self, update):
        """Called by Keras for each assignment inside the scope."""
        variable, _ = update
        self._updated[id(variable)] = variable
        super().add_update(update)

    @property
    def updated(self):
        """The variables that were to be updated, a list."""
        return list(self._updated.values())

    def onward(self):
        """A new scope that starts from the values at the end of this one."""
        variables = self.updated
        return Recorder(variables, [self.get_current_value(variable) for variable in variables])

    def commit(self, condition):
        """Assign what was recorded, where the boolean scalar `condition` holds."""
        for variable in self._updated.values():
            new = tf.convert_to_tensor(self.get_current_value(variable))
            variable.assign(tf.where(condition, new, variable.value))


class TrainingPass:
    """One batch of data, and the model's losses on it as functions.

    A call takes the values of the trainable variables and returns
    `{"loss": total loss, "outputs": [curvature leaves]}`, where a curvature leaf is an output of
    the model, or its logits if its loss is a cross-entropy of probabilities.

    Args:
        model: A compiled Keras model.
        training: What the model and its loss are called with.

    Attributes:
        outputs: The model's own outputs in the last call.
        recorder: The updates of the last call.
        losses: A Keras loss (or None) for each leaf of the outputs.
        loss_is_of_outputs: Whether the weights enter the loss through the outputs only.
        loss_scale: What the loss is multiplied with on its way back, a scalar, or None.
    """

    def __init__(self, model, training=True):
        self.model = model
        self.training = training
        self.variables = list(model.trainable_variables)
        self.batch: tuple = (None, None, None)
        self.outputs: Any = None
        self.recorder: Any = None
        self.losses: list = []
        self.loss_is_of_outputs = False
        self.loss_scale: Any = None

    def __call__(self, values):
        """The losses at these values of the trainable variables, a list of tensors."""
        with Recorder(self.variables, values) as recorder:
            outputs = self._run()
            loss = self._loss(outputs)
            stock = type(self.model).compute_loss is keras.Model.compute_loss
            self.loss_is_of_outputs = stock and not self.model.losses
        self.outputs, self.recorder = outputs, recorder
        self.losses = output_losses(self.model, outputs)
        leaves = [
            curvature_leaf(leaf, loss)
            for leaf, loss in zip(nest.flatten(outputs), self.losses, strict=True)
        ]
        return {"loss": loss, "outputs": leaves}

    def second_derivative(self, values, direction):
        """Of the curvature leaves along a line through these values, a list of tensors."""
        return directional_derivatives(
            lambda weights: self(weights)["outputs"], values, direction, order=2
        )[2]

    def leaves_at(self, values, x):
        """The curvature leaves for other inputs, after a call for those of the batch."""
        with Recorder(self.variables, values):
            outputs = self.model(x, training=self.training)
        return list(map(curvature_leaf, nest.flatten(outputs), self.losses))

    def _run(self):
        return self.model(self.batch[0], training=self.training)

    def loss_of_leaves(self, leaves):
        """The loss as a function of the curvature leaves, at fixed weights."""
        pairs = zip(leaves, nest.flatten(self.outputs), self.losses, strict=True)
        outputs = nest.pack(
            self.outputs, [model_output(leaf, output, loss) for leaf, output, loss in pairs]
        )
        with Recorder(self.variables, [variable.value for variable in self.variables]):
            return self._loss(outputs)

    def _loss(self, outputs):
        x, y, sample_weight = self.batch
        return self.model._compute_loss(
            x=x, y=y, y_pred=outputs, sample_weight=sample_weight, training=self.training
        )

    def metrics(self, loss):
        """The logs that Keras would return for this batch, and the updates of its metrics.

        It goes on from `self.recorder`: what is updated inside `compute_loss`, such as the loss
        trackers of single outputs, is counted once.
        """
        x, y, sample_weight = self.batch
        with self.recorder.onward() as recorder:
            tracker = loss_tracker(self.model)
            if tracker is not None:
                tracker.update_state(loss, sample_weight=tf.shape(nest.live(x)[0])[0])
            logs = self.model.compute_metrics(x, y, self.outputs, sample_weight=sample_weight)
        return logs, recorder


def loss_tracker(model):
    """The metric in which `fit` averages the loss, or None if the model does not report it."""
    tracker = getattr(model, "_loss_tracker", None)
    return tracker if any(metric is tracker for metric in model.metrics) else None


def output_losses(model, outputs):
    """The Keras loss of each leaf of the outputs; None where it is not known to be the only one."""
    leaves = nest.flatten(outputs)
    if type(model).compute_loss is not keras.Model.compute_loss:
        return [None] * len(leaves)
    found = _entries(model, outputs)
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
