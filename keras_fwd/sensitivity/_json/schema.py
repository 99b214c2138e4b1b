"""Which fields a sensitivity report has as plain data, and what each must be."""

import math

import numpy as np

from keras_fwd.sensitivity import measures
from keras_fwd.sensitivity._statistics.estimates import (
    Evolution,
    Groups,
    InputShape,
    Interactions,
    Sample,
)

KINDS = ("derivative", "switch")
GROUPED = ("standardized_rms", "total_index_bound")
INTERACTING = ("rms", "standardized_rms")
EVOLVING = ("mean", "standardized_rms")


def report_of(cls, top, sliced=False):
    """The report that a document holds, every field checked.

    Args:
        cls: `SensitivityReport`.
        top: The `Field` of the whole document, or of a slice.
        sliced: Whether it is a slice, which has none of its own.

    Raises:
        ConfigurationError: A field is missing or has another type or shape than it must.
    """
    features, outputs = top.entry("features").texts(1), top.entry("outputs").texts(1)
    rows, columns = len(features), len(outputs)
    slices = top.entry("slices").mapping()
    if sliced and slices:
        top.entry("slices").refuse("{} in a slice")
    return cls(
        feature_names=features,
        output_names=outputs,
        kinds=tuple(kind.one_of(KINDS) for kind in top.entry("kinds").items(rows)),
        feature_mean=top.entry("feature_mean").array(rows),
        feature_std=top.entry("feature_std").array(rows),
        output_std=top.entry("output_std").array(columns),
        examples=top.entry("examples").count(),
        left_out=top.entry("left_out").count(),
        notes=top.entry("notes").texts(),
        interrupted=top.entry("interrupted").flag(),
        confidence=top.entry("confidence").share(),
        measures=top.entry("measures").estimates(measures.MEASURES, rows, columns),
        pooled=top.entry("pooled").estimates(measures.POOLED, rows, 1),
        groups=top.entry("groups").optional(_groups, rows, columns),
        interactions=top.entry("interactions").optional(_interactions, rows, columns),
        sample=_sample(top.entry("sample"), rows, columns),
        inputs=tuple(_input(field, rows) for field in top.entry("inputs").items()),
        slices={label: report_of(cls, field, sliced=True) for label, field in slices.items()},
        evolution=top.entry("evolution").optional(_evolution, rows, columns),
        about={key: field.text() for key, field in top.entry("about").mapping().items()},
    )


def _groups(field, rows, columns):
    names = field.entry("names").texts()
    members = field.entry("members").items(len(names))
    return Groups(
        names,
        tuple(tuple(i.count(below=rows) for i in group.items()) for group in members),
        field.entry("measures").estimates(GROUPED, len(names), columns),
    )


def _interactions(field, rows, columns):
    pairs = [[i.count(below=rows) for i in pair.items(2)] for pair in field.entry("pairs").items()]
    return Interactions(
        np.array(pairs, int).reshape(-1, 2),
        field.entry("measures").estimates(INTERACTING, len(pairs), columns),
        field.entry("examples").count(),
    )


def _sample(field, rows, columns):
    examples = len(field.entry("features").items())
    return Sample(
        field.entry("features").array(examples, rows),
        field.entry("derivatives").array(examples, rows, columns),
    )


def _input(field, rows):
    shape = tuple(size.count(least=1) for size in field.entry("shape").items())
    start = field.entry("start").count()
    if start + math.prod(shape) > rows:
        field.refuse(f"an input whose components are among the {rows} features")
    return InputShape(field.entry("name").text(), shape, start)


def _evolution(field, rows, columns):
    epochs = [epoch.count() for epoch in field.entry("epochs").items()]
    examples = [n.count() for n in field.entry("examples").items(len(epochs))]
    return Evolution(
        np.array(epochs, int),
        np.array(examples, int),
        field.entry("measures").estimates(EVOLVING, len(epochs), rows, columns),
    )
