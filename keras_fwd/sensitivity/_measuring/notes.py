"""What a reader of a report should know besides its numbers, one sentence each."""

import collections.abc
import functools
import importlib.metadata

import numpy as np

from keras_fwd._leaks.find import find_leaks
from keras_fwd.errors import KerasFwdError
from keras_fwd.sensitivity._measuring.switches import MAX_VALUES, shortened
from keras_fwd.sensitivity._statistics.accumulator import GROUPS


def of(run, report, whole):
    """The notes of a report.

    Args:
        run: The `Run` that made it.
        report: `SensitivityReport` without notes.
        whole: Whether it is that of all examples, or of a slice.
    """
    if whole:
        yield from _on_data(run, report)
    yield from _on_values(report)
    if whole:
        yield from _on_method(run, report)


def _on_data(run, report):
    if run.interrupted:
        yield f"Interrupted: only the first {report.examples} examples were used."
    if run.left_out:
        total = report.examples + run.left_out
        yield (
            f"{run.left_out} of {total} examples were left out: an input or a derivative was NaN "
            "or infinite."
        )
    if run.bad_cells:
        cells = [f"{name} ({count})" for name, count in run.bad_cells.items()]
        yield f"Cells that were NaN or infinite: {shortened(cells)}."


def _on_values(report):
    names = report.feature_names
    constant = [n for n, std in zip(names, report.feature_std, strict=True) if std == 0]
    if constant and report.examples > 1:
        yield (
            "Constant over these examples, so that their standardized values are 0: "
            f"{shortened(constant)}."
        )
    flat = [n for n, std in zip(report.output_names, report.output_std, strict=True) if std == 0]
    if flat and report.examples > 1:
        yield f"Outputs that are constant over these examples: {shortened(flat)}."
    if report.examples == 1:
        yield "A single example has no standard errors and no standard deviations."
    elif report.examples < 30:
        yield "Confidence intervals of so few examples are rough."


def _on_method(run, report):
    plan = run.plan
    if plan.discrete:
        yield (
            "Exact effects of switching a value, no derivatives: "
            f"{shortened([d.name for d in plan.discrete])}. The first value of each is the most "
            "frequent one."
        )
    if codes := _like_codes(report):
        yield (
            f"Whole numbers with few values, taken as continuous: {shortened(codes)}. If they are "
            "codes, name them in `discrete`."
        )
    if lonely := [d.name for d in plan.discrete if len(d.counts) < 2]:
        yield f"With one value only, so without an effect: {shortened(lonely)}."
    if cut := [d.name for d in plan.discrete if len(d.counts) > MAX_VALUES]:
        yield f"Only the {MAX_VALUES} most frequent values are switched of {shortened(cut)}."
    pairs = report.interactions
    if pairs is not None and not np.any(pairs.measures["rms"].value):
        yield (
            "All interactions are 0: where a model is piecewise linear (ReLU, max pooling), its "
            "second derivatives are 0 at almost every example, though features do act together."
        )
    groups = run.groups
    if not run.analysis.resamples:
        yield f"Errors are those of a jackknife over {groups} groups of examples: rough ones."
    elif groups < GROUPS:
        yield (
            f"With so many features the examples were resampled in {groups} groups: intervals are "
            "less sure."
        )


def _like_codes(report):
    """Names of the features with a derivative that are whole numbers of few values."""
    found = []
    for i, (name, kind) in enumerate(zip(report.feature_names, report.kinds, strict=True)):
        values = report.sample.features[:, i]
        whole = kind == "derivative" and np.all(values == np.round(values))
        if whole and 1 < len(np.unique(values)) <= MAX_VALUES < len(values):
            found.append(name)
    return found


# What a report says about its model: texts that are made when they are first read.


class About(collections.abc.Mapping):
    """A summary of the model, its leaks, and the versions of what computed the report.

    Args:
        model: Keras model or layer.
    """

    def __init__(self, model):
        self._model = model

    def __getitem__(self, key):
        return self._texts[key]

    def __iter__(self):
        return iter(self._texts)

    def __len__(self):
        return len(self._texts)

    @functools.cached_property
    def _texts(self):
        return {
            "model": _summary(self._model),
            "leaks": _leaks(self._model),
            "versions": versions(),
        }


def versions():
    """The versions of this package and of what it stands on, in one line."""
    names = ("keras-fwd", "keras", "tensorflow", "numpy")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def _summary(model):
    if not hasattr(model, "summary"):
        return f"{type(model).__name__} {model.name!r}"
    lines = []
    model.summary(line_length=80, print_fn=lambda text, **_: lines.append(text))
    return "\n".join(lines)


def _leaks(model):
    try:
        return str(find_leaks(model))
    except KerasFwdError as error:  # such as a subclassed model, whose inputs are not known
        return f"not looked for: {error}"
