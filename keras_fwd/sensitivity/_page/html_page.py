"""A `SensitivityReport` as a page of HTML, and as a table for notebooks."""

import importlib.resources
import json

from keras_fwd._checks import needed
from keras_fwd.sensitivity._page.page_data import brief, directed, page_data
from keras_fwd.sensitivity._showing.presentation import counted, headline, interval, number

# In this order they make up the one script of the page.
SCRIPTS = (
    "elements numbers report bars detail table summary lines evolution maps inputs main".split()
)
FRAGMENT_ROWS = 20
FRAGMENT_OUTPUTS = 4
ABOUT = 100_000  # characters of a summary of the model, at most


def html_page(report, title):
    """The report as one HTML page that needs nothing else, and loads nothing.

    Args:
        report: A `SensitivityReport`.
        title: Heading of the page.

    Returns:
        The page, text. It has the strongest 500 features, fewer if there are many outputs and
        slices, and says how many it leaves out.

    Raises:
        ImportError: Jinja2 is not installed.
    """
    data = page_data(report)
    return _template("report.html", "SensitivityReport.to_html").render(
        title=_encodable(title),
        facts=_encodable(headline(report)),
        report=report,
        data=data,
        notes=[_encodable(note) for note in report.notes],
        about=[(heading, _encodable(text)) for heading, text in _about(report)],
        rows=_static_rows(report, report.ranking()[: len(data["features"])], 0),
        style=_source("page.css"),
        script="\n".join(_source(f"{name}.js") for name in SCRIPTS),
        payload=embedded(data),
    )


def fragment(report):
    """The strongest features as a table of HTML without scripts, for `_repr_html_`.

    Raises:
        ImportError: Jinja2 is not installed.
    """
    outputs = range(min(FRAGMENT_OUTPUTS, len(report.output_names)))
    shown = report.ranking()[:FRAGMENT_ROWS]
    columns = [_static_rows(report, shown, o) for o in outputs]
    return _template("fragment.html", "SensitivityReport._repr_html_").render(
        facts=_encodable(headline(report)),
        outputs=[_encodable(brief(report.output_names[o])) for o in outputs],
        more_outputs=len(report.output_names) - len(outputs),
        more=len(report.feature_names) - len(shown),
        rows=list(zip(*columns, strict=True)),
        notes=[_encodable(note) for note in report.notes],
        switches="switch" in report.kinds,
    )


def embedded(data):
    r"""Data as JSON that may stand inside a `<script>` element.

    >>> print(embedded(["</script>", "a & b"]))
    ["\u003c/script\u003e","a \u0026 b"]
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # `</script>` would end the element, and the last two are ends of lines to older scripts.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return _encodable(text)


def _encodable(text):
    """Text that can be written as UTF-8: what is no character becomes a question mark."""
    return str(text).encode("utf-8", "replace").decode("utf-8")


def _source(name):
    return importlib.resources.files(__package__).joinpath(f"assets/{name}").read_text("utf-8")


def _template(name, call):
    jinja2 = needed(call, "jinja2")
    # Names come from users: whatever they hold is text. A misspelt variable raises.
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["encodable"] = _encodable
    environment.globals["counted"] = counted
    return environment.from_string(_source(name))


def _about(report):
    """What else the report knows, `(heading, text)`."""
    headings = {
        "model": "The model",
        "leaks": "Are the derivatives exact? The leak report",
        "data": "The data",
        "versions": "Versions",
    }
    rest = {name: name.capitalize() for name in report.about if name not in headings}
    return [
        (heading, str(report.about[name])[:ABOUT])
        for name, heading in {**headings, **rest}.items()
        if report.about.get(name)
    ]


def _static_rows(report, features, o):
    """Rows for one output, for readers without JavaScript."""
    strength, mean = report.measures["standardized_rms"], report.measures["mean"]
    # NaN is not above 0, so it is left out here.
    largest = max((strength.value[i, o] for i in features if strength.value[i, o] > 0), default=1)
    rows = []
    for i in features:
        sign, words = directed(report, i, o)
        share = strength.value[i, o] / largest
        rows.append(
            {
                "name": _encodable(brief(report.feature_names[i])),
                "switch": report.kinds[i] == "switch",
                "strength": _interval(strength, i, o),
                "mean": _interval(mean, i, o),
                "length": f"{100 * share:.1f}" if 0 <= share <= 1 else "0",
                "sign": sign,
                "words": words,
                "spread": _minus(number(report.feature_std[i])),
            }
        )
    return rows


def _interval(estimate, i, o):
    """Value, low and high end as texts; the ends are empty where they are not known."""
    texts = interval(estimate.value[i, o], estimate.low[i, o], estimate.high[i, o])
    value, low, high = map(_minus, texts)
    return (value, "", "") if "–" in (low, high) else (value, low, high)


def _minus(text):
    return text.replace("-", "−")
