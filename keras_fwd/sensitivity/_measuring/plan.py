"""What a sensitivity analysis computes of a model: which features, switches and outputs."""

import numpy as np

from keras_fwd._models.names import input_stems
from keras_fwd._spaces import given, nest
from keras_fwd.errors import ConfigurationError
from keras_fwd.sensitivity._measuring import switches
from keras_fwd.sensitivity._measuring.flat_model import FlatModel
from keras_fwd.sensitivity._measuring.switches import shortened
from keras_fwd.sensitivity._statistics.estimates import InputShape


class Plan:
    """The names of features and outputs, and the graphs that compute them.

    Args:
        analysis: `Analysis` with the options.
        x: Nest of tensors, a batch.
        frame_columns: Names of the columns of a data frame, or None.

    Attributes:
        columns: Name of each column -> its leaf and its place there.
        names: Of the features that have a derivative.
        places: Their columns among all of the floating-point inputs, `[features]`.
        count: How many columns the floating-point inputs have.
        discrete: List of `Discrete`.
        output_names: Of the outputs reported on.
        inputs: `InputShape` of every input of which all components are features.
        model: `FlatModel`.
    """

    def __init__(self, analysis, x, frame_columns):
        call = self._call = analysis.call
        found, where = switches.find(analysis.model, x)
        default = frame_columns or [name for _, _, name in where]
        names = named(call, "feature_names", analysis.feature_names, default)
        places = {name: entry[:2] for name, entry in zip(names, where, strict=True)}
        found += switches.declared(call, places, analysis.discrete, analysis.one_hot)
        self.columns = {**places, **{d.name: (d.leaf, d.places[0]) for d in found}}
        taken = {(d.leaf, place) for d in found for place in d.places}
        starts, self.count = _starts(x)
        rows = [name for name in names if places[name] not in taken]
        if analysis.features is not None:
            rows, found = self._select(analysis.features, rows, found)
        if not rows and not found:
            raise ConfigurationError(
                f"{call}: `model` must have an input that can be varied. Received: inputs "
                f"{given.describe(x)}."
            )
        self.names, self.discrete = rows, found
        marginals = analysis.marginals if isinstance(analysis.marginals, dict) else {}
        if unknown := [name for name in marginals if name not in names]:
            raise ConfigurationError(
                f"{call}: `marginals` must be of features, {shortened(names)}. Received: "
                f"{shortened(unknown)}."
            )
        at = [starts[places[name][0]] + places[name][1] for name in rows]
        self.places = np.array(at, np.int32)
        self.inputs = _inputs(analysis.model, x, places, rows)
        self._build(analysis, x)

    def _build(self, analysis, x):
        # Then the graph gathers nothing.
        every = len(self.places) == self.count
        self.model = FlatModel(analysis.model, x, None if every else self.places)
        if analysis.outputs is None:
            self.output_names = analysis.output_names
            return
        default = self.model.names_of_outputs()
        names = named(self._call, "output_names", analysis.output_names, default)
        if unknown := [name for name in analysis.outputs if name not in names]:
            raise ConfigurationError(
                f"{self._call}: `outputs` must be names of outputs, {shortened(names)}. Received: "
                f"{shortened(unknown)}."
            )
        self.model.choose([names.index(name) for name in analysis.outputs])
        self.output_names = analysis.outputs

    def outputs(self):
        """The names of the outputs, once the model has run."""
        if self.model.chosen:
            return tuple(self.output_names)
        default = self.model.output_names
        return tuple(named(self._call, "output_names", self.output_names, default))

    def features(self):
        """The names of derivatives and switches, once the values of these are known."""
        return (*self.names, *(name for d in self.discrete for name in d.names))

    def members(self, groups):
        """For each group the indices of its features; a discrete one stands for its switches."""
        names = self.features()
        at = {name: [i] for i, name in enumerate(names)}
        start = len(self.names)
        for d in self.discrete:
            at[d.name] = list(range(start, start + len(d.names)))
            start += len(d.names)
        wanted = [name for members in groups.values() for name in members]
        if unknown := [name for name in wanted if name not in at]:
            raise ConfigurationError(
                f"{self._call}: `groups` must be of features, {shortened(list(at))}. Received: "
                f"{shortened(unknown)}."
            )
        return tuple(tuple(i for name in members for i in at[name]) for members in groups.values())

    def first_switches(self):
        """Which features count in a sum of total indices: of a discrete one, one switch."""
        counts = [1] * len(self.names)
        for d in self.discrete:
            counts += [1] + [0] * (len(d.names) - 1) if d.names else []
        return np.array(counts, bool)

    def _select(self, wanted, rows, found):
        known = [*rows, *(d.name for d in found)]
        if unknown := [name for name in wanted if name not in known]:
            raise ConfigurationError(
                f"{self._call}: `features` must be names of features, {shortened(known)}. "
                f"Received: {shortened(unknown)}."
            )
        return [name for name in rows if name in wanted], [d for d in found if d.name in wanted]


def named(call, argument, names, default):
    """The given names as texts, or the default ones.

    Raises:
        ConfigurationError: Not as many as `default`, or one twice.
    """
    names = default if names is None else [names] if isinstance(names, str) else list(names)
    names = [str(name) for name in names]
    if len(names) != len(default):
        raise ConfigurationError(
            f"{call}: `{argument}` must have {len(default)} names, one for each of "
            f"{shortened(default)}. Received: {len(names)} names, {shortened(names)}."
        )
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ConfigurationError(
            f"{call}: `{argument}` must tell all apart. Received: {shortened(twice)} more than "
            "once."
        )
    return names


def _starts(x):
    """The first column of each floating-point leaf, and how many columns there are."""
    starts, count = {}, 0
    for i, leaf in enumerate(nest.flatten(x)):
        if nest.is_differentiable(leaf.dtype):
            starts[i] = count
            count += leaf.shape[1:].num_elements()
    return starts, count


def _inputs(model, x, places, rows):
    """The inputs of which all components are features, and where these start."""
    stems, shapes = input_stems(model, x), [tuple(leaf.shape[1:]) for leaf in nest.flatten(x)]
    order = [places[name] for name in rows]
    found = []
    for i, (stem, shape) in enumerate(zip(stems, shapes, strict=True)):
        size = int(np.prod(shape))
        mine = [k for k, (leaf, _) in enumerate(order) if leaf == i]
        if len(mine) == size and size:
            found.append(InputShape(stem, shape, mine[0]))
    return tuple(found)
