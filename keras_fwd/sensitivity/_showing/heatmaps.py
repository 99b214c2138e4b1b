"""Heat maps: features by outputs, images in their own shape, sequences by step and channel."""

import math

import numpy as np

from keras_fwd.sensitivity._showing import figures, maps
from keras_fwd.sensitivity._showing.presentation import number
from keras_fwd.sensitivity._showing.view import CALL, strongest

COLUMNS = 30  # outputs beside each other
WRITTEN = 150  # cells in which numbers are written
TILES = 12  # pictures in a figure


def heatmap(view):
    """Whatever fits the inputs: pictures where one is an image, else sequences, else a table."""
    layout, items = _located(view.report)
    if layout == "image":
        return _images(view, items)
    return _sequences(view, items) if layout == "sequence" else _table(view)


def room(report):
    """How many outputs a heat map of the report has room for."""
    _, items = _located(report)
    return max(1, TILES // len(items)) if items else COLUMNS


def _located(report):
    """How the heat map is laid out, and the inputs in it."""
    for layout in ("image", "sequence"):
        if items := [item for item in report.inputs if maps.layout(item.shape) == layout]:
            return layout, items
    return "table", []


def _colors(view, values):
    """Color map and limits: white-centered where values have both signs."""
    from matplotlib import colormaps

    top = float(np.nanmax(np.abs(values), initial=0.0, where=np.isfinite(values))) or 1.0
    name, low = ("RdBu_r", -top) if view.signed else ("viridis", 0.0)
    return {"cmap": colormaps[name].with_extremes(bad="#bbbbbb"), "vmin": low, "vmax": top}


def _color_bar(figure, picture, panels, view):
    bar = figure.colorbar(picture, ax=panels, aspect=30, pad=0.02)
    bar.set_label(figures.folded(view.axis), fontsize=9)
    bar.outline.set_visible(False)


def _table(view):
    estimate, report = view.estimate(), view.report
    rows = strongest(view, estimate.value)
    values = estimate.value[rows]
    wide = values.shape[1]
    figure = figures.new_figure(
        CALL, min(14, 4.6 + 0.75 * wide), (1.7 if wide == 1 else 2.3) + 0.27 * max(len(rows), 3)
    )
    axes = figure.subplots()
    picture = axes.imshow(np.ma.masked_invalid(values), aspect="auto", **_colors(view, values))
    axes.set_yticks(range(len(rows)), [figures.label(report.feature_names[i]) for i in rows])
    names = [figures.label(report.output_names[output], 20) for output in view.outputs]
    axes.set_xticks(range(wide), names)
    if wide > 1 and max(map(len, names)) > (9 if wide < 10 else 2):
        axes.tick_params(axis="x", rotation=35 if wide < 15 else 60)
        for text in axes.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if values.size <= WRITTEN and wide <= 10:
        _write(axes, picture, values)
    _color_bar(figure, picture, axes, view)
    note = [
        "Gray: not defined." * bool(np.isnan(values).any()),
        view.switches(rows),
        figures.counted(len(rows), len(report.feature_names), "features"),
        view.more_outputs(),
    ]
    return figures.finish(figure, view.title("Sensitivity"), note)


def _write(axes, picture, values):
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = picture.to_rgba(value)
        # How bright the eye sees the three (ITU-R BT.601, rounded).
        dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
        style = {"ha": "center", "va": "center", "fontsize": figures.SMALL}
        axes.text(column, row, number(value), color="white" if dark else "black", **style)


def _tiles(view, items, estimates):
    """The (input, panel, values) of each picture, at most `TILES`."""
    tiles = [
        (item, k, estimate.value[..., view.outputs[k]])
        for item, estimate in zip(items, estimates, strict=True)
        for k in range(len(view.outputs))
    ]
    return tiles[:TILES], len(tiles)


def _tile_title(view, items, item, k):
    where = f"{figures.label(item.name, 16)}: " if len(items) > 1 else ""
    return where + (view.panel(k) if len(view.outputs) > 1 or where else "")


def _images(view, items):
    estimates = [
        maps.located(view.report, item, view.measure)
        if len(item.shape) == 2
        else maps.over_channels(f"{CALL}: the map", view.report, item, view.measure)
        for item in items
    ]
    tiles, total = _tiles(view, items, estimates)
    across = min(len(tiles), 5)
    down = math.ceil(len(tiles) / across)
    size = 2.1 if len(tiles) > 1 else 4.0
    figure = figures.new_figure(CALL, max(6.4, size * across + 1.6), size * down + 1.4)
    panels = figure.subplots(down, across, squeeze=False)
    colors = _colors(view, np.concatenate([values.ravel() for *_, values in tiles]))
    for axes, (item, k, values) in zip(panels.flat, tiles, strict=False):
        picture = axes.imshow(np.ma.masked_invalid(values), interpolation="nearest", **colors)
        axes.set_title(_tile_title(view, items, item, k), fontsize=9)
    for axes in panels.flat:
        axes.set_axis_off()
    _color_bar(figure, picture, list(panels.flat), view)
    pooled = any(len(item.shape) == 3 and item.shape[-1] > 1 for item in items)
    how = "root of the sum of squares" if view.measure in maps.ROOT else "sum"
    note = [
        f"Each pixel: over {view.report.examples:,} examples.",
        f"Channels together: {how}." * pooled,
        figures.counted(len(tiles), total, "maps"),
        view.more_outputs(),
    ]
    return figures.finish(figure, view.title("Sensitivity over the input"), note)


def _sequences(view, items):
    estimates = [maps.located(view.report, item, view.measure) for item in items]
    tiles, total = _tiles(view, items, estimates)
    heights = [_height(item.shape[1], len(tiles)) for item, *_ in tiles]
    figure = figures.new_figure(CALL, 8.0, 1.2 + sum(heights))
    panels = figure.subplots(len(tiles), 1, squeeze=False, height_ratios=heights)[:, 0]
    colors = _colors(view, np.concatenate([values.ravel() for *_, values in tiles]))
    mapped, first = [], {}
    for axes, (item, k, values) in zip(panels, tiles, strict=True):
        axes.set_title(_tile_title(view, items, item, k), fontsize=9, loc="left")
        if item.shape[1] == 1:
            # Profiles of one input on one scale, so that its outputs compare.
            axes.sharey(first.setdefault(item.name, axes))
            _profile(axes, view, estimates[items.index(item)], view.outputs[k])
        else:
            mapped.append(axes)
            style = {"aspect": "auto", "interpolation": "nearest", **colors}
            picture = axes.imshow(np.ma.masked_invalid(values.T), **style)
            axes.set_ylabel("channel")
            _whole_ticks(axes.yaxis)
        _whole_ticks(axes.xaxis)
    panels[-1].set_xlabel("step of the sequence")
    if mapped:
        _color_bar(figure, picture, mapped, view)
    for axes in first.values():
        if not view.signed:  # only now: a limit ends the scaling to what is drawn
            axes.set_ylim(bottom=0)
    if first:
        figure.supylabel(figures.folded(view.axis), fontsize=9)
    note = [
        f"Bands: {view.interval()}" * bool(first),
        figures.counted(len(tiles), total, "panels"),
        view.more_outputs(),
    ]
    return figures.finish(figure, view.title("Sensitivity over the steps"), note)


def _height(channels, tiles):
    """Inches of a panel: a profile where there is one channel, else rows of channels."""
    if tiles == 1:
        return 3.2
    return 1.7 if channels == 1 else min(3.2, 1.0 + 0.16 * channels)


def _profile(axes, view, estimate, output):
    steps = np.arange(len(estimate.value))
    value, low, high = (a[:, 0, output] for a in (estimate.value, estimate.low, estimate.high))
    axes.fill_between(steps, low, high, color=figures.DOWN, alpha=0.2, linewidth=0)
    axes.plot(steps, value, color=figures.DOWN, linewidth=1.6)
    axes.margins(x=0.01)
    figures.clear(axes, ("top", "right"))
    axes.grid(color=figures.FAINT, alpha=0.25, linewidth=0.8)
    if view.signed:
        axes.axhline(0, color=figures.FAINT, linewidth=0.8)


def _whole_ticks(axis):
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))
