"""What changed between two sensitivity reports, and how sure that is."""

import collections
import dataclasses
import json
from typing import Any

import numpy as np

from keras_fwd._checks import needed
from keras_fwd.errors import ConfigurationError
from keras_fwd.sensitivity._json.serial import plain
from keras_fwd.sensitivity._showing import comparison_view
from keras_fwd.sensitivity._showing.maps import check_measure
from keras_fwd.sensitivity._statistics.changes import Change, change_of, columns

CALL = "SensitivityReport.compare"
FORMAT = "keras_fwd.sensitivity_comparison"
VERSION = 1
MEASURES = ("standardized_rms", "mean", "total_index_bound")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SensitivityComparison:
    """What changed from one sensitivity report to another, for the features that both have.

    `print(comparison)` shows a table with the surest changes first. The errors are those of the
    examples: they say whether the *models* differ, on data like these. Training the same model
    again with another seed changes sensitivities too, often by more.

    Attributes:
        feature_names: Features in both reports, in the order of the first.
        output_names: Outputs in both.
        kinds: Per feature `"derivative"` or `"switch"`.
        confidence: Of the intervals; 1 − confidence is the share of false discoveries accepted.
        changes: From the name of each measure to its `Change`; the first one is shown in texts.
        only_before: Names of features and of outputs that only the first report has.
        only_after: The same of the second.
        notes: What else to know, one sentence each.

    Example: `SensitivityReport.compare`.
    """

    feature_names: tuple[str, ...]
    output_names: tuple[str, ...]
    kinds: tuple[str, ...]
    confidence: float
    changes: dict[str, Change]
    only_before: tuple[tuple[str, ...], tuple[str, ...]]
    only_after: tuple[tuple[str, ...], tuple[str, ...]]
    notes: tuple[str, ...]

    @property
    def paired(self) -> bool:
        """Whether the errors of all measures are those of differences on the same examples."""
        return all(change.paired for change in self.changes.values())

    def to_frame(self) -> Any:
        """The comparison as a pandas DataFrame, one row for each measure, feature and output.

        Raises:
            ImportError: pandas is not installed.
        """
        pd = needed(f"{comparison_view.CLASS}.to_frame", "pandas")
        rows = len(self.feature_names), len(self.output_names)
        names = {
            "feature": np.repeat(np.array(self.feature_names, object), rows[1]),
            "output": np.tile(np.array(self.output_names, object), rows[0]),
            "kind": np.repeat(np.array(self.kinds, object), rows[1]),
        }
        frames = [
            pd.DataFrame({"measure": measure, **names, **columns(change, np.ravel)})
            for measure, change in self.changes.items()
        ]
        return pd.concat(frames, ignore_index=True)

    def to_json(self) -> str:
        """The comparison as JSON text, strict: what is not finite is null."""
        names = ("features", "outputs")
        data = {
            "format": FORMAT,
            "version": VERSION,
            "features": self.feature_names,
            "outputs": self.output_names,
            "kinds": self.kinds,
            "confidence": self.confidence,
            "only_before": dict(zip(names, self.only_before, strict=True)),
            "only_after": dict(zip(names, self.only_after, strict=True)),
            "notes": self.notes,
            "measures": {
                name: {"paired": change.paired, **columns(change, plain)}
                for name, change in self.changes.items()
            },
        }
        return json.dumps(data, allow_nan=False)

    def plot(self, measure: str | None = None, output: str | None = None, top: int = 20) -> Any:
        """The surest changes as a figure: before and after with intervals, row by row.

        Args:
            measure: Name of a measure compared; default None, the first.
            output: Name or index of one output; default None, all.
            top: Number of rows at most.

        Returns:
            `matplotlib.figure.Figure`.

        Raises:
            ImportError: matplotlib is not installed.
            ConfigurationError: Unknown measure or output.
        """
        return comparison_view.dumbbell(self, measure, output, top)

    def __str__(self) -> str:
        return comparison_view.text(self)

    def __repr__(self) -> str:
        return f"<SensitivityComparison: {comparison_view.headline(self)}>"

    def _repr_html_(self):
        return comparison_view.html(self)


def compare(before, after, measure=MEASURES):
    """What changed between two reports, for the features and outputs that both have.

    Features are matched by name and kind, outputs by name. Where both reports come from the same
    examples, resampled alike, the error of a difference is that of the differences of the
    resamples; otherwise √(stderr² + stderr²), which is too large for the same data.

    Args:
        before: `SensitivityReport`.
        after: `SensitivityReport`.
        measure: Name of a measure, or several; default `standardized_rms`, `mean` and
            `total_index_bound`. The false discoveries are counted within each.

    Returns:
        `SensitivityComparison`.

    Raises:
        ConfigurationError: No feature or no output in common, or a measure that is not in both.
    """
    measures = [measure] if isinstance(measure, str) else list(measure)
    for name in measures:
        check_measure(CALL, name, [known for known in before.measures if known in after.measures])
    if not measures:
        raise ConfigurationError(f"{CALL}: `measure` must name a measure. Received: {measure!r}.")
    keys = [list(zip(_numbered(r.feature_names), r.kinds, strict=True)) for r in (before, after)]
    rows, *only_features = _matched("feature", *keys, text=lambda key: key[0][0])
    outputs = [_numbered(report.output_names) for report in (before, after)]
    shared, *only_outputs = _matched("output", *outputs, text=lambda key: key[0])
    # The stricter of both: fewer false discoveries than either report promises.
    confidence = max(before.confidence, after.confidence)
    places = [np.ix_(*indices) for indices in zip(rows, shared, strict=True)]
    changes = {
        name: change_of((before, after), places, name, confidence)
        for name in dict.fromkeys(measures)
    }
    return SensitivityComparison(
        feature_names=tuple(before.feature_names[row] for row in rows[0]),
        output_names=tuple(before.output_names[column] for column in shared[0]),
        kinds=tuple(before.kinds[row] for row in rows[0]),
        confidence=confidence,
        changes=changes,
        only_before=(only_features[0], only_outputs[0]),
        only_after=(only_features[1], only_outputs[1]),
        notes=tuple(_notes(before, after, changes)),
    )


def _numbered(names):
    """Each name with how many alike stand before it, so that equal names stay apart."""
    counts = collections.Counter()
    keys = []
    for name in names:
        keys.append((name, counts[name]))
        counts[name] += 1
    return keys


def _matched(noun, before, after, text):
    """Indices in both of what both have, and the names that only one has."""
    places = {key: k for k, key in enumerate(after)}
    common = [k for k, key in enumerate(before) if key in places]
    if not common:
        raise ConfigurationError(
            f"{CALL}: the reports must have {noun}s of the same names and kinds. Received: "
            f"{comparison_view.some([text(key) for key in before])} and "
            f"{comparison_view.some([text(key) for key in after])}. Give them names: "
            f"sensitivity_report(…, {noun}_names=[…])."
        )
    there = [places[before[k]] for k in common]
    known = set(before)
    only_before = tuple(text(key) for key in before if key not in places)
    only_after = tuple(text(key) for key in after if key not in known)
    return (common, there), only_before, only_after


def _notes(before, after, changes):
    if all(change.paired for change in changes.values()):
        yield "Paired: both reports are of the same examples, and so are the errors."
    elif any(change.paired for change in changes.values()):
        paired = [name for name, change in changes.items() if change.paired]
        yield f"Paired, on the same examples: {', '.join(paired)} only."
    else:
        yield (
            "Not paired: the errors are those of independent data. If both reports are of the same"
            " examples they are too large, and real changes may be missed."
        )
    if before.confidence != after.confidence:
        yield (
            f"The reports have confidence {before.confidence:g} and {after.confidence:g}: the "
            "larger one is used."
        )
