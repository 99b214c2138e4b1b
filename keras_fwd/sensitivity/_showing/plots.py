"""Figures of a sensitivity report, by matplotlib and without a screen."""

from keras_fwd.errors import ConfigurationError
from keras_fwd.sensitivity._showing.charts import bar, evolution, interactions
from keras_fwd.sensitivity._showing.heatmaps import heatmap, room
from keras_fwd.sensitivity._showing.swarm import beeswarm
from keras_fwd.sensitivity._showing.view import CALL, view_of

KINDS = ("bar", "beeswarm", "heatmap", "interactions", "evolution")


def plot(report, kind, output=None, measure="standardized_rms", top=20):
    """A figure of a report.

    | kind | shows |
    |---|---|
    | `"bar"` | the strongest features with intervals, colored by the direction of the effect |
    | `"beeswarm"` | the standardized derivative at each example of the sample |
    | `"heatmap"` | features × outputs; images and sequences in their own shape |
    | `"interactions"` | the strongest pairs of features with intervals |
    | `"evolution"` | the strongest features over the epochs of training, with bands |

    Args:
        report: `SensitivityReport`.
        kind: Which figure.
        output: Name or index of one output. Default None: in bars all outputs pooled, for the
            measures that can be; otherwise the first outputs side by side.
        measure: Name of a measure of the report; in `"beeswarm"` it sets the order of the rows,
            and interactions and evolution have measures of their own.
        top: Number of rows at most, default 20.

    Returns:
        `matplotlib.figure.Figure`: `.savefig(path)` writes it, and notebooks show it. It belongs
        to no window and needs no closing.

    Raises:
        ImportError: matplotlib is not installed.
        ConfigurationError: An unknown kind, output or measure, or a kind of which the report holds
            nothing.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        choices = ", ".join(f'"{choice}"' for choice in KINDS)
        raise ConfigurationError(f"{CALL}: `kind` must be one of {choices}. Received: {kind!r}.")
    _check_held(report, kind)
    arguments = (report, kind, output, measure, top)
    if kind == "bar":
        return bar(view_of(*arguments, report.measures, pools=report.pooled))
    if kind == "beeswarm":
        return beeswarm(view_of(*arguments, report.measures, panels=3))
    if kind == "heatmap":
        return heatmap(view_of(*arguments, report.measures, panels=room(report)))
    if kind == "interactions":
        return interactions(view_of(*arguments, report.interactions.measures))
    return evolution(view_of(*arguments, report.evolution.measures))


def _check_held(report, kind):
    """Raise `ConfigurationError` if the report holds nothing that `kind` shows."""
    pairs = report.interactions
    missing = {
        "beeswarm": ("examples in its sample", not len(report.sample.derivatives)),
        "interactions": (
            "interactions: sensitivity_report(…, interactions=20)",
            pairs is None or not len(pairs.pairs),
        ),
        "evolution": (
            "an evolution: take it from a SensitivityCallback after fit",
            report.evolution is None or not len(report.evolution.epochs),
        ),
    }
    what, empty = missing.get(kind, ("", False))
    if empty:
        held = [f'"{k}"' for k in KINDS if not missing.get(k, ("", False))[1]]
        raise ConfigurationError(
            f'{CALL}: with kind="{kind}" the report must hold {what}. Received: a report without; '
            f"`kind` can be {', '.join(held)}."
        )
