"""What one figure shows of a report: which outputs, which features, which measure."""

import dataclasses
from typing import Any

import numpy as np

from keras_fwd._checks import check_count
from keras_fwd.errors import ConfigurationError
from keras_fwd.sensitivity._showing.figures import counted, label, one_line, percent

CALL = "SensitivityReport.plot"
PANELS = 4  # outputs side by side
UNIT = "output units per feature unit"
AXIS = {
    "mean": f"mean of ∂output/∂feature ({UNIT})",
    "mean_abs": f"mean |∂output/∂feature| ({UNIT})",
    "rms": f"root mean square of ∂output/∂feature ({UNIT})",
    "positive": "share of examples where the output rises with the feature",
    **{
        f"q{q}": f"{int(q)} % quantile of ∂output/∂feature ({UNIT})"
        for q in "05 25 50 75 95".split()
    },
    "standardized_mean": "mean of ∂output/∂feature × sd(feature)/sd(output) (no unit)",
    "standardized_mean_abs": "mean |∂output/∂feature| × sd(feature)/sd(output) (no unit)",
    "standardized_rms": "rms of ∂output/∂feature × sd(feature)/sd(output) (no unit)",
    "elasticity": "mean of ∂output/∂feature × feature/output (no unit)",
    "dgsm": "mean square of ∂output/∂feature (output units² per feature unit²)",
    "total_index_bound": "upper bound on the total Sobol index (no unit)",
}
SIGNED = ("mean", "standardized_mean", "elasticity", "q05", "q25", "q50", "q75", "q95")


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """One measure of a report in the panels of a figure.

    Attributes:
        report: The `SensitivityReport`.
        measure: Name of the measure.
        outputs: Index of the output in each panel; None for all outputs pooled.
        top: How many rows at most.
        chosen: Whether the caller named the output.
    """

    report: Any
    measure: str
    outputs: tuple[int | None, ...]
    top: int
    chosen: bool

    @property
    def axis(self):
        """The label of the measure's axis, with its unit."""
        return AXIS.get(self.measure, self.measure)

    @property
    def signed(self):
        """Whether the measure has values of both signs."""
        return self.measure in SIGNED

    def estimate(self, measures=None):
        """The measure in `measures` (default: the report's), `[…, panels]`."""
        if self.outputs == (None,):
            return self.report.pooled[self.measure]
        columns = list(self.outputs)
        return (measures or self.report.measures)[self.measure].map(
            lambda array: np.asarray(array)[..., columns]
        )

    def panel(self, k):
        """Heading of panel `k`."""
        output = self.outputs[k]
        return "all outputs pooled" if output is None else label(self.report.output_names[output])

    def title(self, what):
        """Title of the figure; a single panel is named in it."""
        return f"{what}: {self.panel(0)}" if len(self.outputs) == 1 else what

    def interval(self, examples=None):
        """A sentence on what the intervals are."""
        n = self.report.examples if examples is None else examples
        return f"{percent(self.report.confidence)} confidence intervals over {n:,} examples."

    def more_outputs(self):
        """A sentence on the outputs that are not shown."""
        if self.chosen or None in self.outputs:
            return ""
        shown = counted(len(self.outputs), len(self.report.output_names), "outputs")
        return f"{shown} Choose one by output=." if shown else ""

    def switches(self, rows):
        """A sentence on switches, if any of the features is one."""
        kinds = [self.report.kinds[row] for row in rows]
        return (
            "Switches: the exact effect of the change of value, in place of a derivative."
            if "switch" in kinds
            else ""
        )


def view_of(report, kind, output, measure, top, choices, pools=(), panels=PANELS):
    """The `View` that the arguments of `plot` ask for.

    Raises:
        ConfigurationError: An output, a measure or a number of rows that there is not.
    """
    check_count(CALL, "top", top)
    if not isinstance(measure, str) or measure not in choices:
        raise ConfigurationError(
            f'{CALL}: `measure` must be one of {", ".join(choices)} with kind="{kind}". Received: '
            f"measure={measure!r}."
        )
    names = report.output_names
    chosen = output is not None
    if chosen:
        outputs = (index_of(CALL, names, output),)
    elif len(names) > 1 and measure in pools:
        outputs = (None,)
    else:
        outputs = tuple(range(min(len(names), panels)))
    return View(report, measure, outputs, int(top), chosen)


def index_of(call, names, output):
    """The index of an output given by name or index.

    Raises:
        ConfigurationError: There is no such output.
    """
    if isinstance(output, str) and output in names:
        return names.index(output)
    place = int(output) if isinstance(output, int | np.integer) else len(names)
    if not isinstance(output, bool) and -len(names) <= place < len(names):
        return place % len(names)
    known = ", ".join(repr(one_line(name)) for name in names[:10])
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    raise ConfigurationError(
        f"{call}: `output` must be the name or index of an output: {known}{more}. Received: "
        f"output={output!r}."
    )


def strongest(view, values):
    """The rows of `values`, `[rows, panels]`, largest first, without those that have none.

    Raises:
        ConfigurationError: There is no value at all.
    """
    # Below every size: a row of which nothing is known is left out.
    size = np.where(np.isfinite(values), np.abs(values), -1.0).max(axis=1, initial=-1.0)
    order = np.argsort(-size, kind="stable")
    order = order[size[order] >= 0][: view.top]
    if not len(order):
        raise ConfigurationError(
            f"{CALL}: the report must hold a value of `measure`. Received: "
            f"measure={view.measure!r}, which is NaN for every feature."
        )
    return order


def direction(view, rows, k):
    """Signs of the mean derivative in panel `k`: 0 where its interval holds 0."""
    output = view.outputs[k]
    mean = (
        view.report.pooled["standardized_mean"] if output is None else view.report.measures["mean"]
    )
    value, low, high = (
        np.asarray(array)[rows, output or 0] for array in (mean.value, mean.low, mean.high)
    )
    # Without an interval (a single example) the sign of the value counts.
    clear = ~(np.isfinite(low) & np.isfinite(high) & (low <= 0) & (high >= 0))
    return (np.sign(np.nan_to_num(value)) * clear).astype(int)
