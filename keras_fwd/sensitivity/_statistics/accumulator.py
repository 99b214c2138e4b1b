"""Derivatives that arrive batch by batch, and the estimates that come of them."""

import numpy as np

from keras_fwd.sensitivity import measures
from keras_fwd.sensitivity._statistics import resampling
from keras_fwd.sensitivity._statistics.estimates import Estimate, Sample
from keras_fwd.sensitivity._statistics.moments import GroupSums, Moments, Reservoir

#: Bytes that the sums of all groups, and the sample of examples, may take.
GROUP_BYTES, SAMPLE_BYTES = 2**27, 2**26
#: Examples of the sample, and groups of the bootstrap, where memory allows so many.
SAMPLE, GROUPS = 2000, 250
#: Groups of the jackknife, where there is no bootstrap.
FEW_GROUPS = 25
_SUMS = 6  # arrays of the size of the derivatives


def group_count(rows, outputs, parts=1, resamples=resampling.RESAMPLES):
    """How many groups of examples the bootstrap has: 250, or fewer for very many features."""
    if not resamples:
        return FEW_GROUPS
    return int(np.clip(GROUP_BYTES // (8 * _SUMS * rows * outputs * parts), 20, GROUPS))


class Accumulator:
    """Sums, spreads and a sample of derivatives; the memory does not grow with the data.

    Args:
        is_switch: For each feature whether it is a switch.
        outputs: Number of outputs.
        groups: Number of groups of the bootstrap.
        seed: Of the sample and the bootstrap.
        resamples: Of the bootstrap.

    Attributes:
        examples: How many were taken in.
    """

    def __init__(self, is_switch, outputs, groups, seed, resamples=resampling.RESAMPLES):
        self.is_switch = np.asarray(is_switch, bool)
        rows = len(self.is_switch)
        self._size = rows, outputs
        self._seed = seed
        self._resamples = min(resamples, resampling.resample_count(rows, outputs))
        size = int(np.clip(SAMPLE_BYTES // (8 * rows * outputs), 20, SAMPLE))
        self._sample = Reservoir(size, seed)
        self._groups = GroupSums(groups)
        self._x, self._y = Moments(), Moments()
        self._origin = None
        self._positive = np.zeros(self._size)
        self.low, self.high = np.full(rows, np.inf), np.full(rows, -np.inf)

    @property
    def examples(self):
        """How many examples were taken in."""
        return self._x.count

    def update(self, places, x, y, d, index=None):
        """Take in a batch of finite values, which may be empty.

        Args:
            places: The group of each example.
            x: Features, `[examples, features]`.
            y: Outputs, `[examples, outputs]`.
            d: Derivatives or differences, `[examples, features, outputs]`.
            index: Of switches, ½ Σᵥ p(v) (y(x with v) − y)², like `d`.
        """
        if not len(x):
            return
        if self._origin is None:
            self._origin = x[0], y[0]
        self._x.update(x)
        self._y.update(y)
        self._sample.update([x, d])
        self.low, self.high = np.minimum(self.low, x.min(0)), np.maximum(self.high, x.max(0))
        self._positive += np.count_nonzero(d > 0, axis=0)
        # `GroupSums` adds runs of equal places.
        order = np.argsort(places, kind="stable")
        x, y, d = x[order], y[order], d[order]
        # Relative to the first example: beside a large mean, sums of squares lose a small spread.
        shifted_x, shifted_y = x - self._origin[0], y - self._origin[1]
        nonzero = y != 0
        inverse = np.divide(1.0, y, out=np.zeros_like(y), where=nonzero)
        sums = {
            "count": np.ones((len(x), 1, 1)),
            "d": d,
            "abs": np.abs(d),
            "square": np.square(d),
            "elastic": d * _products(x, inverse),
            "nonzero": nonzero[:, None].astype(np.float64),
            "x": shifted_x[:, :, None],
            "xx": np.square(shifted_x)[:, :, None],
            "y": shifted_y[:, None],
            "yy": np.square(shifted_y)[:, None],
        }
        if index is not None:
            sums["index"] = index[order]
        self._groups.add(places[order], sums)

    @property
    def feature_mean(self):
        """Mean of each feature."""
        return self._x.mean

    @property
    def feature_std(self):
        """Standard deviation of each feature (divided by n)."""
        return np.sqrt(self._x.variance)

    @property
    def output_std(self):
        """Standard deviation of each output (divided by n)."""
        return np.sqrt(self._y.variance)

    def sample(self):
        """The uniform sample of examples."""
        return Sample(*self._sample.arrays)

    def estimates(self, constants, members, counted, confidence, seen):
        """All measures with their errors.

        Args:
            constants: Poincaré constants and their relative standard errors, `[features]` each.
            members: A tuple of indices for each group of features.
            counted: Which features count in the sum of total indices of a group.
            confidence: Of the intervals.
            seen: How many examples fell into groups so far, left out or not.

        Returns:
            `(measures, pooled, groups)`: dicts of `Estimate`s by the names of the measures.
        """
        bootstrap, sums = self._bootstrap(confidence, seen)
        constants = bootstrap.noisy(*constants)
        inside = np.zeros((len(members), len(self.is_switch)))
        for row, group in zip(inside, members, strict=True):
            row[list(group)] = 1.0

        def of_some(part):
            three = bootstrap.three(_rows_of(sums, part))
            three[0].update(self._spreads(part))
            three = [
                self._measures(sums, values[..., part, None], part)
                for sums, values in zip(three, constants, strict=True)
            ]
            both = [{**values, **_prefixed(measures.pooled(values))} for values in three]
            shares = [measures.shares(v, inside[:, part], counted[part]) for v in three]
            return bootstrap.estimates(both), shares

        some = map(of_some, resampling.chunks(*self._size, self._resamples))
        found, shares = zip(*some, strict=True)
        found, pooled = _joined(found), _joined([_unprefixed(estimates) for estimates in found])
        found["dgsm"] = _squared(found["rms"])
        found |= self._distribution(confidence)
        pooled["positive"] = found["positive"].map(lambda a: np.mean(a, axis=1, keepdims=True))
        groups = [measures.of_groups(parts) for parts in zip(*shares, strict=True)]
        together = bootstrap.estimates(groups) if members else {}
        return (
            self._named(found, measures.MEASURES),
            self._named(pooled, measures.POOLED),
            self._named(together, tuple(together)),
        )

    def replicates(self, constants, confidence, seen, name):
        """A measure of every resample, `[resamples, features, outputs]`; the constants are held."""
        bootstrap, sums = self._bootstrap(confidence, seen)
        _, resampled, _ = bootstrap.three(sums)
        found = self._measures(resampled, constants[0][:, None], slice(None))
        return {**found, "dgsm": np.square(found["rms"])}.get(name)

    def _bootstrap(self, confidence, seen):
        used = min(self._groups.groups, seen)
        sums = {name: array[:used] for name, array in self._groups.sums.items()}
        return resampling.Bootstrap(used, self._seed, confidence, self._resamples), sums

    def _spreads(self, part):
        """The variances without loss of digits; sums of squares do for their errors."""
        return {"var_x": self._x.variance[None, part, None], "var_y": self._y.variance[None, None]}

    def _measures(self, sums, constants, part):
        # A resample of few examples may hold none of them.
        count = np.where(sums["count"] > 0, sums["count"], np.nan)
        spreads = {
            # "xx" holds the squares of "x".
            f"var_{v}": np.maximum(sums[2 * v] / count - np.square(sums[v] / count), 0.0)
            for v in "xy"
        }
        sums = {**spreads, **sums, "count": count}
        return measures.of_sums(sums, constants, self.is_switch[part, None])

    def _distribution(self, confidence):
        """The share of positive values, and the quantiles of the sample."""
        sample = self._sample.arrays[1]
        ordered = np.ascontiguousarray(np.moveaxis(sample, 0, -1))
        ordered.sort(axis=-1)
        return {
            "positive": resampling.share_estimate(self._positive, self.examples, confidence),
            **{
                name: resampling.quantile_estimate(ordered, level, confidence)
                for name, level in measures.QUANTILES.items()
            },
        }

    def _named(self, found, names):
        """The estimates in the order of `names`; a single example has no errors."""
        if self.examples > 1:
            return {name: found[name] for name in names}
        unknown = {name: np.full_like(found[name].value, np.nan) for name in names}
        return {n: Estimate(found[n].value, unknown[n], unknown[n], unknown[n]) for n in names}


def _products(x, inverse):
    """`x[e, f] · inverse[e, o]`, written so that NumPy runs along long rows."""
    features, outputs = x.shape[1], inverse.shape[1]
    flat = np.repeat(x, outputs, axis=1) * np.tile(inverse, (1, features))
    return flat.reshape(len(x), features, outputs)


def _rows_of(sums, part):
    """The sums of some features; those without features as they are."""
    return {name: array if array.shape[1] == 1 else array[:, part] for name, array in sums.items()}


def _prefixed(found):
    return {f"pooled {name}": value for name, value in found.items()}


def _unprefixed(found):
    return {
        name.removeprefix("pooled "): value
        for name, value in found.items()
        if name.startswith("pooled ")
    }


def _squared(rms):
    """The estimate of the square: the intervals are those of any increasing function."""
    square, low, high = (np.square(part) for part in (rms.value, rms.low, rms.high))
    return Estimate(square, 2 * rms.value * rms.stderr, low, high)


def _joined(parts):
    return {
        name: Estimate(
            *(
                np.concatenate([getattr(part[name], field) for part in parts])
                for field in ("value", "stderr", "low", "high")
            )
        )
        for name in parts[0]
    }
