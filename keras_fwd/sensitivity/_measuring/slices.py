"""`by=`: the labels that part the examples of a data set into slices."""

import inspect
import itertools
from typing import Any

import numpy as np

from keras_fwd._spaces import given, nest
from keras_fwd.errors import ConfigurationError
from keras_fwd.sensitivity._statistics.moments import Reservoir

#: A numeric column with more distinct values than this is cut at its quartiles.
MAX_LABELS = 20


class Slices:
    """Which slice each example belongs to.

    Labels are looked at once before (`learn`), as the cuts of a numeric column need all values.

    Args:
        call: Name of the public call.
        by: `"target"`, the name of a column, a function of `x` or of `(x, y)`, or an array with a
            label for each example.
    """

    def __init__(self, call, by):
        self._call, self._by = call, by
        self._distinct, self._name = {}, by if isinstance(by, str) else "value"
        self._edges: Any = None
        self._numbers = Reservoir(10_000, seed=0)

    @property
    def needs_targets(self):
        """Whether labels come from the targets."""
        if isinstance(self._by, str):
            return self._by == "target"
        return callable(self._by) and len(inspect.signature(self._by).parameters) > 1

    def learn(self, batch):
        """Take in the labels of a `Batch`."""
        values = self._values(batch)
        if np.issubdtype(values.dtype, np.number):
            self._numbers.update([values.astype(np.float64)])
        if len(self._distinct) <= MAX_LABELS:
            self._distinct |= dict.fromkeys(_key(v) for v in np.unique(values))

    def finish(self):
        """Fix the slices; returns their labels in order.

        Raises:
            ConfigurationError: More texts than `MAX_LABELS`.
        """
        if len(self._distinct) <= MAX_LABELS:
            return [self._text(key) for key in sorted(self._distinct, key=_order)]
        if not self._numbers.arrays:
            raise ConfigurationError(
                f"{self._call}: `by` must part the examples into at most {MAX_LABELS} slices. "
                f"Received: more labels than that, {list(self._distinct)[:3]} among them."
            )
        # Quartiles that are equal would leave a slice without examples.
        self._edges = np.unique(np.nanquantile(self._numbers.arrays[0], [0.25, 0.5, 0.75]))
        return self._intervals()

    def labels(self, batch):
        """The label of each example of a `Batch`, an array of texts."""
        values = self._values(batch)
        if self._edges is None:
            return np.array([self._text(_key(v)) for v in values], object)
        places = np.searchsorted(self._edges, values.astype(np.float64), side="left")
        return np.array(self._intervals(), object)[places]

    def _intervals(self):
        edges = [f"{edge:.4g}" for edge in self._edges]
        middle = [f"{a} < {self._name} ≤ {b}" for a, b in itertools.pairwise(edges)]
        return [f"{self._name} ≤ {edges[0]}", *middle, f"{self._name} > {edges[-1]}"]

    def _text(self, key):
        shown = f"{key:g}" if isinstance(key, float) else str(key)
        return f"{self._by} = {shown}" if isinstance(self._by, str) else shown

    def _values(self, batch):
        if callable(self._by):
            arguments = (batch.x, batch.y) if self.needs_targets else (batch.x,)
            found = self._by(*arguments)
        elif not isinstance(self._by, str):
            found = self._array(batch)
        elif self._by == "target" and not _has(batch.raw, "target"):
            found = self._target(batch)
        else:
            found = self._column(batch)
        values = np.asarray(found)
        if values.shape[:1] != (len(batch.index),) or values.size != len(batch.index):
            raise ConfigurationError(
                f"{self._call}: `by` must give one label for each example. Received: "
                f"{given.describe(values)} for {len(batch.index)} examples."
            )
        return values.reshape(-1)

    def _array(self, batch):
        labels = np.asarray(self._by)
        if not labels.ndim or len(labels) <= batch.index.max(initial=-1):
            raise ConfigurationError(
                f"{self._call}: `by` as an array must have a label for each example. Received: "
                f"{given.describe(labels)} for at least {batch.index.max(initial=-1) + 1} examples."
            )
        return labels[batch.index]

    def _target(self, batch):
        leaves = [] if batch.y is None else nest.flatten(batch.y)
        if len(leaves) != 1:
            raise ConfigurationError(
                f'{self._call}: by="target" needs data with one target: (x, y). Received: '
                f"{len(leaves)} targets. Give a function of (x, y) instead."
            )
        target = np.asarray(leaves[0])
        one_hot = target.ndim == 2 and target.shape[1] > 1
        return target.argmax(axis=1) if one_hot else target.reshape(len(target), -1)[:, 0]

    def _column(self, batch):
        if _has(batch.raw, self._by):
            return np.asarray(batch.raw[self._by]).reshape(len(batch.index), -1)[:, 0]
        if self._by in batch.columns:
            leaf, place = batch.columns[self._by]
            return np.asarray(nest.flatten(batch.x)[leaf]).reshape(len(batch.index), -1)[:, place]
        raise ConfigurationError(
            f'{self._call}: `by` must be "target", the name of a column, a function or an array. '
            f"Received: by={self._by!r}; columns are {list(batch.columns)[:10]}."
        )


def _key(value):
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.item() if isinstance(value, np.generic) else value


def _order(key):
    # Numbers first: they do not compare with texts.
    return (isinstance(key, str), key)


def _has(raw, name):
    return isinstance(raw, dict) and name in raw
