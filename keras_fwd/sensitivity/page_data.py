"""What the page of a sensitivity report is given: the report, cut and rounded."""

import numpy as np

from keras_fwd.sensitivity.page_grids import input_grids
from keras_fwd.sensitivity.presentation import direction

FEATURES = 500  # at most on a page
CELLS = 7500  # features times outputs times slices, at most
OUTPUTS = 100  # at most on a page
BINS = 24  # of the histograms
LINES = 12  # features whose evolution is drawn
TIMES = 200  # at most, of the evolution
PAIRS = 60  # interactions
LITTLE = 0.01  # share of the variance below which a feature hardly matters
MEASURES = (
    "mean mean_abs rms positive q05 q25 q50 q75 q95 standardized_mean standardized_mean_abs "
    "standardized_rms elasticity dgsm total_index_bound"
).split()
WITHOUT_INTERVAL = ("q05", "q25", "q50", "q75", "q95", "dgsm")


def page_data(report):
    """The report as a nest of dicts and lists, small enough to be part of a page.

    Args:
        report: A `SensitivityReport`.

    Returns:
        Dict for `json.dumps`: the strongest features only (`FEATURES`, fewer if there are many
        outputs and slices), numbers to four digits, `None` where one is not defined, histograms
        for the sample. Arrays are `[outputs][features]`.
    """
    outputs = min(OUTPUTS, len(report.output_names))
    views = {"all examples": report, **report.slices}
    limit = min(FEATURES, max(20, CELLS // (max(1, outputs) * len(views))))
    shown = np.asarray(report.ranking())[:limit]
    return {
        "features": [report.feature_names[i] for i in shown],
        "switches": [int(report.kinds[i] == "switch") for i in shown],
        "means": rounded(report.feature_mean[shown]),
        "spreads": rounded(report.feature_std[shown]),
        "total": len(report.feature_names),
        "outputs": list(report.output_names[:outputs]),
        "outputSpreads": rounded(report.output_std[:outputs]),
        "hiddenOutputs": len(report.output_names) - outputs,
        "confidence": _digits(100 * report.confidence),
        "little": LITTLE,
        "views": [_view(label, part, shown, outputs) for label, part in views.items()],
        "groups": _groups(report, outputs),
        "interactions": _interactions(report, outputs),
        "inputs": [input_grids(report, shape, outputs, rounded) for shape in report.inputs],
        "evolution": _evolution(report, outputs),
    }


def rounded(array):
    """Nested lists of numbers to four significant digits, `None` for NaN and infinity.

    >>> rounded(np.array([[1.23456, np.nan], [-0.0, 2.0]]))
    [[1.235, None], [0, 2]]
    """
    array = np.asarray(array, np.float64)
    flat = [_digits(value) for value in array.ravel().tolist()]
    for length in array.shape[:0:-1]:
        flat = [flat[k : k + length] for k in range(0, len(flat), length)] if length else []
    return flat


def _digits(value):
    if not abs(value) < np.inf:  # NaN, too
        return None
    value = float(f"{value:.4g}")
    return int(value) if value.is_integer() and abs(value) < 1e9 else value


def _bars(estimate, rows=slice(None), columns=slice(None), intervals=True):
    """`[value, low, high]`, each `[outputs][features]`; only the value without `intervals`."""
    parts = (estimate.value, estimate.low, estimate.high) if intervals else (estimate.value,)
    return [rounded(part[rows][:, columns].T) for part in parts]


def _view(label, report, shown, outputs):
    """All numbers of the whole report or of one slice."""
    first = slice(outputs)
    return {
        "label": label,
        "examples": report.examples,
        "measures": {
            name: _bars(report.measures[name], shown, first, name not in WITHOUT_INTERVAL)
            for name in MEASURES
            if name in report.measures
        },
        "pooled": {name: _bars(part, shown) for name, part in report.pooled.items()},
        "directions": [[directed(report, i, o) for i in shown] for o in range(outputs)],
        "histograms": [_histograms(report.sample.derivatives[:, shown, o]) for o in range(outputs)],
        "little": _little(report, outputs),
    }


def directed(report, i, o):
    """The `direction` of one feature and output of a report, a list for JSON."""
    mean = report.measures["mean"]
    size = report.measures["mean_abs"].value
    return list(direction(mean.value[i, o], mean.low[i, o], mean.high[i, o], size[i, o]))


def _little(report, outputs):
    """Of how many features it is sure that they hardly matter: per output, then pooled."""
    parts = [report.measures.get("total_index_bound"), report.pooled.get("total_index_bound")]
    if None in parts:
        return []
    high = np.concatenate([parts[0].high[:, :outputs], parts[1].high], axis=1)
    return [int(n) for n in (high < LITTLE).sum(axis=0)]


def _histograms(derivatives):
    """`[low, high, counts]` of each column, the outermost two hundredths in the end bins."""
    derivatives = derivatives[np.isfinite(derivatives).all(axis=1)]
    if not len(derivatives):
        return []
    low, high = np.quantile(derivatives, [0.01, 0.99], axis=0)
    width = np.where(high > low, high - low, 1.0)
    place = np.clip((derivatives - low) / width * BINS, 0, BINS - 1).astype(int)
    columns = place.shape[1]
    flat = np.bincount((place + BINS * np.arange(columns)).ravel(), minlength=BINS * columns)
    counts = flat.reshape(columns, BINS).tolist()
    return [list(row) for row in zip(rounded(low), rounded(high), counts, strict=True)]


def _groups(report, outputs):
    if report.groups is None:
        return None
    names = report.feature_names
    return {
        "names": list(report.groups.names),
        "members": [[names[i] for i in members[:12]] for members in report.groups.members],
        "sizes": [len(members) for members in report.groups.members],
        "measures": {
            name: _bars(part, columns=slice(outputs))
            for name, part in report.groups.measures.items()
        },
    }


def _interactions(report, outputs):
    if report.interactions is None or not len(report.interactions.pairs):
        return None
    names, first = report.feature_names, slice(PAIRS)
    return {
        "pairs": [[names[i], names[j]] for i, j in report.interactions.pairs[first]],
        "examples": report.interactions.examples,
        "total": len(report.interactions.pairs),
        "measures": {
            name: _bars(part, first, slice(outputs))
            for name, part in report.interactions.measures.items()
        },
    }


def _evolution(report, outputs):
    """The strongest features over the epochs: `[value, low, high][outputs][features][times]`."""
    past = report.evolution
    if past is None or not len(past.epochs):
        return None
    count = len(past.epochs)
    times = np.unique(np.linspace(0, count - 1, min(TIMES, count)).round().astype(int))
    shown = np.asarray(report.ranking())[:LINES]
    line = past.measures["standardized_rms"]
    parts = (line.value, line.low, line.high)
    return {
        "epochs": [int(epoch) for epoch in np.asarray(past.epochs)[times]],
        "examples": [int(n) for n in np.asarray(past.examples)[times]],
        "features": [report.feature_names[i] for i in shown],
        "lines": [rounded(part[times][:, shown, :outputs].transpose(2, 1, 0)) for part in parts],
    }
