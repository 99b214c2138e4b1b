"""When a callback measures the model, and how what it finds gets into the logs."""

from typing import Any

import keras
import tensorflow as tf

from keras_fwd.checks import check_count
from keras_fwd.errors import ConfigurationError


class ScheduledCallback(keras.callbacks.Callback):
    """A callback that measures at the end of epochs, or after every n-th batch.

    A subclass gives `prepare()`: called when training begins, it raises where the model cannot be
    measured, and returns the function without arguments that measures it, a dict of scalar tensors
    by their names in the logs. It is traced once.

    Args:
        schedule: `"epoch"`, or a whole number n: after every n-th batch, counted through the whole
            training.
        argument: What the subclass calls that argument, for messages.

    Raises:
        ConfigurationError: `schedule` has no meaning.
    """

    def __init__(self, schedule, argument):
        super().__init__()
        call = type(self).__name__
        if isinstance(schedule, str) and schedule != "epoch":
            raise ConfigurationError(
                f'{call}: `{argument}` must be "epoch" or a number of batches. '
                f"Received: {argument}={schedule!r}."
            )
        self.every: Any = None if schedule == "epoch" else schedule
        check_count(call, argument, self.every, none="every epoch")
        # Keras may then run the steps ahead of the logs: without a measurement inside an epoch
        # nothing here happens at a batch.
        self.async_safe = self.every is None
        self._measure: Any = None
        self._last = {}
        self._due = self._batch = 0

    def prepare(self):
        """The function that measures the model, without arguments; see the class."""
        raise NotImplementedError

    def on_train_begin(self, logs=None):
        """Trace the computation, so that a model it cannot work for is refused before training."""
        del logs
        # A closure over the tensors: no argument could bring a second trace about.
        self._measure = tf.function(self.prepare(), autograph=False)
        self._measure.get_concrete_function()
        self._due, self._batch = self.every, -1

    def on_epoch_begin(self, epoch, logs=None):
        """Forget the epoch before: each epoch's logs speak of that epoch."""
        del epoch, logs
        self._last, self._batch = {}, -1

    def on_train_batch_end(self, batch, logs=None):
        """Measure after every n-th batch, if the schedule is a number."""
        if self.every is None:
            return
        # With `steps_per_execution` several batches end at once, and Keras counts the last lot of
        # an epoch as a full one.
        batch = min(batch, ((self.params or {}).get("steps") or batch + 1) - 1)
        self._due -= batch - self._batch
        self._batch = batch
        if self._due > 0:
            return
        self._due += self.every * (-self._due // self.every + 1)
        self._last = self._values()
        _write(logs, self._last)

    def on_epoch_end(self, epoch, logs=None):
        """Write the value of this epoch into its logs."""
        del epoch
        _write(logs, self._last or self._values())

    def _values(self):
        return {name: float(value) for name, value in self._measure().items()}


def check_name(call, argument, value):
    """Raise `ConfigurationError` unless `value` is a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ConfigurationError(
            f"{call}: `{argument}` must be a text that is not empty. "
            f"Received: {argument}={value!r}."
        )


def _write(logs, values):
    if logs is not None:
        logs.update(values)
