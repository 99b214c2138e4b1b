"""When a callback measures the model, and how what it finds gets into the logs."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_fwd._checks import check_count, check_number
from keras_fwd.callbacks._measuring.budget import Budget
from keras_fwd.callbacks._measuring.events import EventWriter
from keras_fwd.errors import ConfigurationError
from keras_fwd.typing import Data, Every, Logs, Nest, PathLike


class ScheduledCallback(keras.callbacks.Callback):
    """A callback that measures at the end of epochs, or after every n-th batch.

    A subclass gives `begin()`: called when training begins, it raises where the model cannot be
    measured, and returns how many examples there are; `measure(count)`: a dict of numbers by their
    names in the logs, from the first `count` examples; and `names()`: their names, and last that of
    the number of examples, which is in the logs where `max_overhead` is given.

    Args:
        every: `"epoch"`, or a whole number n: after every n-th batch, counted through the whole
            training.
        max_overhead: Share of the training time that the measurements may take, or None.
        log_dir: Where scalars are written for TensorBoard, or None.

    Raises:
        ConfigurationError: An argument has no meaning.
        ImportError: TensorBoard is not installed, and `log_dir` is given.
    """

    #: Seconds; read when training begins.
    clock: Callable[[], float] = staticmethod(time.perf_counter)

    def __init__(
        self,
        every: Every,
        max_overhead: float | None = None,
        log_dir: PathLike | None = None,
    ) -> None:
        super().__init__()
        call = type(self).__name__
        if every is None or (isinstance(every, str) and every != "epoch"):
            raise ConfigurationError(
                f'{call}: `every` must be "epoch" or a number of batches. '
                f"Received: every={every!r}."
            )
        if every != "epoch":
            check_count(call, "every", every)
        self.every: Any = None if every == "epoch" else every
        if max_overhead is not None:
            check_number(call, "max_overhead", max_overhead, above=True)
        self.max_overhead: Any = max_overhead
        # Keras may then run the steps ahead of the logs: without a measurement inside an epoch
        # nothing here happens at a batch.
        self.async_safe: bool = self.every is None
        self.budget: Any = None
        self.writer: Any = None if log_dir is None else EventWriter(call, log_dir)
        self._last = {}
        self._examples = self._due = self._batch = self._batches = 0

    def keep(self, read: Callable[..., Any], data: Data, max_examples: int, seed: int) -> None:
        """Keep the first examples of the data, in random order where not all may be used.

        Args:
            read: Function of the class's name, `data` and `max_examples` that returns them.
            data: As a user gives it.
            max_examples: The most that are kept.
            seed: Of the order.
        """
        call = type(self).__name__
        check_count(call, "max_examples", max_examples)
        check_count(call, "seed", seed, least=0)
        examples = read(call, data, max_examples)
        self._data = examples if self.max_overhead is None else shuffled(examples, seed)

    def begin(self) -> int:
        """Get ready for a model; the number of examples. See the class."""
        raise NotImplementedError

    def measure(self, count: int) -> dict[str, float]:
        """The numbers for the logs, from the first `count` examples. See the class."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """The names in the logs. See the class."""
        raise NotImplementedError

    def measuring_share(self) -> float:
        """The share of the training time that measurements may take."""
        return self.max_overhead

    def budgets(self) -> list[Any]:
        """Those that live on the time of training."""
        return [] if self.budget is None else [self.budget]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Get ready, so that a model it cannot work for is refused before training."""
        del logs
        self._examples = self.begin()
        self._due, self._batch, self._batches = self.every, -1, 0
        if self.max_overhead is not None:
            self.budget = Budget(self.measuring_share(), self._examples, self.clock)
            self.budget.calibrate(self.measure)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Forget the epoch before: each epoch's logs speak of that epoch."""
        del epoch, logs
        self._last, self._batch = {}, -1
        self._resume()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Measure after every n-th batch, if the schedule is a number."""
        if self.every is None:
            return
        # With `steps_per_execution` several batches end at once, and Keras counts the last lot of
        # an epoch as a full one.
        batch = min(batch, ((self.params or {}).get("steps") or batch + 1) - 1)
        self._due -= batch - self._batch
        self._batches += batch - self._batch
        self._batch = batch
        if self._due > 0:
            return
        # With several batches at once more than one may be due: one measurement stands for all.
        self._due += self.every * (-self._due // self.every + 1)
        self._pause()
        values = self._values(self._batches)
        self._resume()
        self._last = values or self._last
        _write(logs, values)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write the value of this epoch into its logs."""
        self._pause()
        if not self._last:
            self._last = self._values(epoch if self.every is None else self._batches)
        if not self._last:  # every name in every epoch: `History` has no gaps
            *names, examples = self.names()
            self._last = {**dict.fromkeys(names, math.nan), examples: 0}
        _write(logs, self._last)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Say what the bound has changed, where `fit` says anything."""
        del logs
        if self.writer is not None:
            self.writer.close()
        summary = self.budget.summary() if self.budget is not None else ""
        if summary and (self.params or {}).get("verbose"):
            print(f"{type(self).__name__}(max_overhead={self.max_overhead:g}): {summary}.")

    def publish(self, values: Mapping[str, float], step: int) -> None:
        """Make what was measured known beside the logs; `step` counts epochs or batches."""
        if self.writer is not None:
            self.writer.scalars(values, step)

    def illustrate(self, step: int) -> None:
        """What comes after a measurement, on a budget of its own."""

    def _values(self, step):
        """What is measured now; nothing where the time does not allow it."""
        if self.budget is None:
            values = self.measure(self._examples)
            self.publish(values, step)
            self.illustrate(step)
            return values
        count = self.budget.grant()
        if not count:
            return {}
        values = {**self.measure(count), self.names()[-1]: count}
        self.publish(values, step)
        self.budget.charge(count)
        self.illustrate(step)
        return values

    def _pause(self):
        if budgets := self.budgets():
            _wait(self.model)
            for budget in budgets:
                budget.pause()

    def _resume(self):
        for budget in self.budgets():
            budget.resume()


class TracedCallback(ScheduledCallback):
    """A `ScheduledCallback` that measures in a graph, which is traced once.

    A subclass gives `prepare()`: called when training begins, it raises where the model cannot be
    measured, and returns the examples, a nest of tensors, and the function that takes some of them
    and returns a dict of scalar tensors; and `examples_name`.
    """

    examples_name = "examples"
    _measure: Any = None
    _names: Any = ()

    def prepare(self) -> tuple[Nest, Callable[..., Any]]:
        """The examples and the function that measures with them; see the class."""
        raise NotImplementedError

    def begin(self) -> int:
        """Trace the computation."""
        examples, function = self.prepare()
        bounded = self.max_overhead is not None

        def measure(count):
            # Cut inside the graph, where their number is unknown: no other one is traced again.
            part = tf.nest.map_structure(lambda leaf: leaf[:count], examples)
            return function(part if bounded else examples)

        signature = [tf.TensorSpec([], tf.int32)]
        self._measure = tf.function(measure, autograph=False, input_signature=signature)
        self._names = list(self._measure.get_concrete_function().structured_outputs)
        return int(tf.nest.flatten(examples)[0].shape[0])

    def names(self) -> list[str]:
        """As the graph has them."""
        return [*self._names, self.examples_name]

    def measure(self, count: int) -> dict[str, float]:
        """Run the graph."""
        return {name: float(value) for name, value in self._measure(tf.constant(count)).items()}


def shuffled(examples, seed):
    """Arrays or a data frame in one random order: the first ones are a fair sample of all."""
    leaves = tf.nest.flatten(examples)
    order = np.random.default_rng(seed).permutation(len(leaves[0]))
    return tf.nest.map_structure(lambda leaf: getattr(leaf, "iloc", leaf)[order], examples)


def check_name(call, argument, value):
    """Raise `ConfigurationError` unless `value` is a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ConfigurationError(
            f"{call}: `{argument}` must be a text that is not empty. "
            f"Received: {argument}={value!r}."
        )


def _wait(model):
    """Until the steps that an accelerator was sent are done: their time is that of training."""
    if model.trainable_variables:
        smallest = min(model.trainable_variables, key=lambda v: math.prod(v.shape))
        keras.ops.convert_to_numpy(smallest.value)


def _write(logs, values):
    if logs is not None:
        logs.update(values)
