"""A `SensitivityReport` in words and as a table of text."""

import math
import unicodedata

TEXT_WIDTH = 80  # columns of a terminal
TEXT_ROWS = 40  # of the text table
NAME_WIDTHS = (8, 34)  # least and most columns for the name of a feature
OUTPUT_WIDTH = 14
SWITCH = "⇄"  # before the name of a discrete input's switch


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
    # So many decimals that three digits count; of large numbers all before the point are shown.
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def plus_minus(value, error):
    """A value and its error as two texts with matching decimals, the error to two digits.

    >>> plus_minus(4.6312, 0.277), plus_minus(0.018, 0.131), plus_minus(3.0, 0.0)
    (('4.63', '0.28'), ('0.02', '0.13'), ('3.00', '0'))
    """
    # Errors that would need many decimals, or none, go their own way.
    if not (math.isfinite(error) and 1e-5 <= error < 1e3 and error > 1e-4 * abs(value)):
        return number(value), number(error)
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{decimals}f}", f"{error:.{decimals}f}"


def interval(value, low, high):
    """A value and the ends of its interval as three texts with matching decimals.

    >>> interval(4.6312, 4.08, 5.18), interval(3.0, 3.0, 3.0)
    (('4.63', '4.08', '5.18'), ('3.00', '3.00', '3.00'))
    """
    value_text, error = plus_minus(value, (high - low) / 2)
    if not math.isfinite(high - low) or "e" in value_text + error:
        return number(value), number(low), number(high)
    decimals = len(value_text.partition(".")[2])
    return value_text, f"{low:.{decimals}f}", f"{high:.{decimals}f}"


def direction(mean, low, high, mean_abs):
    """In which direction a feature moves an output, `(sign, words)`.

    A mean whose interval holds 0 shows no direction. "On average" means that the derivative has
    the other sign often enough to take a tenth off the mean.

    >>> direction(2.0, 1.8, 2.2, 2.0), direction(-1.0, -1.2, -0.8, 2.0)
    ((1, 'raises'), (-1, 'lowers on average'))
    >>> direction(0.1, -0.1, 0.3, 2.0)
    (0, 'no clear direction')
    """
    if math.isnan(mean):
        return 0, "not defined"
    if mean_abs == 0:
        return 0, "no effect"
    if mean == 0 or low <= 0 <= high:
        return 0, "no clear direction"
    sign, verb = (1, "raises") if mean > 0 else (-1, "lowers")
    # All of one sign: the mean is as large as the mean size.
    return sign, verb if abs(mean) >= 0.9 * mean_abs else f"{verb} on average"


def headline(report):
    """What was measured, in one line."""
    features, outputs = len(report.feature_names), len(report.output_names)
    return (
        f"Sensitivity of {counted(outputs, 'output')} to {counted(features, 'feature')}, "
        f"{counted(report.examples, 'example')}"
    )


def counted(n, noun):
    """A number with its noun.

    >>> counted(1, "example"), counted(12000, "example")
    ('1 example', '12,000 examples')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def text_table(report):
    """The report as plain text of 80 columns, the strongest features first.

    Args:
        report: A `SensitivityReport`.
    """
    outputs = range(len(report.output_names))
    shown = report.ranking()[: max(1, TEXT_ROWS // max(1, len(outputs)))]
    cells = [_row(report, int(i), o) for i in shown for o in outputs]
    heads = ["feature", "output", "mean", "mean abs", "rms", "std. mean", "std. rms ± s.e."]
    if len(outputs) == 1:
        del heads[1]
        cells = [[row[0], *row[2:]] for row in cells]
    lines = [headline(report), "", *_lines(heads, cells, texts=min(2, len(outputs)))]
    for paragraph in _footer(report, len(shown)):
        lines += _wrapped(paragraph)
    return "\n".join(line.rstrip() for line in lines)


def _row(report, i, o):
    """One feature and output as the cells of the text table; its name with the first output."""
    name = report.feature_names[i]
    if report.kinds[i] == "switch":
        name = f"{SWITCH} {name}"
    values = [report.measures[key].value[i, o] for key in ("mean", "mean_abs", "rms")]
    strength = report.measures["standardized_rms"]
    return [
        name if o == 0 else "",
        report.output_names[o],
        *map(number, values),
        number(report.measures["standardized_mean"].value[i, o]),
        " ± ".join(plus_minus(strength.value[i, o], strength.stderr[i, o])),
    ]


def _lines(heads, cells, texts):
    """Aligned columns, the first `texts` of them to the left and no wider than there is room."""
    cells = [[*map(_plain, row[:texts]), *row[texts:]] for row in cells]
    widths = [max(_width(row[k]) for row in [heads, *cells]) for k in range(len(heads))]
    if texts == 2:
        widths[1] = min(widths[1], OUTPUT_WIDTH)
    room = TEXT_WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)
    least, most = NAME_WIDTHS
    widths[0] = min(widths[0], max(least, min(room, most)))
    rule = "-" * min(TEXT_WIDTH, sum(widths) + 2 * (len(widths) - 1))
    body = [_line(row, widths, texts) for row in [heads, *cells]]
    return [body[0], rule, *body[1:], ""]


def _line(row, widths, texts):
    parts = []
    for k, (cell, width) in enumerate(zip(row, widths, strict=True)):
        cell = _cut(cell, width)
        gap = " " * (width - _width(cell))
        parts.append(cell + gap if k < texts else gap + cell)
    return _cut("  ".join(parts), TEXT_WIDTH)


def _plain(text):
    """Without control characters, which could move the cursor or color the terminal."""
    return "".join(c if c.isprintable() else "�" for c in text)


def _width(text):
    """Columns of a terminal: two for the wide characters of East Asia, none for accents."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _cut(text, width):
    if _width(text) <= width:
        return text
    while _width(text) > width - 1:
        text = text[:-1]
    return text + "…"


def _wrapped(paragraph):
    """Lines of at most 80 columns, words that are longer cut into pieces."""
    line = ""
    for word in _plain(paragraph).split(" "):
        if line and _width(line) + 1 + _width(word) > TEXT_WIDTH:
            yield line
            line = ""
        line = f"{line} {word}" if line else word
        while _width(line) > TEXT_WIDTH:
            yield line[: TEXT_WIDTH // 2]
            line = line[TEXT_WIDTH // 2 :]
    yield line


def _footer(report, shown):
    if (more := len(report.feature_names) - shown) > 0:
        yield f"… and {counted(more, 'feature')} more: see to_frame() or to_html(path)."
    yield (
        "mean, mean abs, rms: of ∂output/∂feature, in units of the output per unit of the feature."
        " std.: times the feature's standard deviation over the output's: no unit. s.e.: standard "
        "error over the examples."
    )
    if "switch" in report.kinds:
        yield (
            f"{SWITCH}: no derivative, but the exact effect of switching a discrete input from one "
            "value to the other."
        )
    for note in report.notes:
        yield f"Note: {note}"
