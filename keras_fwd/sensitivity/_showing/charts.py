"""Charts of the strongest features and pairs: bars with intervals, and lines over epochs."""

import numpy as np

from keras_fwd.sensitivity._showing import figures
from keras_fwd.sensitivity._showing.view import CALL, direction, strongest

ROW = 0.27  # inches
WORDS = {1: "raises the output", -1: "lowers the output", 0: "no clear direction"}
COLORS = {1: figures.UP, -1: figures.DOWN, 0: figures.UNCLEAR}


def side_by_side(view, rows, width=7.5, extra=1.6):
    """A figure with one panel for each output of the view and room for so many rows."""
    panels = len(view.outputs)
    figure = figures.new_figure(CALL, width + 2.4 * (panels - 1), extra + ROW * max(rows, 3))
    panels = figure.subplots(1, panels, sharex=True, sharey=True, squeeze=False)[0]
    for k, axes in enumerate(panels):
        if len(panels) > 1:
            axes.set_title(view.panel(k), fontsize=10)
    return figure, panels


def bar(view):
    """Bars of the strongest features with intervals, colored by the direction of the effect."""
    estimate, report = view.estimate(), view.report
    rows = strongest(view, estimate.value)
    switch = np.array([report.kinds[row] == "switch" for row in rows])
    figure, panels = side_by_side(view, len(rows))
    signs = [direction(view, rows, k) for k in range(len(panels))]
    for k, axes in enumerate(panels):
        _bars(axes, *(a[rows, k] for a in (estimate.value, estimate.low, estimate.high)), signs[k])
        for patch in np.array(axes.patches)[switch]:
            patch.set(hatch="////", edgecolor="white", linewidth=0)
        figures.rows_axis(axes, [report.feature_names[row] for row in rows])
    _signs_legend(panels, np.unique(signs), switch.any())
    x_label(panels, view.axis)
    note = [
        f"Lines with caps: {view.interval()}",
        "No clear direction: the interval of the mean derivative holds 0."
        * (0 in np.unique(signs)),
        view.switches(rows),
        figures.counted(len(rows), len(report.feature_names), "features"),
        view.more_outputs(),
    ]
    return figures.finish(figure, view.title("Sensitivity"), note)


def _bars(axes, value, low, high, signs):
    y = np.arange(len(value))
    axes.barh(y, np.nan_to_num(value), height=0.72, color=[COLORS[sign] for sign in signs])
    figures.whiskers(axes, low, high, y)


def x_label(panels, text):
    """The label of the common x axis, in the middle below the panels."""
    middle = (len(panels) - 1) // 2
    panels[middle].set_xlabel(text, x=0.5 if len(panels) % 2 else 1.03)


def _signs_legend(panels, signs, switches):
    from matplotlib.patches import Patch

    handles = [Patch(color=COLORS[sign], label=WORDS[sign]) for sign in (1, -1, 0) if sign in signs]
    if switches:
        style = {"facecolor": figures.UNCLEAR, "hatch": "////", "edgecolor": "white"}
        handles.append(Patch(**style, label="switch of a value"))
    longest = max(len(text.get_text()) for text in panels[0].get_yticklabels())
    panels[0].legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.3 if len(panels) == 1 else 2.8,  # above the panels' headings
        borderpad=0,
        ncols=4 if len(panels) > 1 or longest < 20 else 2,
        columnspacing=1.2,
        frameon=False,
        fontsize=figures.SMALL,
    )


def interactions(view):
    """The strongest pairs with intervals."""
    report, pairs = view.report, view.report.interactions
    estimate = view.estimate(pairs.measures)
    rows = strongest(view, estimate.value)
    figure, panels = side_by_side(view, len(rows))
    names = [" × ".join(_pair_name(report, i) for i in pairs.pairs[row]) for row in rows]
    for k, axes in enumerate(panels):
        value, low, high = (a[rows, k] for a in (estimate.value, estimate.low, estimate.high))
        # One color: a strength has no direction.
        _bars(axes, value, low, high, np.zeros(len(rows), int) - 1)
        figures.rows_axis(axes, names)
        # Again, for `rows_axis` cuts names in their middle, where the × stands.
        axes.set_yticks(range(len(names)), names)
    scaled = view.measure == "standardized_rms"
    x_label(
        panels,
        "rms of ∂²output/∂a∂b "
        + (
            "× sd(a)·sd(b)/sd(output) (no unit)"
            if scaled
            else "(output units per units of a and b)"
        ),
    )
    note = [
        "Bars: how strongly the effect of one feature depends on the other.",
        f"Lines with caps: {view.interval(pairs.examples)}",
        figures.counted(len(rows), len(pairs.pairs), "pairs"),
        view.more_outputs(),
    ]
    return figures.finish(figure, view.title("Interactions of features"), note)


def _pair_name(report, index):
    return figures.label(report.feature_names[index], limit=18)


def evolution(view):
    """The strongest features over the epochs, with bands; many of them in gray."""
    from matplotlib.ticker import MaxNLocator

    report, history = view.report, view.report.evolution
    estimate = view.estimate(history.measures)
    size = np.where(np.isfinite(estimate.value), np.abs(estimate.value), -np.inf)
    rows = strongest(view, size.max(axis=0))  # a feature that lost its strength counts too
    figure, panels = side_by_side(view, 0, width=8.0, extra=3.6)
    named = len(figures.LINES)
    for k, axes in enumerate(panels):
        for rank in reversed(range(len(rows))):  # the strongest on top
            part = [a[:, rows[rank], k] for a in (estimate.value, estimate.low, estimate.high)]
            _line(axes, history.epochs, *part, rank, report.feature_names[rows[rank]])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch (0: before training)" if 0 in history.epochs else "epoch")
        figures.clear(axes, ("top", "right"))
        axes.grid(color=figures.FAINT, alpha=0.25, linewidth=0.8)
        if view.signed:
            axes.axhline(0, color=figures.FAINT, linewidth=0.8)
    if not view.signed:  # only now: a limit ends the scaling to what is drawn
        panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel(figures.folded(view.axis))
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(
        handles[::-1], names[::-1], loc="outside right upper", frameon=False, fontsize=figures.SMALL
    )
    counts = sorted({int(n) for n in history.examples})
    span = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    note = [
        f"Bands: {figures.percent(report.confidence)} confidence intervals over {span} examples.",
        "Gray: the next strongest features." * (len(rows) > named),
        figures.counted(len(rows), len(report.feature_names), "features"),
        view.more_outputs(),
    ]
    return figures.finish(figure, view.title("Sensitivity during training"), note)


def _line(axes, epochs, value, low, high, rank, name):
    if rank >= len(figures.LINES):
        axes.plot(epochs, value, color=figures.FAINT, linewidth=0.8, alpha=0.6)
        return
    color, marker = figures.LINES[rank], figures.MARKERS[rank]
    axes.fill_between(epochs, low, high, color=color, alpha=0.15, linewidth=0)
    style = {"color": color, "marker": marker, "markersize": 4, "linewidth": 1.6}
    axes.plot(epochs, value, label=figures.label(name, limit=24), **style)
