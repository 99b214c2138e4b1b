"""`SensitivityReport`: what a report holds and what can be made of it."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_fwd._checks import needed
from keras_fwd.errors import ConfigurationError
from keras_fwd.sensitivity import comparison, measures
from keras_fwd.sensitivity._json import serial
from keras_fwd.sensitivity._page import html_page
from keras_fwd.sensitivity._showing import maps, plots, presentation
from keras_fwd.sensitivity._statistics.estimates import (
    Estimate,
    Evolution,
    Groups,
    InputShape,
    Interactions,
    Sample,
)
from keras_fwd.typing import PathLike, PlotKind


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SensitivityReport:
    """Statistics of ∂output/∂feature over a data set, with their errors.

    `print(report)` shows a table with the strongest features first. `report.mean`, `report.rms` and
    so on are the values of the measures, `[features, outputs]`, float64; `report.measures[name]`
    has their standard errors and confidence intervals too. `keras_fwd.sensitivity.measures` defines
    all of them; the classes of the parts stand in `keras_fwd.sensitivity`.

    Attributes:
        feature_names: One name for each feature: a component of a floating-point input, or a
            switch `name: a → b` of a discrete input.
        output_names: One name for each output.
        kinds: For each feature `"derivative"` or `"switch"`.
        feature_mean: Mean of each feature, `[features]`; of a switch, the share of its value.
        feature_std: Standard deviation of each feature (divided by n).
        output_std: The same of each output, `[outputs]`.
        examples: Number of examples used.
        left_out: Number of examples not used: an input or a derivative was not finite.
        notes: What else to know, one sentence each.
        confidence: Of the intervals.
        measures: Dict of `Estimate`s `[features, outputs]` by the names of the measures.
        pooled: The same over all outputs, `[features, 1]`, of measures without units.
        groups: `Groups` of features, or None.
        interactions: The strongest pairs of features (`Interactions`), or None.
        sample: Derivatives of a random sample of the examples.
        inputs: Where the features of whole inputs stand, for maps and profiles.
        slices: Dict of reports on parts of the examples.
        evolution: How measures changed during training (`Evolution`), or None.
        about: Texts on the model, its leaks and the versions that made the report.
        interrupted: Whether the analysis was stopped before its end.
        source: What it was made from, or None; not kept in JSON.

    Example:

    >>> import keras, keras_fwd
    >>> model = keras.Sequential([keras.Input([2]), keras.layers.Rescaling([3.0, -0.5])])
    >>> report = keras_fwd.sensitivity_report(model, np.eye(2), ["age", "size"])
    >>> [report.feature_names[i] for i in report.ranking()]
    ['age', 'size']
    """

    feature_names: tuple[str, ...]
    output_names: tuple[str, ...]
    kinds: tuple[str, ...]
    feature_mean: np.ndarray
    feature_std: np.ndarray
    output_std: np.ndarray
    examples: int
    left_out: int
    notes: tuple[str, ...]
    confidence: float
    measures: dict[str, Estimate]
    pooled: dict[str, Estimate]
    groups: Groups | None = None
    interactions: Interactions | None = None
    sample: Sample
    inputs: tuple[InputShape, ...]
    slices: "dict[str, SensitivityReport]"
    evolution: Evolution | None = None
    about: Mapping[str, str]
    interrupted: bool = False
    source: Any = None

    def __getattr__(self, name: str) -> np.ndarray:
        if name in measures.MEASURES:
            return self.measures[name].value
        # As Python itself does: `hasattr` and copies ask for names that are none.
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *measures.MEASURES]

    def ranking(self) -> list[int]:
        """The features by falling pooled standardized rms: their indices; NaN stands last."""
        strength = self.pooled["standardized_rms"].value[:, 0]
        return [int(i) for i in np.argsort(-strength, kind="stable")]

    def to_frame(self) -> Any:
        """The report as a pandas DataFrame, one row for each feature and output.

        Returns:
            DataFrame with `feature`, `output`, `kind`, each measure with `_stderr`, `_low` and
            `_high`, and `feature_std`; features in their own order.

        Raises:
            ImportError: pandas is not installed.
        """
        pd = needed("SensitivityReport.to_frame", "pandas")
        features, outputs = len(self.feature_names), len(self.output_names)
        frame = {
            "feature": np.repeat(np.array(self.feature_names, object), outputs),
            "output": np.tile(np.array(self.output_names, object), features),
            "kind": np.repeat(np.array(self.kinds, object), outputs),
        }
        for name, estimate in self.measures.items():
            frame[name] = estimate.value.ravel()
            for error in ("stderr", "low", "high"):
                frame[f"{name}_{error}"] = getattr(estimate, error).ravel()
        return pd.DataFrame({**frame, "feature_std": np.repeat(self.feature_std, outputs)})

    def to_dict(self) -> dict[str, Any]:
        """The report as a dict of lists, numbers and texts, as it stands in JSON."""
        return serial.to_dict(self)

    def to_json(self, path: PathLike | None = None) -> str:
        """The report as JSON, in a format that carries its version.

        Args:
            path: A file to write it to as well; default None, none.

        Returns:
            The JSON text.

        Raises:
            ConfigurationError: `path` cannot be written.
        """
        text = serial.to_json(self)
        if path is not None:
            write("SensitivityReport.to_json", path, text)
        return text

    @staticmethod
    def from_json(text_or_path: PathLike) -> "SensitivityReport":
        """The report that `to_json` wrote.

        Args:
            text_or_path: The JSON text, or the path of a file with it.

        Raises:
            ConfigurationError: It cannot be read, or is no such report.
        """
        return serial.load(SensitivityReport, text_or_path)

    def to_html(self, path: PathLike, title: str = "Sensitivity report") -> pathlib.Path:
        """Write the report as one self-contained HTML file.

        Args:
            path: Where to; a file there is replaced, at once and only when all is written.
            title: Heading of the page.

        Returns:
            The path as a `pathlib.Path`.

        Raises:
            ImportError: Jinja2 is not installed.
            ConfigurationError: `path` cannot be written.
        """
        return write("SensitivityReport.to_html", path, html_page.html_page(self, title))

    def plot(
        self,
        kind: PlotKind = "bar",
        output: str | None = None,
        measure: str = "standardized_rms",
        top: int = 20,
    ) -> Any:
        """A figure of the report.

        Args:
            kind: `"bar"`, the strongest features with their intervals; `"beeswarm"`, the effect at
                single examples; `"heatmap"`, features by outputs, or maps of image inputs;
                `"interactions"`, the strongest pairs; `"evolution"`, measures during training.
            output: Name of an output; default None, all of them.
            measure: Which measure; default `"standardized_rms"`.
            top: How many features are drawn at most; default 20.

        Returns:
            `matplotlib.figure.Figure`.

        Raises:
            ImportError: matplotlib is not installed.
            ConfigurationError: A name that is none, or a kind that the report holds nothing for.
        """
        return plots.plot(self, kind, output, measure, top)

    def compare(
        self, other: "SensitivityReport", measure: str | Sequence[str] = comparison.MEASURES
    ) -> comparison.SensitivityComparison:
        """What changed from this report to another one, and whether that is more than chance.

        Args:
            other: `SensitivityReport` of the same features and outputs.
            measure: Name of a measure, or several; default `"standardized_rms"`, `"mean"` and
                `"total_index_bound"`.

        Returns:
            `keras_fwd.sensitivity.SensitivityComparison`, which prints as a table.
            Reports on the same data are compared example by example, as long as they live; one
            that comes from JSON has lost its examples, and errors are then too large.

        Raises:
            ConfigurationError: other features or outputs, or no such measure.
        """
        return comparison.compare(self, other, measure=measure)

    def maps(self, measure: str = "standardized_rms") -> dict[str, np.ndarray]:
        """A measure in the shape of each whole input, for images.

        Args:
            measure: Its name; default `"standardized_rms"`.

        Returns:
            `{name of the input: array of [*shape, outputs]}`, float64.

        Raises:
            ConfigurationError: there is no such measure.
        """
        return maps.maps(self, measure)

    def profiles(
        self, measure: str = "rms"
    ) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """A measure over time of each sequence, its channels pooled.

        Args:
            measure: Its name; default `"rms"`.

        Returns:
            `{name of the input: (value, low, high)}`, each `[time, outputs]`.
        """
        return maps.profiles(self, measure)

    def replicates(self, name: str) -> np.ndarray | None:
        """A measure of every resample, `[resamples, features, outputs]`; None if not kept."""
        return None if self.source is None else self.source.replicates(name)

    @property
    def resampling_key(self) -> Any:
        """Equal for reports on the same examples with the same draws; None if not known."""
        return None if self.source is None else self.source.key

    def _repr_html_(self):
        return html_page.fragment(self)

    def __str__(self) -> str:
        return presentation.text_table(self)

    def __repr__(self) -> str:
        return f"<SensitivityReport: {presentation.headline(self)}>"


def write(call, path, text):
    """Write a text aside, then put it in place at once; returns the path.

    Raises:
        ConfigurationError: `path` cannot be written.
    """
    path = pathlib.Path(path)
    aside = path.with_name(f".{path.name}.part")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise ConfigurationError(
            f"{call}: `path` must be a file that can be written, in a folder that exists. "
            f"Received: path={str(path)!r} ({error.strerror})."
        ) from error
    finally:  # there only if it is not in place; also after Ctrl-C
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
    return path
