"""Discrete inputs: the exact effect of switching their value, in place of a derivative."""

import collections
import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_fwd._models.names import components, input_stems
from keras_fwd._spaces import nest
from keras_fwd.errors import ConfigurationError

#: Of a feature with more values, the most frequent ones are switched.
MAX_VALUES = 10
#: So many switches a report holds at most.
MAX_SWITCHES = 1000
_CATEGORICAL = tuple(
    getattr(keras.layers, name)
    for name in "Embedding CategoryEncoding StringLookup IntegerLookup Hashing".split()
)


@dataclasses.dataclass
class Discrete:
    """A discrete feature: one component of an input, or several that are a one-hot code.

    Attributes:
        name: Of the feature.
        leaf: Index of the input among the leaves.
        places: Indices of its components within the input.
        labels: Names of the components of a one-hot code, else empty.
        counts: How often each value occurs: a value is a tuple, one entry for each component.
    """

    name: str
    leaf: int
    places: tuple[int, ...]
    labels: tuple[str, ...] = ()
    counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def count(self, leaves):
        """Count the values of a batch, given the leaves of the inputs."""
        for key, count in collections.Counter(map(tuple, self._own(leaves).tolist())).items():
            if not any(isinstance(v, float) and np.isnan(v) for v in key):
                self.counts[key] += count

    def check(self, call):
        """Raise `ConfigurationError` for a one-hot code that is none."""
        for value in self.counts if self.labels else ():
            if sorted(value) != [0] * (len(value) - 1) + [1]:
                raise ConfigurationError(
                    f"{call}: `one_hot` must name columns of which in every example one is 1 and "
                    f"the others are 0. Received: {self.name!r} with {value} for {self.labels}."
                )

    @property
    def values(self):
        """The most frequent values, `[values]` of tuples, the most frequent one first."""
        return [value for value, _ in self._most_common]

    @property
    def shares(self):
        """How often each of `values` occurs among them."""
        counts = np.array([count for _, count in self._most_common], float)
        return counts / counts.sum()

    @property
    def _most_common(self):
        # Equally frequent ones in order, whatever the order of the data.
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_VALUES]

    def label(self, value):
        """A value as text."""
        if self.labels:
            return self.labels[value.index(max(value))]
        (entry,) = value
        if isinstance(entry, bytes):
            return entry.decode("utf-8", "replace")
        return f"{entry:g}" if isinstance(entry, float) else str(entry)

    @property
    def names(self):
        """Of the switches, `name: a → b`."""
        first, *others = map(self.label, self.values)
        return [f"{self.name}: {first} → {other}" for other in others]

    def effects(self, flat_model, leaves, x, y):
        """What the switches do.

        Args:
            flat_model: `FlatModel`.
            leaves: The leaves of the inputs as arrays.
            x: The nest that they belong to.
            y: The outputs there, `[batch, outputs]`.

        Returns:
            `(indicators, differences, index)`: `[batch, switches]` and twice
            `[batch, switches, outputs]`.
        """
        values = self.values
        moved = np.stack([self._outputs(flat_model, leaves, x, value) for value in values], axis=1)
        own = self._own(leaves)
        # Of the first value there is no switch: it is what all others are compared with.
        is_value = [np.all(own == np.array([v], own.dtype), axis=1) for v in values[1:]]
        differences = moved[:, 1:] - moved[:, :1]
        squares = np.square(moved - y[:, None])
        index = 0.5 * np.einsum("v,bvo->bo", self.shares, squares)
        return (
            np.stack(is_value, axis=1).astype(np.float64),
            differences,
            np.broadcast_to(index[:, None], differences.shape),
        )

    def _own(self, leaves):
        return leaves[self.leaf].reshape(len(leaves[self.leaf]), -1)[:, list(self.places)]

    def _outputs(self, flat_model, leaves, x, value):
        leaf = leaves[self.leaf]
        flat = leaf.reshape(len(leaf), -1).copy()
        flat[:, list(self.places)] = np.array(value, flat.dtype)
        changed = [tf.constant(a) for a in leaves]
        changed[self.leaf] = tf.constant(flat.reshape(leaf.shape))
        return flat_model.outputs(nest.pack(x, changed))


def find(model, x):
    """The discrete inputs of a model, and the columns of the others.

    Integer, boolean and text inputs are discrete, and so are floating-point inputs of which the
    model looks up every value (Embedding, CategoryEncoding, lookups, Hashing).

    Args:
        model: Keras model or layer.
        x: Nest of tensors, a batch.

    Returns:
        `(found, where)`: a list of `Discrete`, without values yet; and for each column of the
        other inputs its leaf, its place there, and its own name.
    """
    leaves, stems = nest.flatten(x), input_stems(model, x)
    looked_up = _looked_up(model, x, stems)
    where, found = [], []
    for i, (leaf, stem) in enumerate(zip(leaves, stems, strict=True)):
        names = components(stem, leaf.shape[1:])
        if nest.is_differentiable(leaf.dtype) and i not in looked_up:
            where += [(i, place, name) for place, name in enumerate(names)]
        else:
            found += [Discrete(name, i, (place,)) for place, name in enumerate(names)]
    return found, where


def declared(call, where, discrete, one_hot):
    """The discrete features that the user names, beside those that the model shows by itself.

    Args:
        call: Name of the public call.
        where: Dict from the name of a column to its leaf and its place there.
        discrete: Names of columns.
        one_hot: Dict from a name to the names of its columns.
    """
    used = collections.Counter([*discrete, *(name for names in one_hot.values() for name in names)])
    unknown = [name for name in used if name not in where]
    twice = [name for name, count in used.items() if count > 1]
    if unknown or twice:
        raise ConfigurationError(
            f"{call}: `discrete` and `one_hot` must name columns of floating-point inputs, each "
            f"once. Received: {', '.join(map(repr, unknown or twice))}"
            f"{' twice' if not unknown else ''}. Columns are {shortened(list(where))}."
        )
    found = [Discrete(name, where[name][0], (where[name][1],)) for name in discrete]
    for name, names in one_hot.items():
        if len({where[n][0] for n in names}) != 1 or len(names) < 2:
            raise ConfigurationError(
                f"{call}: `one_hot` must give two or more columns of one input for each name. "
                f"Received: {name!r}: {list(names)}."
            )
        places = tuple(where[n][1] for n in names)
        found.append(Discrete(name, where[names[0]][0], places, tuple(map(str, names))))
    return found


def shortened(names, limit=8):
    """Names in a sentence, only the first of many.

    >>> shortened(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(str, names[:limit])) + more


def _looked_up(model, x, stems):
    """Indices of the leaves that go straight into a layer that looks values up."""
    inputs = list(getattr(model, "inputs", None) or [])
    if isinstance(x, dict):
        by_name = {tensor.name: tensor for tensor in inputs}
        inputs = [by_name.get(stem) for stem in stems]
    found = set()
    for layer in getattr(model, "layers", []) if len(inputs) == len(stems) else []:
        if isinstance(layer, _CATEGORICAL):
            try:
                source = layer.input
            except (AttributeError, ValueError):  # called several times, or never
                continue
            found |= {i for i, tensor in enumerate(inputs) if tensor is source}
    return found
