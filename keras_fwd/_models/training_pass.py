"""A Keras model as a function of its weights, without touching the model.

Private interface used here: what `train_step` of Keras itself goes through: `model._compute_loss`,
which knows overrides of `compute_loss` without the argument `training`, and `model._loss_tracker`.
"""

from typing import Any

import keras
import tensorflow as tf

from keras_fwd._derivatives.taylor import directional_derivatives
from keras_fwd._models import model_losses
from keras_fwd._spaces import nest
from keras_fwd.typing import Nest, Variable


class Recorder(keras.StatelessScope):
    """A `keras.StatelessScope` that remembers which variables were to be updated.

    Inside it a model reads the given weights and every update (batch-norm statistics, seeds,
    metrics) is kept aside; `commit` carries the updates out.
    """

    def __init__(self, variables: list[Variable], values: list[tf.Tensor]) -> None:
        super().__init__(list(zip(variables, values, strict=True)), collect_losses=True)
        self._updated: dict[int, Variable] = {}

    def add_update(self, update: tuple[Variable, tf.Tensor]) -> None:
        """Called by Keras for each assignment inside the scope."""
        variable, _ = update
        self._updated[id(variable)] = variable
        super().add_update(update)

    @property
    def updated(self) -> list[Variable]:
        """The variables that were to be updated, a list."""
        return list(self._updated.values())

    def onward(self) -> "Recorder":
        """A new scope that starts from the values at the end of this one."""
        variables = self.updated
        return Recorder(variables, [self.get_current_value(variable) for variable in variables])

    def commit(self, condition: tf.Tensor) -> None:
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

    def __init__(self, model: keras.Model, training: bool = True) -> None:
        self.model: keras.Model = model
        self.training: bool = training
        self.variables: list[Variable] = list(model.trainable_variables)
        self.batch: tuple[Nest, ...] = (None, None, None)
        self.outputs: Any = None
        self.recorder: Any = None
        self.losses: list[Any] = []
        self.loss_is_of_outputs: bool = False
        self.loss_scale: Any = None

    def __call__(self, values: list[tf.Tensor]) -> dict[str, Nest]:
        """The losses at these values of the trainable variables, a list of tensors."""
        with Recorder(self.variables, values) as recorder:
            outputs = self._run()
            loss = self._loss(outputs)
            # Only of Keras' own `compute_loss` it is known what it reads; losses that layers add
            # need not go through the outputs.
            stock = type(self.model).compute_loss is keras.Model.compute_loss
            self.loss_is_of_outputs = stock and not self.model.losses
        self.outputs, self.recorder = outputs, recorder
        self.losses = model_losses.output_losses(self.model, outputs)
        leaves = [
            model_losses.curvature_leaf(leaf, loss)
            for leaf, loss in zip(nest.flatten(outputs), self.losses, strict=True)
        ]
        return {"loss": loss, "outputs": leaves}

    def second_derivative(
        self, values: list[tf.Tensor], direction: list[tf.Tensor]
    ) -> list[tf.Tensor]:
        """Of the curvature leaves along a line through these values, a list of tensors."""
        return directional_derivatives(
            lambda weights: self(weights)["outputs"], values, direction, order=2
        )[2]

    def leaves_at(self, values: list[tf.Tensor], x: Nest) -> list[tf.Tensor]:
        """The curvature leaves for other inputs, after a call for those of the batch."""
        with Recorder(self.variables, values):
            outputs = self.model(x, training=self.training)
        return list(map(model_losses.curvature_leaf, nest.flatten(outputs), self.losses))

    def _run(self):
        return self.model(self.batch[0], training=self.training)

    def loss_of_leaves(self, leaves: list[tf.Tensor]) -> tf.Tensor:
        """The loss as a function of the curvature leaves, at fixed weights."""
        pairs = zip(leaves, nest.flatten(self.outputs), self.losses, strict=True)
        outputs = nest.pack(
            self.outputs,
            [model_losses.model_output(leaf, output, loss) for leaf, output, loss in pairs],
        )
        with Recorder(self.variables, [variable.value for variable in self.variables]):
            return self._loss(outputs)

    def _loss(self, outputs: Nest) -> Any:  # whatever the backend of Keras calls a tensor
        x, y, sample_weight = self.batch
        return self.model._compute_loss(
            x=x, y=y, y_pred=outputs, sample_weight=sample_weight, training=self.training
        )

    def metrics(self, loss: tf.Tensor) -> tuple[dict[str, tf.Tensor], "Recorder"]:
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
