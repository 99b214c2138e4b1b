"""Which pairs of features act together: second derivatives ∂²y/∂xᵢ∂xⱼ over examples.

Of few features all pairs are looked at. Of many, a screening comes first: with two vectors v and w
of random signs, drawn anew for each example, half the mean square of (H v)ᵢ vᵢ − (H w)ᵢ wᵢ is the
sum of E[Hᵢⱼ²] over j ≠ i, so that two pullbacks of pushforwards show how strongly each feature
takes part in any pair, and no Hessian is formed. Then the pairs of the
strongest features are computed exactly, by forward over forward.
"""

import dataclasses

import numpy as np

from keras_fwd._spaces import nest
from keras_fwd.sensitivity._statistics import resampling
from keras_fwd.sensitivity._statistics.estimates import Interactions
from keras_fwd.sensitivity._statistics.moments import Reservoir

#: Of more features than this, only the pairs of the strongest so many are computed.
FEATURES = 24
#: Examples that interactions are computed from, drawn at random.
EXAMPLES = 512


@dataclasses.dataclass
class PairSearch:
    """A search for the strongest pairs.

    Args:
        model: `FlatModel`.
        pairs: How many pairs to report.
        seed: Of the examples and of the random signs.
    """

    model: object
    pairs: int
    seed: int

    def __post_init__(self):
        self._structure = None
        self._kept = Reservoir(EXAMPLES, self.seed)

    def update(self, x, keep):
        """Take in a batch of inputs, of which `keep` says which rows are finite."""
        self._structure = x
        self._kept.update([np.asarray(leaf)[keep] for leaf in nest.flatten(x)])

    def result(self, places, count, feature_std, output_std, confidence, batch_size):
        """The strongest pairs.

        Args:
            places: The columns of the features, `[features]`.
            count: How many columns the inputs have.
            feature_std: Standard deviation of each feature.
            output_std: That of each output.
            confidence: Of the intervals.
            batch_size: Examples at a time.

        Returns:
            `Interactions`, or None with fewer than two features.
        """
        if len(places) < 2:
            return None
        batches = self._batches(batch_size)
        chosen = np.arange(len(places))
        scales = np.zeros(count)
        scales[places] = feature_std
        if len(places) > FEATURES:
            chosen = self._screened(batches, places, scales, output_std)
        seconds, pairs = self._seconds(batches, chosen, places, count)
        squares = np.square(seconds)  # [examples, pairs, outputs]
        ratio = feature_std[pairs[:, 0]] * feature_std[pairs[:, 1]]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(output_std > 0, ratio[:, None] / output_std, 0.0)
        resamples = resampling.resample_count(*squares.shape[1:])
        bootstrap = resampling.Bootstrap(len(squares), self.seed, confidence, resamples)
        three = bootstrap.three({"square": squares, "count": np.ones((len(squares), 1, 1))})
        rms = [np.sqrt(sums["square"] / sums["count"]) for sums in three]
        strength = np.mean(np.square(ratio * rms[0][0]), axis=1)
        order = np.argsort(-strength, kind="stable")[: self.pairs]
        found = bootstrap.estimates([{"rms": r, "standardized_rms": ratio * r} for r in rms])
        found = {name: e.map(lambda a, order=order: a[order]) for name, e in found.items()}
        return Interactions(pairs[order], found, len(squares))

    def _batches(self, size):
        leaves = self._kept.arrays
        return [
            nest.pack(self._structure, [leaf[start : start + size] for leaf in leaves])
            for start in range(0, len(leaves[0]), size)
        ]

    def _screened(self, batches, places, scales, output_std):
        """Indices of the features that take part in strong pairs."""
        # Stream 4 of the seed: 1 is of samples, 2 of groups, 3 of the bootstrap, 5 of its noise.
        random = np.random.default_rng([self.seed, 4])
        total = 0.0
        weights = np.divide(1, output_std, out=np.zeros_like(output_std), where=output_std > 0)
        for x in batches:
            traces = []
            for _ in range(2):
                signs = random.choice([-1.0, 1.0], size=(len(nest.flatten(x)[0]), len(scales)))
                products = self.model.hessian_products(x, signs * scales)
                # Signs times spreads: features are ranked as their standardized interactions will
                # be.
                traces.append(products * signs[:, places, None])
            total = total + np.square((traces[0] - traces[1]) * weights).sum(axis=(0, 2))
        strongest = np.argsort(-(total * np.square(scales[places])), kind="stable")
        return np.sort(strongest[:FEATURES])

    def _seconds(self, batches, chosen, places, count):
        """Second derivatives of all pairs of the chosen features: `[examples, pairs, outputs]`."""
        pairs, parts = [], []
        for k in range(1, len(chosen)):
            rows = places[chosen[:k]].astype(np.int32)
            # One direction for all its pairs with features before it: each pair once.
            direction = np.eye(1, count, places[chosen[k]])[0]
            parts.append(
                np.concatenate([self.model.second_columns(x, direction, rows) for x in batches])
            )
            pairs += [(chosen[i], chosen[k]) for i in range(k)]
        return np.concatenate(parts, axis=1), np.array(pairs)
