"""A comparison of sensitivity reports for the eye: text, table, figure."""

import html as escaping
import io

import numpy as np

from keras_fwd import _tables
from keras_fwd._checks import check_count
from keras_fwd.sensitivity._showing import figures
from keras_fwd.sensitivity._showing.maps import check_measure
from keras_fwd.sensitivity._showing.presentation import number, plus_minus
from keras_fwd.sensitivity._showing.view import AXIS, index_of

WIDTH = 80  # columns of a terminal
ROWS = 40  # of a table
CLASS = "SensitivityComparison"
CALL = f"{CLASS}.plot"
BEFORE, AFTER = "#999999", "#0072B2"


def headline(comparison, measure=None):
    """How many changed, in one line; by default of the first measure compared."""
    change = comparison.changes[measure or next(iter(comparison.changes))]
    changed, total = int(change.significant.sum()), int(np.isfinite(change.q_value).sum())
    if not total:
        return "No sensitivity can be compared: the reports have no errors (a single example?)"
    noun = "sensitivity" if total == 1 else "sensitivities"
    return f"{changed} of {total} {noun} changed significantly"


def some(names, limit=6):
    """The first names of many, quoted."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(figures.one_line(name, 40)) for name in names[:limit]) + more


def order(change):
    """(feature, output) by rising q-value, then by falling difference in standard errors."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(change.difference) / change.stderr
    # Above all q-values: what is not known stands last.
    q = np.nan_to_num(change.q_value, nan=2.0)
    size = np.nan_to_num(ratio, nan=0.0, posinf=np.inf)
    flat = np.lexsort((-np.abs(np.nan_to_num(change.difference)).ravel(), -size.ravel(), q.ravel()))
    return [tuple(map(int, np.unravel_index(k, q.shape))) for k in flat]


def _lines(comparison):
    """Measure, change, the (feature, output) shown, and the cells of each."""
    measure, change = next(iter(comparison.changes.items()))
    shown = order(change)[:ROWS]
    many = len(comparison.output_names) > 1
    cells = []
    for i, o in shown:
        names = [figures.one_line(comparison.feature_names[i], 60)]
        names += [figures.one_line(comparison.output_names[o], 60)] if many else []
        difference = " ± ".join(plus_minus(change.difference[i, o], change.stderr[i, o]))
        sign = "+" if change.difference[i, o] > 0 else ""
        q = change.q_value[i, o]
        values = (number(change.before.value[i, o]), number(change.after.value[i, o]))
        star = " *" if change.significant[i, o] else "  "
        cells.append([*names, *values, sign + difference, _small(q) + star])
    columns = ["feature", *(["output"] if many else []), "before", "after", "change ± s.e.", "q  "]
    return measure, change, columns, cells


def _small(p):
    """A p- or q-value: three decimals are enough."""
    return "–" if not np.isfinite(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def _footer(comparison, measure, change, shown):
    if (more := change.q_value.size - shown) > 0:
        yield f"… and {more} more: see to_frame()."
    yield (
        f"{measure}: {AXIS.get(measure, measure)}. s.e.: standard error over the "
        "examples, not over trainings. q: p-value after Benjamini and Hochberg; * where it is "
        f"below {1 - comparison.confidence:.6g}, so that at most that share is due to chance."
    )
    if len(comparison.changes) > 1:
        others = [
            f"{name}: {int(other.significant.sum())}"
            for name, other in list(comparison.changes.items())[1:]
        ]
        yield f"Significant changes of the other measures: {', '.join(others)}."
    for when, names in (("before", comparison.only_before), ("after", comparison.only_after)):
        for noun, only in zip(("features", "outputs"), names, strict=True):
            if only:
                yield f"Only {when}: the {noun} {some(only)}."
    for note in comparison.notes:
        yield f"Note: {note}"


def text(comparison):
    """The comparison as plain text of 80 columns, the surest changes first."""
    measure, change, columns, cells = _lines(comparison)
    footer = list(_footer(comparison, measure, change, len(cells)))
    title = f"{headline(comparison)} ({measure})"
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return "\n".join([title, _tables.text_table(columns, cells), *footer])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    names = len(columns) - 4
    sizes = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    sizes[1:names] = [min(size, 14) for size in sizes[1:names]]
    # Names give way, numbers do not.
    sizes[0] = max(8, WIDTH - sum(sizes[1:]) - 3 * len(columns))
    for k, name in enumerate(columns):
        style = {"no_wrap": True, "overflow": "ellipsis", "max_width": sizes[k]}
        table.add_column(name, justify="left" if k < names else "right", **style)
    for row in cells:
        cut = map(figures.one_line, row[:names], sizes)
        table.add_row(*map(Text, (*cut, *row[names:])))
    console = Console(width=WIDTH, file=io.StringIO(), color_system=None)
    console.print(Text(title), table, *map(Text, footer), sep="\n")
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def html(comparison):
    """The same table as HTML, for notebooks; names are text whatever they hold."""
    measure, change, columns, cells = _lines(comparison)
    names = len(columns) - 4
    lines = [f"<p><b>{headline(comparison)}</b> ({escaping.escape(measure)})</p>", "<table>"]
    lines.append("<thead><tr>" + "".join(map(_cell("th scope='col'"), columns)) + "</tr></thead>")
    for row in cells:
        inner = [_cell("td style='text-align:left'")(c) for c in row[:names]]
        inner += map(_cell("td"), row[names:])
        lines.append(f"<tr>{''.join(inner)}</tr>")
    lines.append("</table>")
    lines += map(_cell("p"), _footer(comparison, measure, change, len(cells)))
    return "\n".join(lines)


def _cell(tag):
    return lambda value: f"<{tag}>{escaping.escape(str(value).strip())}</{tag.split()[0]}>"


def dumbbell(comparison, measure=None, output=None, top=20):
    """Before and after with intervals, a row for each feature and output, the surest first."""
    check_count(CALL, "top", top)
    measure = next(iter(comparison.changes)) if measure is None else measure
    check_measure(CALL, measure, comparison.changes)
    change, outputs = comparison.changes[measure], range(len(comparison.output_names))
    if output is not None:
        outputs = [index_of(CALL, comparison.output_names, output)]
    places = [(i, o) for i, o in order(change) if o in outputs]
    rows = places[:top]
    figure = figures.new_figure(CALL, 7.5, 1.8 + 0.32 * max(len(rows), 3))
    axes = figure.subplots()
    index = tuple(np.array(rows).T)
    for estimate, color, shift, marker, name in (
        (change.before, BEFORE, -0.13, "o", "before"),
        (change.after, AFTER, 0.13, "s", "after"),
    ):
        y = np.arange(len(rows)) + shift
        axes.hlines(y, estimate.low[index], estimate.high[index], color=color, linewidth=1.6)
        axes.plot(estimate.value[index], y, marker, color=color, markersize=6, label=name, zorder=3)
    _connect(axes, change, index)
    many = len(outputs) > 1
    names = [comparison.feature_names[i] for i, _ in rows]
    figures.rows_axis(axes, names)
    ends = [f" → {figures.label(comparison.output_names[o], 14)}" * many for _, o in rows]
    stars = [" *" if change.significant[row] else "" for row in rows]
    labels = [figures.label(n, 24) + e + s for n, e, s in zip(names, ends, stars, strict=True)]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_xlabel(AXIS.get(measure, measure))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8)
    note = [
        f"Lines: {figures.percent(comparison.confidence)} confidence intervals of each value.",
        f"*: changed significantly, q < {1 - comparison.confidence:.6g}.",
        figures.counted(len(rows), len(places), "rows"),
        *comparison.notes,
    ]
    title = f"Changes of {figures.label(comparison.output_names[outputs[0]])}"
    title = title if output is not None else headline(comparison, measure)
    return figures.finish(figure, title, note)


def _connect(axes, change, index):
    """A line from before to after in each row, strong where the change is significant."""
    before, after = change.before.value[index], change.after.value[index]
    y = np.arange(len(before))
    for sure in (False, True):
        rows = change.significant[index] == sure
        axes.plot(
            np.stack([before[rows], after[rows]]),
            np.stack([y[rows] - 0.13, y[rows] + 0.13]),
            color=AFTER if sure else figures.FAINT,
            linewidth=2.0 if sure else 0.8,
            alpha=0.8 if sure else 0.5,
        )
