"""A `SensitivityReport` for the eye: a text table and a page of HTML."""

import importlib.resources
import io
import math

import numpy as np

from keras_fwd.sensitivity.measures import Measures

TEXT_WIDTH = 80  # columns of a terminal
TEXT_ROWS = 40  # of the text table
CHART_BARS = 25  # for each output


def number(value):
    """Three significant digits, without an exponent where that reads well.

    >>> [number(v) for v in (0.0, -0.00631, 12.345, 98765.4, 1e-7, float("nan"))]
    ['0', '-0.00631', '12.3', '98765', '1.00e-07', '–']
    """
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def plus_minus(value, error):
    """A value and its error as two texts with matching decimals, the error to two digits.

    >>> plus_minus(4.6312, 0.277), plus_minus(0.018, 0.131), plus_minus(3.0, 0.0)
    (('4.63', '0.28'), ('0.02', '0.13'), ('3.00', '0'))
    """
    if not (math.isfinite(error) and 1e-5 <= error < 1e3 and error > 1e-4 * abs(value)):
        return number(value), number(error)
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{decimals}f}", f"{error:.{decimals}f}"


def ranking(report):
    """The features by falling standardized rms, pooled over the outputs: their indices."""
    pooled = np.sqrt(np.mean(np.square(report.standardized.rms), axis=1))
    return [int(i) for i in np.argsort(-pooled, kind="stable")]


def direction(mean, stderr, mean_abs):
    """In which direction a feature moves an output, `(sign, words)`.

    A mean within two standard errors of 0 shows no direction. "On average" means that the
    derivative has the other sign often enough to take a tenth off the mean.

    >>> direction(2.0, 0.1, 2.0), direction(-1.0, 0.1, 2.0), direction(0.1, 0.1, 2.0)
    ((1, 'raises'), (-1, 'lowers on average'), (0, 'no clear direction'))
    """
    if mean_abs == 0:
        return 0, "no effect"
    if abs(mean) <= 2 * np.nan_to_num(stderr):
        return 0, "no clear direction"
    sign, verb = (1, "raises") if mean > 0 else (-1, "lowers")
    return sign, verb if abs(mean) >= 0.9 * mean_abs else f"{verb} on average"


def text_table(report):
    """The report as plain text of 80 columns, the strongest features first."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    many = len(report.output_names) > 1
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    table.add_column("feature", overflow="ellipsis", no_wrap=True)
    if many:
        table.add_column("output", overflow="ellipsis", no_wrap=True, max_width=14)
    for header in ("mean", "mean abs", "rms", "std. mean", "std. rms ± s.e."):
        table.add_column(header, justify="right", no_wrap=True)
    shown = ranking(report)[: max(1, TEXT_ROWS // len(report.output_names))]
    scaled = report.standardized
    for i in shown:
        for o, output in enumerate(report.output_names):
            names = [report.feature_names[i] if o == 0 else "", *([output] if many else [])]
            values = [report.mean, report.mean_abs, report.rms, scaled.mean]
            last = " ± ".join(plus_minus(scaled.rms[i, o], scaled.rms_stderr[i, o]))
            table.add_row(*map(Text, names), *(number(value[i, o]) for value in values), last)
    console = Console(width=TEXT_WIDTH, file=io.StringIO(), color_system=None)
    console.print(Text(headline(report)), table, *map(Text, _footer(report, len(shown))), sep="\n")
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def headline(report):
    """What was measured, in one line."""
    features, outputs = len(report.feature_names), len(report.output_names)
    return (
        f"Sensitivity of {_count(outputs, 'output')} to {_count(features, 'feature')}, "
        f"{_count(report.examples, 'example')}"
    )


def _footer(report, shown):
    if (more := len(report.feature_names) - shown) > 0:
        yield f"… and {_count(more, 'feature')} more: see to_frame() or to_html(path)."
    yield (
        "mean, mean abs, rms: of ∂output/∂feature, in units of the output per unit of the feature."
        " std.: times the feature's standard deviation, in units of the output per standard "
        "deviation. s.e.: standard error over the examples."
    )
    for note in report.notes:
        yield f"Note: {note}"


def shortened(names, limit=8):
    """Names in a sentence, only the first of many.

    >>> shortened(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(str, names[:limit])) + more


def _count(n, noun):
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def html_page(report, title):
    """The report as one HTML page that needs nothing else.

    Raises:
        ImportError: Jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError:
        raise ImportError(
            "SensitivityReport.to_html needs Jinja2: run `pip install 'keras-fwd[report]'`."
        ) from None
    source = importlib.resources.files(__package__).joinpath("page/report.html")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["number"] = lambda value: _minus(number(value))
    environment.globals["plus_minus"] = lambda *pair: tuple(map(_minus, plus_minus(*pair)))
    template = environment.from_string(source.read_text(encoding="utf-8"))
    outputs, scaled = range(len(report.output_names)), report.standardized
    return template.render(
        title=title,
        report=report,
        facts=headline(report),
        charts=[_chart(report, scaled, o) for o in outputs],
        hidden=max(0, len(report.feature_names) - CHART_BARS),
        rows=[_row(report, scaled, i, o) for i in ranking(report) for o in outputs],
    )


def _minus(text):
    return text.replace("-", "−")


def _row(report, scaled, i, o):
    """One feature and output: the numbers of the table, by name."""
    names = list(Measures.__dataclass_fields__)
    row = {name: getattr(report, name)[i, o] for name in names}
    row |= {f"standardized_{name}": getattr(scaled, name)[i, o] for name in names}
    sign, words = direction(row["mean"], row["mean_stderr"], row["mean_abs"])
    row |= {"feature": report.feature_names[i], "output": report.output_names[o]}
    return row | {"feature_std": report.feature_std[i], "sign": sign, "words": words}


def _chart(report, scaled, o):
    """The bars of one output, its strongest features first, lengths in percent of the axis."""
    order = np.argsort(-scaled.rms[:, o], kind="stable")[:CHART_BARS]
    rows = [_row(report, scaled, i, o) for i in order]
    spans = [(r["standardized_rms"], 2 * np.nan_to_num(r["standardized_rms_stderr"])) for r in rows]
    step, top = _axis(max(rms + reach for rms, reach in spans))
    for row, (rms, reach) in zip(rows, spans, strict=True):
        low = max(0.0, rms - reach)
        row |= {"reach": reach, "length": f"{100 * rms / top:.2f}"}
        row |= {"low": f"{100 * low / top:.2f}", "span": f"{100 * (rms + reach - low) / top:.2f}"}
    marks = [k * step for k in range(round(top / step) + 1)]
    ticks = [(f"{100 * mark / top:.2f}", f"{mark:.6g}") for mark in marks]
    return {"output": report.output_names[o], "rows": rows, "ticks": ticks}


def _axis(largest):
    """A round step and the first multiple of it that covers `largest`: two to five steps.

    >>> _axis(6.3), _axis(0.0)
    ((2.0, 8.0), (1.0, 1.0))
    """
    if largest == 0:
        return 1.0, 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    step = next(power * m for m in (0.2, 0.5, 1.0, 2.0) if largest <= 5 * power * m)
    return step, step * math.ceil(largest / step)
