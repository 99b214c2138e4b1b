"""The examples of a report: batch by batch, with their targets and places, all or a random part."""

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from keras_fwd._models import data as batches
from keras_fwd._spaces import nest
from keras_fwd.errors import ConfigurationError, StructureError
from keras_fwd.sensitivity._statistics.moments import Reservoir

#: Numbers in a batch of arrays, and the fewest and most examples.
_NUMBERS, _BATCHES = 2**17, (32, 1024)


@dataclasses.dataclass
class Batch:
    """Some examples.

    Attributes:
        x: The inputs as the model wants them, a nest of tensors.
        y: The targets, a nest of arrays; None without.
        raw: The inputs as they stand in the data.
        index: The place of each example in the data.
        columns: Name of each column of the inputs -> its leaf and its place there.
    """

    x: Any
    y: Any
    raw: Any
    index: np.ndarray
    columns: dict


class Stream:
    """The batches of a data set, which may be read more than once.

    Args:
        call: Name of the public call.
        model: Keras model or layer.
        data: In a form that `fit` takes, or a pandas data frame.
        batch_size: Examples in a batch of arrays; None: as many as suits their size.
        max_examples: How many examples are used, drawn at random; None: all. Of endless data, the
            first ones.
        seed: Of the draw.
        targets: Whether targets are read.

    Attributes:
        batch_size: Examples in a batch of arrays.
        frame_columns: The names of the columns, if the data are a frame that is one input.
    """

    def __init__(self, call, model, data, batch_size, max_examples, seed, targets):
        self._call, self._model, self._targets = call, model, targets
        self._seed, self._max = seed, max_examples
        self._data, self.frame_columns = _from_frame(call, model, data)
        self.batch_size = batch_size or _fitting(self._data)
        self._kept = None
        self.columns = {}

    def __iter__(self):
        for raw, index in self._drawn() if self._max else self._read():
            x = raw[0] if self._targets else raw
            y = raw[1] if self._targets and len(raw) > 1 else None
            conformed = batches.conform(self._call, self._model, x)
            yield Batch(conformed, y, x, index, self.columns)

    def total(self):
        """How many examples there are, or None where that is not known beforehand."""
        if isinstance(self._data, tf.data.Dataset) or hasattr(self._data, "num_batches"):
            return self._max
        leaf = nest.flatten(self._data)[0]
        count = leaf.shape[0] if getattr(leaf, "shape", None) else None
        return count if self._max is None or count is None else min(count, self._max)

    def _read(self):
        endless = self._max if batches.is_endless(self._data) else None
        start = 0
        for raw in batches.raw_batches(
            self._call, self._data, self.batch_size, endless, whole=self._targets
        ):
            count = nest.flatten(raw)[0].shape[0]
            yield raw, np.arange(start, start + count)
            start += count

    def _drawn(self):
        """A random part, read once and kept."""
        if self._kept is None:
            reservoir, structure = Reservoir(self._max, self._seed), None
            for raw, index in self._read():
                structure = raw
                leaves = [np.asarray(leaf) for leaf in nest.flatten(raw)]
                self._check_lengths(leaves, reservoir.arrays)
                reservoir.update([*leaves, index])
            *leaves, index = reservoir.arrays
            # In the order of the data again, so that all of them drawn are the data themselves.
            order = np.argsort(index)
            self._kept = nest.pack(structure, [leaf[order] for leaf in leaves]), index[order]
        whole, index = self._kept
        for start in range(0, len(index), self.batch_size):
            rows = slice(start, start + self.batch_size)
            part = [leaf[rows] for leaf in nest.flatten(whole)]
            yield nest.pack(whole, part), index[rows]

    def _check_lengths(self, leaves, kept):
        # Before the first batch nothing is kept; and what is kept ends in the index.
        for leaf, before in zip(leaves, kept, strict=False):
            if leaf.shape[1:] != before.shape[1:]:
                raise StructureError(
                    f"{self._call}: `data` must have the same features in every example. Received: "
                    f"examples of shapes {before.shape[1:]} and {leaf.shape[1:]}. Pad them to one "
                    "length."
                )


def _fitting(data):
    """A number of examples that suits the size of one."""
    if isinstance(data, tuple) and data:
        data = data[0]
    arrays = [leaf for leaf in nest.flatten(data) if hasattr(leaf, "shape")]
    numbers = sum(math.prod(tuple(leaf.shape)[1:]) for leaf in arrays)
    return int(np.clip(_NUMBERS // max(1, numbers), *_BATCHES))


def _from_frame(call, model, data):
    """Data frames, alone or as x of `(x, y)`, as arrays."""
    if isinstance(data, tuple) and data and _is_frame(data[0]):
        x, columns = _from_frame(call, model, data[0])
        return (x, *map(np.asarray, data[1:])), columns
    if not _is_frame(data):
        return data, None
    names = [str(name) for name in data.columns]
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) == 1 and len(inputs[0].shape) == 2 and inputs[0].shape[1] != 1:
        width = inputs[0].shape[1]
        if width is not None and width != len(names):
            raise ConfigurationError(
                f"{call}: `data` must have one column for each of the model's {width} features. "
                f"Received: {len(names)} columns, {names[:20]}. Leave out the target: "
                "`frame[names]`, or `frame.drop(columns=…)`."
            )
        return _numbers(call, data), names
    return {name: _column(data[key]) for name, key in zip(names, data.columns, strict=True)}, None


def _is_frame(data):
    return hasattr(data, "columns") and hasattr(data, "to_numpy")


def _column(series):
    values = series.to_numpy()
    return values if values.dtype.kind in "biuf" else values.astype(str)


def _numbers(call, frame):
    try:
        return frame.to_numpy(np.float64)
    except (TypeError, ValueError) as error:
        texts = [str(n) for n in frame.columns if frame[n].to_numpy().dtype.kind not in "biuf"]
        raise ConfigurationError(
            f"{call}: `data` must hold numbers. Received: columns of others, {texts[:20]} "
            f"({error}). Encode them as the model was trained."
        ) from None


# Work on one batch while the next one is on its way.


class Background:
    """Calls in a thread of their own, one after the other, at most one of them unfinished.

    NumPy sums up one batch while TensorFlow differentiates the next. An error of a call is raised
    by the next one, or at the end.
    """

    def __enter__(self):
        self._thread, self._last = ThreadPoolExecutor(1), None
        return self

    def __call__(self, function, *arguments):
        """Start a call once the one before is done."""
        self._wait()
        self._last = self._thread.submit(function, *arguments)

    def __exit__(self, kind, error, trace):
        with self._thread:
            self._wait()

    def _wait(self):
        if self._last is not None:
            last, self._last = self._last, None
            last.result()
