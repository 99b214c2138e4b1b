"""The derivative at each example: a row of dots for each feature, colored by its value."""

import numpy as np

from keras_fwd.sensitivity._showing import figures
from keras_fwd.sensitivity._showing.charts import side_by_side, x_label
from keras_fwd.sensitivity._showing.view import strongest

BINS = 120  # along the axis, in which dots are stacked
HALF = 0.42  # of a row, the height of a stack


def beeswarm(view):
    """Rows of dots, one for each example of `report.sample`."""
    report, sample = view.report, view.report.sample
    rows = strongest(view, view.estimate().value)
    scale = _scale(report)
    figure, panels = side_by_side(view, 1.25 * len(rows), width=8.0, extra=2.0)
    for k, axes in enumerate(panels):
        effects = sample.derivatives[:, rows, view.outputs[k]] * scale[rows, view.outputs[k]]
        _dots(axes, effects, sample.features[:, rows])
        figures.rows_axis(axes, [report.feature_names[row] for row in rows])
    x_label(panels, "∂output/∂feature × sd(feature)/sd(output) (no unit)")
    _color_bar(figure, panels)
    drawn = len(sample.derivatives)
    of = f", drawn from {report.examples:,}" if drawn < report.examples else ""
    note = [
        f"Each dot: one of {drawn:,} examples{of}.",
        "Color: the feature's value there, from its 5 % to its 95 % quantile.",
        "Gray: no number." * bool(np.isnan(sample.features[:, rows]).any()),
        f"Rows in the order of {view.measure}.",
        view.switches(rows),
        figures.counted(len(rows), len(report.feature_names), "features"),
        view.more_outputs(),
    ]
    return figures.finish(figure, view.title("Sensitivity at each example"), note)


def _scale(report):
    """sd(x)/sd(y), `[features, outputs]`; 0 for a constant output, as nothing depends on it."""
    spread = np.asarray(report.output_std)
    inverse = np.divide(1.0, spread, out=np.zeros_like(spread, np.float64), where=spread > 0)
    return np.asarray(report.feature_std)[:, None] * inverse


def _dots(axes, effects, values):
    known = effects[np.isfinite(effects)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 0.0)
    for row, (x, value) in enumerate(zip(effects.T, values.T, strict=True)):
        finite = np.isfinite(x)
        x, value = x[finite], value[finite]
        y = row + HALF * stacked(x, low, high)
        shade = _shade(value)
        # Many dots as vectors make a PDF of megabytes.
        style = {"s": 9, "linewidths": 0, "rasterized": len(x) > 200, "zorder": 2}
        gray = np.isnan(shade)
        axes.scatter(x[gray], y[gray], color=figures.UNCLEAR, **style)
        colors = {"c": shade[~gray], "cmap": color_map(), "vmin": 0, "vmax": 1}
        axes.scatter(x[~gray], y[~gray], **colors, **style)


def stacked(x, low, high):
    """Offsets between −1 and 1 that lay dots at nearly the same place beside each other.

    Args:
        x: Where the dots are, `[dots]`.
        low: Left end of the axis.
        high: Right end.
    """
    if not len(x):
        return np.zeros(0)
    place = np.floor((x - low) / (high - low or 1.0) * BINS)
    order = np.argsort(place, kind="stable")
    firsts = np.searchsorted(place[order], place[order])
    rank = np.empty(len(x))
    rank[order] = np.arange(len(x)) - firsts
    # Alternately above and below the middle of the row.
    offset = np.ceil(rank / 2) * np.where(rank % 2 == 1, 1.0, -1.0)
    return offset / max(np.abs(offset).max(), 12.0)  # a few dots lie near the middle of their row


def _shade(value):
    """Values between 0 and 1, from the 5 % to the 95 % quantile; 0.5 for a constant."""
    if np.isnan(value).all():
        return np.full(len(value), np.nan)
    low, high = np.nanquantile(value, (0.05, 0.95))
    if low == high:
        # Nearly constant, as an indicator that is rarely 1: the quantiles fall together.
        low, high = np.nanmin(value), np.nanmax(value)
    if low == high:
        return np.where(np.isnan(value), np.nan, 0.5)
    return np.clip((value - low) / (high - low), 0.0, 1.0)


def color_map():
    """Dark blue to orange: seen by all, on white and on black; plasma without its ends."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["plasma"](np.linspace(0.08, 0.88, 256)))


def _color_bar(figure, panels):
    from matplotlib.cm import ScalarMappable

    shades = ScalarMappable(cmap=color_map())
    bar = figure.colorbar(shades, ax=list(panels), aspect=40, pad=0.02, shrink=0.9)
    bar.set_ticks([0, 1], labels=["low", "high"])
    bar.set_label("feature's value", labelpad=-12)
    bar.outline.set_visible(False)
