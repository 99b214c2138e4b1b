"""One pass of a sensitivity analysis over data, and the report that comes of it."""

import contextlib
import dataclasses
import sys
import zlib
from typing import Any

import numpy as np

from keras_fwd._spaces import nest
from keras_fwd.errors import ConfigurationError, StructureError
from keras_fwd.sensitivity._measuring import notes
from keras_fwd.sensitivity._measuring.interactions import PairSearch
from keras_fwd.sensitivity._measuring.notes import About
from keras_fwd.sensitivity._measuring.stream import Background
from keras_fwd.sensitivity._measuring.switches import MAX_SWITCHES
from keras_fwd.sensitivity._statistics import poincare
from keras_fwd.sensitivity._statistics.accumulator import Accumulator, group_count
from keras_fwd.sensitivity._statistics.estimates import Groups
from keras_fwd.sensitivity._statistics.moments import Places
from keras_fwd.sensitivity.report import SensitivityReport

# A progress bar over the examples of a report, by Rich, on the terminal's error stream.


@contextlib.contextmanager
def bar(call, show, total):
    """Gives a function that takes how many more examples are done.

    Args:
        call: Name of the public call, which stands before the bar.
        show: True, False, or `"auto"`: if the error stream is a terminal.
        total: How many examples there will be, or None.
    """
    if show == "auto":
        show = sys.stderr.isatty()
    if not show:
        yield lambda count: None
        return
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )
    except ImportError:  # the bar is a comfort: without the extra there is none
        yield lambda count: None
        return
    columns = (TextColumn(call), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(call, total=total)
        yield lambda count: progress.advance(task, count)


#: Bytes that the derivatives of one batch may take; those of two are held at a time.
BATCH_BYTES = 2**26


class Run:
    """One pass over a data set.

    Args:
        analysis: `Analysis` with the options.
        stream: `Stream` of the data.
        slices: `Slices`, or None.

    Attributes:
        left_out: How many examples were not finite.
        bad_cells: Name of a feature -> how many of its cells were NaN or infinite.
        interrupted: Whether the pass was stopped by the keyboard.
    """

    def __init__(self, analysis, stream, slices):
        self.analysis, self._stream, self._slices = analysis, stream, slices
        self.left_out, self.bad_cells, self.interrupted = 0, {}, False
        self._shapes = self._digest = None
        self.plan: Any = None
        self._all: Any = None
        self._parts, self._pairs = {}, None
        self._places: Any = None

    @property
    def groups(self):
        """How many groups of examples the bootstrap has."""
        return self._places.groups

    def report(self, show):
        """The report; `show` says whether there is a progress bar."""
        call = self.analysis.call
        with bar(call, show, self._stream.total()) as advance:
            try:
                self._look()
                with Background() as background:
                    for batch in self._stream:
                        self._begin(batch)
                        self._take(batch, background)
                        advance(len(batch.index))
            except KeyboardInterrupt:
                if self._all is None or not self._all.examples:
                    raise
                self.interrupted = True
        if not self._all.examples:
            raise ConfigurationError(
                f"{call}: `data` must hold an example with finite inputs and derivatives. "
                f"Received: {self.left_out} examples, all with NaN or infinity."
            )
        return self._result()

    def _look(self):
        """A first pass, where values of discrete features or labels of slices are needed."""
        for batch in self._stream:
            self._begin(batch)
            # One batch makes the plan; the others are read for values and labels alone.
            if not self.plan.discrete and self._slices is None:
                break
            leaves = [np.asarray(leaf) for leaf in nest.flatten(batch.x)]
            for discrete in self.plan.discrete:
                discrete.count(leaves)
            if self._slices is not None:
                self._slices.learn(batch)
        self._prepare()

    def _begin(self, batch):
        """Check a batch against those before; the first one makes the plan."""
        if self.plan is None:
            self.plan = self.analysis.plan(batch, self._stream.frame_columns)
            self._stream.columns.update(self.plan.columns)
            for discrete in self.plan.discrete:
                # A plan outlives a data set: one analysis may make many reports.
                discrete.counts.clear()
        shapes = [tuple(leaf.shape[1:]) for leaf in nest.flatten(batch.x)]
        if self._shapes not in (None, shapes):
            raise StructureError(
                f"{self.analysis.call}: `data` must have the same features in every example. "
                f"Received: examples of shapes {self._shapes} and {shapes}. Pad them to one length."
            )
        self._shapes = shapes

    def _prepare(self):
        """Make room for what is summed up, once features, outputs and slices are known."""
        call, plan, options = self.analysis.call, self.plan, self.analysis
        for discrete in plan.discrete:
            discrete.check(call)
        if (many := sum(len(d.names) for d in plan.discrete)) > MAX_SWITCHES:
            raise ConfigurationError(
                f"{call}: `features` must choose among the discrete inputs: a report holds at most "
                f"{MAX_SWITCHES} switches of value. Received: {many}."
            )
        labels = [] if self._slices is None else self._slices.finish()
        features, outputs = plan.features(), len(plan.model.names_of_outputs())
        outputs = outputs if plan.model.chosen is None else len(plan.model.chosen)
        # Raises for names of a wrong number, before the long pass and not after it.
        plan.outputs()
        if not features:
            raise ConfigurationError(
                f"{call}: `data` must hold at least two values of a discrete feature. Received: "
                f"{', '.join(d.name for d in plan.discrete)} with one value each."
            )
        self.members = plan.members(options.groups)
        self.is_switch = np.arange(len(features)) >= len(plan.names)
        parts = 1 + len(labels)
        groups = group_count(len(features), outputs, parts, options.resamples)
        self._places = Places(groups, options.seed)
        build = (self.is_switch, outputs, groups, options.seed, options.resamples)
        self._all = Accumulator(*build)
        self._parts = {label: Accumulator(*build) for label in labels}
        if options.interactions:
            self._pairs = PairSearch(plan.model, options.interactions, options.seed)
        self._size = max(1, BATCH_BYTES // (8 * len(features) * outputs))
        self._digest = 0

    def _take(self, batch, background):
        labels = None if self._slices is None else self._slices.labels(batch)
        places = self._places(len(batch.index))
        for start in range(0, len(batch.index), self._size):
            rows = slice(start, start + self._size)
            x = nest.pack(batch.x, [leaf[rows] for leaf in nest.flatten(batch.x)])
            part = places[rows], None if labels is None else labels[rows]
            # TensorFlow computes these values while NumPy still sums up those before.
            background(self._sum_up, x, self._values(x), *part)

    def _sum_up(self, x, values, places, labels):
        features, y, d, index = values
        finite = np.isfinite(features).all(axis=1) & np.isfinite(y).all(axis=1)
        finite &= np.isfinite(d).all(axis=(1, 2))
        # Tells whether two reports saw the same examples, whose differences are then paired.
        self._digest = zlib.crc32(np.ascontiguousarray(features), self._digest)
        if not finite.all():
            self._count_bad(features, finite)
            features, y, d, places = (a[finite] for a in (features, y, d, places))
            index = index if index is None else index[finite]
        if self._pairs is not None:
            self._pairs.update(x, finite)
        self._all.update(places, features, y, d, index)
        if labels is None:
            return
        labels = labels[finite]
        for label, part in self._parts.items():
            mine = labels == label
            inside = index if index is None else index[mine]
            part.update(places[mine], features[mine], y[mine], d[mine], inside)

    def _values(self, x):
        """Features, outputs and effects of a batch; and, of switches, their index."""
        model = self.plan.model
        if self.plan.names:
            features, y, d = model.derivatives(x)
        else:
            y = model.outputs(x)
            features, d = np.zeros((len(y), 0)), np.zeros((len(y), 0, y.shape[1]))
        if not self.plan.discrete:
            return features, y, d, None
        leaves = [np.asarray(leaf) for leaf in nest.flatten(x)]
        found = [f.effects(model, leaves, x, y) for f in self.plan.discrete if f.names]
        if not found:
            return features, y, d, None
        indicators, differences, indices = zip(*found, strict=True)
        return (
            np.concatenate([features, *indicators], axis=1),
            y,
            np.concatenate([d, *differences], axis=1),
            # Derivatives have no index of their own: theirs is bounded by the Poincaré constant.
            np.concatenate([np.zeros_like(d), *indices], axis=1),
        )

    def _count_bad(self, features, finite):
        self.left_out += int((~finite).sum())
        counts = (~np.isfinite(features)).sum(axis=0)
        for i in np.flatnonzero(counts):
            name = self.plan.features()[i]
            self.bad_cells[name] = self.bad_cells.get(name, 0) + int(counts[i])

    def _result(self):
        options, plan = self.analysis, self.plan
        slices = {
            label: self._report_of(part, {}, None)
            for label, part in self._parts.items()
            if part.examples
        }
        pairs = None
        if self._pairs is not None:
            accumulator, count = self._all, len(plan.names)
            pairs = self._pairs.result(
                plan.places,
                plan.count,
                accumulator.feature_std[:count],
                accumulator.output_std,
                options.confidence,
                min(self._stream.batch_size, self._size),
            )
        return self._report_of(self._all, slices, pairs)

    def _report_of(self, accumulator, slices, pairs):
        options, plan = self.analysis, self.plan
        constants = self._constants(accumulator)
        settings = (options.confidence, self._places.seen)
        counted = plan.first_switches()
        measures, pooled, together = accumulator.estimates(
            constants, self.members, counted, *settings
        )
        kinds = np.where(self.is_switch, "switch", "derivative")
        names = tuple(options.groups)
        report = SensitivityReport(
            feature_names=plan.features(),
            output_names=plan.outputs(),
            kinds=tuple(map(str, kinds)),
            feature_mean=accumulator.feature_mean,
            feature_std=accumulator.feature_std,
            output_std=accumulator.output_std,
            examples=accumulator.examples,
            left_out=self.left_out,
            notes=(),
            confidence=options.confidence,
            measures=measures,
            pooled=pooled,
            groups=Groups(names, self.members, together) if names else None,
            interactions=pairs,
            sample=accumulator.sample(),
            inputs=plan.inputs,
            slices=slices,
            about=About(options.model),
            interrupted=self.interrupted,
            source=Source(accumulator, constants, settings, (options.seed, self._digest)),
        )
        whole = accumulator is self._all
        return dataclasses.replace(report, notes=tuple(notes.of(self, report, whole)))

    def _constants(self, accumulator):
        """Poincaré constants of the features with derivatives, NaN for switches; their errors."""
        count = len(self.plan.names)
        constants, errors = np.full(len(self.is_switch), np.nan), np.zeros(len(self.is_switch))
        constants[:count], errors[:count] = poincare.constants(
            self.analysis.marginals,
            self.plan.names,
            accumulator.sample().features[:, :count],
            accumulator.low[:count],
            accumulator.high[:count],
            accumulator.feature_std[:count],
            accumulator.examples,
        )
        return constants, errors


@dataclasses.dataclass
class Source:
    """What a report was made from, as long as it lives: its resamples, for comparisons.

    Attributes:
        key: Equal for two reports on the same examples in the same groups.
    """

    accumulator: Accumulator
    constants: tuple
    settings: tuple
    key: tuple

    def __post_init__(self):
        self.key = (*self.key, *self.settings, self.accumulator.examples)

    def replicates(self, name):
        """The measure of every resample, `[resamples, features, outputs]`; None for others."""
        return self.accumulator.replicates(self.constants, *self.settings, name)
