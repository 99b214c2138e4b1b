"""Counting batches that gave nothing finite, and naming the value that was the first to fail."""

import keras
import tensorflow as tf

from keras_fwd._spaces import nest
from keras_fwd.optimizers._steps import replicas


class Watch:
    """State of the count, as optimizer variables, so that it is saved and works in a graph."""

    def __init__(self, optimizer):
        def counter(name, value=0):
            return optimizer.add_variable(
                shape=(), dtype="int64", name=name, initializer=keras.initializers.Constant(value)
            )

        self._optimizer = optimizer
        self.total = counter("nonfinite_steps")
        self._in_row = counter("nonfinite_steps_in_row")
        self._where = counter("first_nonfinite_tensor")
        self._step = counter("first_nonfinite_step")
        self._is_nan = counter("first_nonfinite_is_nan")
        self._numbers = {}  # of each name that was watched; models and batches differ in them

    def update(self, model_pass, expansion, unsolved):
        """Count this batch, inside the step.

        Args:
            model_pass: Its `TrainingPass`.
            expansion: Its `Expansion`.
            unsolved: Boolean scalar: no direction was finite. Nothing is lost by one such batch,
                but what the directions are built from may never be right again.
        """
        bad = ~expansion.finite | unsolved
        # The direction is not among the tensors here: a stand-in tells that it failed.
        marked = tf.where(unsolved, float("nan"), 0.0)
        watched = [*_candidates(model_pass, expansion), ("the direction", marked)]
        numbers = [self._numbers.setdefault(name, len(self._numbers)) for name, _ in watched]
        # A full row is kept until it has been seen from outside the compiled step.
        full = self._in_row.value >= self._optimizer.patience
        count = tf.where(bad, self._in_row.value + 1, tf.where(full, self._in_row.value, 0))
        first = bad & tf.equal(self._in_row.value, 0)

        def measure():
            flags = tf.stack([~tf.reduce_all(tf.math.is_finite(t)) for _, t in watched])
            nans = tf.stack([tf.reduce_any(tf.math.is_nan(t)) for _, t in watched])
            return [tf.cast(flags, tf.float32), tf.cast(nans, tf.float32)]

        def locate(found):
            flags, nans = found
            first = tf.argmax(flags > 0)
            # Not by slices: XLA would compile each step anew, for the place as a constant.
            self._where.assign(tf.gather(tf.constant(numbers, tf.int64), first))
            self._is_nan.assign(tf.cast(tf.gather(nans, first) > 0, tf.int64))

        like = [tf.TensorSpec([len(watched)], tf.float32)] * 2
        replicas.carry_out([replicas.Job(first, measure, locate, like)])
        self._step.assign(tf.where(first, self._optimizer.iterations.value, self._step.value))
        self._in_row.assign(count)
        self.total.assign_add(tf.cast(bad, tf.int64))

    def check(self, patience, owner, error):
        """Raise `error`, outside the step, when the row is full; the row then starts anew."""
        if int(self._in_row.numpy()) < patience:
            return
        self._in_row.assign(0)
        raise error(
            f"{owner}: the loss, its gradient or the direction was not finite on {patience} "
            f"batches in a row, so training was stopped. First bad value: {self.first()}. The "
            "weights are those from before it. Clean the data, scale it, or start from smaller "
            "weights."
        )

    def first(self):
        """The first bad value of the present row, in words."""
        names = {number: name for name, number in self._numbers.items()}
        name = names.get(int(self._where.numpy()), "the loss")
        value = "NaN" if int(self._is_nan.numpy()) else "infinity"
        return f"{value} in {name}, at step {int(self._step.numpy())}"


def _candidates(model_pass, expansion):
    """Named tensors in the order in which a bad value would spread."""
    x, y, sample_weight = model_pass.batch
    for label, part in (("inputs", x), ("targets", y), ("sample weights", sample_weight)):
        if part is not None:
            yield from _floating(label, part)
    for variable, value in zip(model_pass.variables, expansion.values, strict=True):
        yield f"weight {variable.path!r}", value
    yield from _floating("outputs", model_pass.outputs)
    yield "the loss", expansion.loss
    for variable, value in zip(model_pass.variables, expansion.gradient, strict=True):
        yield f"the gradient of weight {variable.path!r}", value


def _floating(label, part):
    for path, leaf in zip(nest.paths(part), nest.flatten(part), strict=True):
        if leaf is not None and nest.is_differentiable(leaf.dtype):
            yield f"{label}{path}", leaf
