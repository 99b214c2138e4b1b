"""Sums over examples that arrive in batches: means and variances, a sample, sums by group."""

import numpy as np


class Moments:
    """Mean and variance of arrays that arrive in batches, in float64.

    Each batch is centered and merged (Chan, Golub and LeVeque's pairwise update), all relative to
    the first value seen: a constant has a variance of exactly 0, and a large mean does not eat
    the digits of a small spread.

    Example:

    >>> moments = Moments()
    >>> moments.update(np.array([[1.0], [2.0]]))
    >>> moments.update(np.array([[6.0]]))
    >>> moments.mean, moments.variance
    (array([3.]), array([4.66666667]))
    """

    def __init__(self):
        self.count = 0
        self._origin = self._mean = self._scatter = np.zeros(())

    def update(self, values):
        """Take in a batch, `[examples, …]`, which may be empty."""
        if not len(values):
            return
        if not self.count:
            self._origin = np.array(values[0], np.float64)
        values = values - self._origin
        mean = values.mean(axis=0)
        total = self.count + len(values)
        shift = mean - self._mean
        self._scatter = self._scatter + np.square(values - mean).sum(axis=0)
        self._scatter = self._scatter + shift**2 * (self.count * len(values) / total)
        self._mean = self._mean + shift * (len(values) / total)
        self.count = total

    @property
    def mean(self):
        """Mean over all examples."""
        return self._origin + self._mean

    @property
    def variance(self):
        """Mean squared distance from the mean (divided by n, as `np.var` does)."""
        return self._scatter / max(1, self.count)


class Reservoir:
    """A uniform sample, without replacement, of rows that arrive in batches (Vitter's algorithm R).

    As long as no more than `size` rows have come, all of them, in their order.

    Args:
        size: How many rows are kept at most.
        seed: Of the draws.

    Example:

    >>> sample = Reservoir(2, seed=0)
    >>> for batch in ([1.0], [2.0, 3.0], [4.0]):
    ...     sample.update([np.array(batch)])
    >>> len(sample.arrays[0])
    2
    """

    def __init__(self, size, seed):
        self.arrays = []
        self.size = size
        self._seen = 0
        self._random = np.random.default_rng([seed, 1])

    def update(self, arrays):
        """Take in a batch: a list of arrays of equal length."""
        count = len(arrays[0])
        free = min(count, max(0, self.size - self._seen))
        if free:
            head = [np.array(a[:free]) for a in arrays]
            self.arrays = (
                [np.concatenate(pair) for pair in zip(self.arrays, head, strict=True)]
                if self.arrays
                else head
            )
        draws = self._random.integers(self._seen + 1 + np.arange(free, count))
        rows = np.flatnonzero(draws < self.size)
        for kept, array in zip(self.arrays, arrays, strict=True):
            kept[draws[rows]] = array[free + rows]  # of two rows for one place the last one stays
        self._seen += count


class Places:
    """Which group each example falls into, for a bootstrap whose memory does not grow.

    The first `groups` examples have a group each, so that few examples are resampled one by one;
    every later one joins a random group. As the groups are random and not stretches of the data,
    the order of the data does not matter.

    Args:
        groups: How many groups there are at most.
        seed: Of the draws; the same examples with the same seed fall into the same groups.
    """

    def __init__(self, groups, seed):
        self.groups = groups
        self.seen = 0
        self._random = np.random.default_rng([seed, 2])

    def __call__(self, count):
        """The groups of the next `count` examples."""
        first = np.arange(self.seen, self.seen + count)
        drawn = self._random.integers(self.groups, size=count)
        self.seen += count
        return np.where(first < self.groups, first, drawn)


class GroupSums:
    """Sums of rows over groups of examples.

    Args:
        groups: How many groups there are.

    Attributes:
        sums: Dict of arrays `[groups, …]`.
    """

    def __init__(self, groups):
        self.groups = groups
        self.sums = {}

    def add(self, places, arrays):
        """Add rows (a dict of arrays `[examples, …]`) to the groups at sorted `places`."""
        present, starts = np.unique(places, return_index=True)
        for name, array in arrays.items():
            if name not in self.sums:
                self.sums[name] = np.zeros((self.groups, *array.shape[1:]))
            self.sums[name][present] += np.add.reduceat(array, starts, axis=0)
