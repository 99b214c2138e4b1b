"""`SensitivityCallback`: how strongly each input drives a model, and how training changes that."""

import dataclasses
import inspect
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_fwd._checks import needed
from keras_fwd._models import data as batches
from keras_fwd.callbacks._measuring import events
from keras_fwd.callbacks._measuring.budget import Budget
from keras_fwd.callbacks._measuring.evolution import Moments
from keras_fwd.callbacks._measuring.schedule import ScheduledCallback
from keras_fwd.errors import ConfigurationError
from keras_fwd.sensitivity.analysis import Analysis
from keras_fwd.typing import Data, Every, Logs, PathLike

LOGGED = 20  # features, so that logs and progress bar stay readable
ASIDE = 1.0  # seconds for a measurement before or after training, where there is a bound


class SensitivityCallback(ScheduledCallback):
    """Takes a sensitivity report of the model while it trains, and keeps how it changes.

    Into the logs goes one number for each feature, √E[(∂y/∂x)²] times the feature's spread over
    that of the output, pooled over the outputs ("standardized_rms" of the report), without a unit.
    `History`, the progress bar, `CSVLogger`, `TensorBoard` and `EarlyStopping` find it there, if
    they stand *after* this callback in the list; `History` and the progress bar of `fit` do. With
    more than 20 features it is those of the first 20 in `features`, or of the 20 strongest before
    training. The model is called with `training=False` and is not changed, nor is any global
    random state.

    Attributes:
        report: The last `SensitivityReport`, of all features, with `evolution`: mean and
            standardized_rms over the epochs, from 0, before training. None before `fit`.

    Args:
        data: Inputs, in a form that `sensitivity_report` takes. Read once, at construction.
            Targets and sample weights are passed over.
        every: `"epoch"` (default), at the end of each epoch; or a whole number n: after every n-th
            batch, counted through the whole training, into the logs of that batch as well. The
            epoch's logs then hold the last values; an epoch without any takes them at its end.
        features: Names of the features to measure, as in `sensitivity_report`; default all.
        feature_names: As in `sensitivity_report`.
        output_names: As in `sensitivity_report`.
        max_examples: How many examples of `data` are used, the first ones; default 1024.
        max_overhead: Keeps the time of the measurements below that share of the time that training
            takes besides, default 0.1: the examples are put into one random order, the first 32 or
            more of them are used, as many as there is time for, and their number is logged as
            `sensitivity_examples`. Where there is no time for any, values are logged as NaN and
            the number as 0. `fit` prints at its end what the bound has changed, unless
            `verbose=0`. None: all examples, every time; for trainings of seconds, whose epochs have
            time for few measurements.
        log_dir: Directory into which the values are also written for TensorBoard, at each
            measurement, by the number of the epoch (from 0, as Keras does) or of batches done, and
            the bars of the report as an image; default none. Images then share `max_overhead` with
            the measurements, half for each; the last report is always drawn. Not needed beside
            `keras.callbacks.TensorBoard`, which writes the logs.
        prefix: Text before every feature's name in the logs; default `"sensitivity/"`.
        seed: Whole number ≥ 0 for what is random in the report, and for the order; default 0.
        **options: Other arguments of `sensitivity_report`, such as `discrete` or `groups`, but not
            `by`. `resamples` is 0 unless given: errors by a jackknife take little time.

    Raises:
        ConfigurationError: At construction for a bad argument or empty data; when training begins
            as `sensitivity_report`.
        StructureError, LeakError: As `sensitivity_report`.
        ImportError: `log_dir` is given and TensorBoard or matplotlib is not installed.

    Cost: Each time a report over the examples used. Before training one more, and one after it
        where the last epoch was left out, which with a bound take about a second at most, and four
        small ones that are timed. The evolution keeps eight numbers for each feature, output and
        measurement.

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> x = np.random.default_rng(0).normal(size=(64, 2))
    >>> callback = SensitivityCallback(x, feature_names=["age", "height"])
    >>> history = model.fit(x, x[:, :1], epochs=2, verbose=0, callbacks=[callback]).history
    >>> [name for name in history if name.startswith("sensitivity")]
    ['sensitivity/age', 'sensitivity/height', 'sensitivity_examples']
    >>> callback.report.feature_names
    ('age', 'height')
    """

    def __init__(
        self,
        data: Data,
        every: Every = "epoch",
        features: Sequence[str] | None = None,
        feature_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
        max_examples: int = 1024,
        max_overhead: float | None = 0.1,
        log_dir: PathLike | None = None,
        prefix: str = "sensitivity/",
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(every, max_overhead, log_dir)
        call = type(self).__name__
        if log_dir is not None:  # for the bars, which are drawn while the model trains
            needed(f"{call}: `log_dir`", "matplotlib.figure")
        if not isinstance(prefix, str):
            raise ConfigurationError(
                f"{call}: `prefix` must be a text, which may be empty. Received: prefix={prefix!r}."
            )
        names = {"feature_names": feature_names, "output_names": output_names}
        # A bootstrap at each measurement would take longer than the derivatives.
        self._options = {**names, "features": features, "seed": seed, "resamples": 0, **options}
        _check_options(call, options)
        self.prefix = prefix
        self.keep(_read, data, max_examples, seed)
        self._analysis: Any = None
        self._report: Any = None
        self._logged: Any = None
        self._figures: Any = None
        self._undrawn: Any = None
        self._moments = Moments()
        self._epoch = 0

    @property
    def report(self) -> Any:
        """The last `SensitivityReport`, with `evolution`; None before training."""
        if self._report is None:
            return None
        return dataclasses.replace(self._report, evolution=self._moments.evolution())

    def to_html(self, path: PathLike, **options: Any) -> pathlib.Path:
        """Write the report with its evolution as one HTML page; see `SensitivityReport.to_html`."""
        if self._report is None:
            raise ConfigurationError(
                f"{type(self).__name__}.to_html: there must be a report. Received: a callback that "
                "has not measured. Pass it to `fit` first."
            )
        return self.report.to_html(path, **options)

    def begin(self) -> int:
        """Trace the derivatives."""
        self._analysis = Analysis(type(self).__name__, self.model, **self._options)
        self._moments, self._logged, self._undrawn = Moments(), None, None
        return len(tf.nest.flatten(self._data)[0])

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Measure the model as it is before training."""
        super().on_train_begin(logs)
        bounded = self.budget is not None
        self._logged = None  # chosen by more examples than the smallest measurements have
        self.measure(self.budget.within(ASIDE) if bounded else self._examples)
        self._moments.add(self._report, 0)
        self._figures = None
        if bounded and self.writer is not None:
            self._figures = Budget(self.measuring_share(), 1, self.clock)
            self._figures.calibrate(lambda _: events.pixels(self._bars()))

    def measure(self, count: int) -> dict[str, float]:
        """Take a report; the numbers of the features that are logged."""
        part = tf.nest.map_structure(lambda leaf: leaf[:count], self._data)
        self._report = report = self._analysis.report(part)
        if report.interrupted:
            raise KeyboardInterrupt
        if self._logged is None:
            chosen = np.arange(len(report.feature_names))
            if self._options["features"] is None and len(chosen) > LOGGED:
                chosen = np.sort(report.ranking()[:LOGGED])
            self._logged = {f"{self.prefix}{report.feature_names[i]}": i for i in chosen[:LOGGED]}
        values = report.pooled["standardized_rms"].value[:, 0]
        return {name: float(values[i]) for name, i in self._logged.items()}

    def names(self) -> list[str]:
        """Of the features that are logged, and of the number of examples."""
        return [*self._logged, f"{self.prefix.rstrip('/') or 'sensitivity'}_examples"]

    def measuring_share(self) -> float:
        """Half of the bound, where figures may take the other half."""
        return self.max_overhead / (1 if self.writer is None else 2)

    def budgets(self) -> list[Any]:
        """That of the measurements and that of the figures."""
        return [*super().budgets(), *([] if self._figures is None else [self._figures])]

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Remember which epoch it is."""
        self._epoch = epoch
        self._moments.begin_epoch(epoch)
        super().on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Say where in the epoch each measurement stands, now that its length is known."""
        super().on_epoch_end(epoch, logs)
        self._moments.end_epoch(self._batch + 1)

    def publish(self, values: Mapping[str, float], step: int) -> None:
        """Add a moment to the evolution."""
        super().publish(values, step)
        if self.every is None:
            self._moments.add(self._report, self._epoch + 1)
        else:
            self._moments.add(self._report, self._epoch, self._batch + 1)
        self._undrawn = step

    def illustrate(self, step: int) -> None:
        """Draw the report, if there is time."""
        if self.writer is None or (self._figures is not None and not self._figures.grant()):
            return
        self._draw(step)
        if self._figures is not None:
            self._figures.charge(1)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Measure if the last epoch was left out, and draw the last report."""
        # No examples: there was no time for the last epoch, whose report is the one that is asked
        # for.
        if self._last.get(self.names()[-1]) == 0:
            self.measure(self.budget.within(ASIDE))
            self._moments.add(self._report, self._epoch + 1)
            self._undrawn = self._epoch if self.every is None else self._batches
        if self.writer is not None and self._undrawn is not None:
            self._draw(self._undrawn)
        super().on_train_end(logs)

    def _bars(self):
        return self._report.plot(kind="bar")

    def _draw(self, step):
        image = events.pixels(self._bars())
        self.writer.image(self.prefix.rstrip("/") or "sensitivity", image, step)
        self._undrawn = None


def _check_options(call, options):
    if "by" in options:
        raise ConfigurationError(
            f"{call}: `by` must be left out: the evolution is that of all examples. Received: "
            f"by={options['by']!r}. Call `sensitivity_report` after training."
        )
    inspect.signature(Analysis).bind(call, None, **options)  # TypeError for what it does not know


def _read(call, data, count):
    """The first examples, nests of arrays, or a data frame as it is."""
    x = data[0] if isinstance(data, tuple) and data else data
    if hasattr(x, "iloc"):
        return x.iloc[:count]
    read = list(batches.raw_batches(call, data, count, count))
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *read)
