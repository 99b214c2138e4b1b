"""What the page of a sensitivity report is given: the report, cut and rounded."""

import math

import numpy as np

from keras_fwd.sensitivity._showing.presentation import direction

# Sensitivities over the components of an image or a sequence, as grids for the page.

SIDE = 64  # pixels of a map, at most, in each direction
NUMBERS = 120_000  # in all maps of one input, at most
STEPS = 400  # of a profile, at most
GRIDS = ("standardized_rms", "rms", "mean")


def input_grids(report, shape, outputs, rounded, slices=()):
    """The measures of one input laid out as the input is, `None` if that has no two axes.

    `(height, width)` and `(height, width, channels)` are images, `(steps, channels)` a sequence;
    with two axes it may be either, so the page offers both views. Larger images are averaged over
    blocks of pixels: the root of the mean square, or the mean.

    Args:
        report: A `SensitivityReport`.
        shape: One of its `InputShape`.
        outputs: How many outputs the page has.
        rounded: Function from an array to nested lists.
        slices: Reports on parts of the examples.

    Returns:
        Dict: `name`, `shape`, `height`, `width`, `channels` of the grids, `block` (side of a block
        of pixels, 1 where none are put together), `image` (what it is likely to be), and `grids`:
        for each measure `[outputs][channels][height · width]`, and the same for the low and high
        `ends` of the intervals, where these are exact and not too many; and `slices`: the `grids`
        of each slice, none where that would be too many numbers.
    """
    if len(shape.shape) not in (2, 3) or math.prod(shape.shape) < 2:
        return None
    height, width, channels = (*shape.shape, 1)[:3]
    most = STEPS if len(shape.shape) == 2 else SIDE
    block = max(math.ceil(height / most), math.ceil(width / most))
    cells = 3 * math.ceil(height / block) * math.ceil(width / block)
    kept = max(1, min(outputs, NUMBERS // cells))
    # Outputs are dropped before channels are, and channels are put together before the page grows.
    pooled = channels > 1 and cells * channels * kept > NUMBERS
    inside = slice(shape.start, shape.start + math.prod(shape.shape))

    def grid_of(name, part="value", of=report):
        flat = getattr(of.measures[name], part)[inside, :kept]
        grid, square = flat.reshape(height, width, channels, kept), name != "mean"
        grid = _blocks(_sum(grid, square) if pooled else grid, block, square)
        return rounded(grid.transpose(3, 2, 0, 1).reshape(kept, grid.shape[2], -1))

    numbers = cells * kept * (1 if pooled else channels)
    few = numbers * (1 + len(slices)) <= NUMBERS
    exact = len(shape.shape) == 2 and block == 1 and 3 * cells * kept <= NUMBERS
    return {
        "name": shape.name,
        "shape": list(shape.shape),
        "height": math.ceil(height / block),
        "width": math.ceil(width / block),
        "channels": 1 if pooled else channels,
        "block": block,
        "image": len(shape.shape) == 3 or _is_image(height, width),
        "grids": {name: grid_of(name) for name in GRIDS},
        "slices": [{n: grid_of(n, of=part) for n in GRIDS} for part in slices if few],
        "ends": {n: [grid_of(n, end) for end in ("low", "high")] for n in GRIDS} if exact else None,
    }


def _is_image(height, width):
    """Whether two axes are rather those of a gray image than steps and channels.

    >>> _is_image(28, 28), _is_image(8, 8), _is_image(100, 6), _is_image(4, 4)
    (True, True, False, False)
    """
    return min(height, width) >= 6 and max(height, width) <= 3 * min(height, width)


def _sum(grid, square):
    """All channels together: the root of the sum of squares, or the sum."""
    if square:
        return np.sqrt(np.square(grid).sum(axis=2, keepdims=True))
    return grid.sum(axis=2, keepdims=True)


def _blocks(grid, block, square):
    """Averages over blocks of pixels; those at the far edges may be smaller."""
    if block == 1:
        return grid
    grid = np.square(grid) if square else grid
    for axis in (0, 1):
        starts = np.arange(0, grid.shape[axis], block)
        counts = np.minimum(starts + block, grid.shape[axis]) - starts
        sums = np.add.reduceat(grid, starts, axis=axis)
        grid = sums / counts.reshape([-1 if k == axis else 1 for k in range(4)])
    return np.sqrt(grid) if square else grid


FEATURES = 500  # at most on a page
LEAST = 20  # features, however many outputs and slices there are
CELLS = 7500  # features times outputs times slices, about, at most
OUTPUTS = 100  # at most on a page
BINS = 24  # of the histograms
LINES = 12  # features whose evolution is drawn
TIMES = 200  # at most, of the evolution; fewer for many outputs
PAIRS = 60  # interactions, at most
GROUPS = 60  # at most
NAME = 1000  # characters of a name, at most
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
    views = [("all examples", report), *report.slices.items()]
    # The whole and one slice at least, so that there is something to compare.
    views = views[: max(2, CELLS // (LEAST * outputs))]
    limit = min(FEATURES, max(LEAST, CELLS // (outputs * len(views))))
    shown = np.asarray(report.ranking())[:limit]
    return {
        "features": [brief(report.feature_names[i]) for i in shown],
        "switches": [int(report.kinds[i] == "switch") for i in shown],
        "total": len(report.feature_names),
        "outputs": [brief(name) for name in report.output_names[:outputs]],
        "hiddenOutputs": len(report.output_names) - outputs,
        "hiddenSlices": 1 + len(report.slices) - len(views),
        "confidence": _digits(100 * report.confidence),
        "little": LITTLE,
        "views": [
            {
                **_view(label, part, shown, outputs),
                "notes": [] if part is report else list(part.notes),  # those stand above
            }
            for label, part in views
        ],
        "groups": _groups(report, outputs),
        "interactions": _interactions(report, outputs),
        "inputs": [
            input_grids(report, shape, outputs, rounded, [part for _, part in views[1:]])
            for shape in report.inputs
        ],
        "evolution": _evolution(report, outputs),
    }


def brief(name):
    """A name, cut where it is so long that a page of such names would be too large."""
    return name if len(name) <= NAME else name[: NAME - 1] + "…"


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
        "label": brief(str(label)),
        "examples": report.examples,
        "means": rounded(report.feature_mean[shown]),
        "spreads": rounded(report.feature_std[shown]),
        "measures": {
            name: _bars(report.measures[name], shown, first, name not in WITHOUT_INTERVAL)
            for name in MEASURES
            if name in report.measures
        },
        "pooled": {name: _bars(part, shown) for name, part in report.pooled.items()},
        "directions": [[directed(report, i, o) for i in shown] for o in range(outputs)],
        "histograms": [histograms(report.sample.derivatives[:, shown, o]) for o in range(outputs)],
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


def histograms(derivatives):
    """`[low, high, counts]` of each column, the outermost two hundredths in the end bins.

    `None` for a column without a number.
    """
    finite = np.isfinite(derivatives)
    some, columns = finite.any(axis=0), derivatives.shape[1]
    ends = np.full((2, columns), np.nan)
    quantile = np.quantile if finite.all() else np.nanquantile
    known = np.where(finite, derivatives, np.nan)
    if some.any():
        ends[:, some] = quantile(known[:, some], [0.01, 0.99], axis=0)
    width = np.where(ends[1] > ends[0], ends[1] - ends[0], 1.0)
    # What is not finite goes somewhere, and counts nothing: its weight is 0.
    place = np.where(finite, np.clip((known - ends[0]) / width * BINS, 0, BINS - 1), 0).astype(int)
    flat = (place + BINS * np.arange(columns)).ravel()
    counts = np.bincount(flat, finite.ravel(), BINS * columns).astype(int).reshape(columns, BINS)
    rows = zip(rounded(ends[0]), rounded(ends[1]), counts.tolist(), strict=True)
    return [list(row) if there else None for row, there in zip(rows, some, strict=True)]


def _groups(report, outputs):
    if report.groups is None:
        return None
    groups, names = report.groups, report.feature_names
    strength = np.nan_to_num(groups.measures["standardized_rms"].value[:, :outputs])
    # As features are ranked: by the root mean square over the outputs.
    shown = np.argsort(-np.square(strength).sum(axis=1), kind="stable")[:GROUPS]
    return {
        "names": [brief(groups.names[g]) for g in shown],
        "members": [[brief(names[i]) for i in groups.members[g][:12]] for g in shown],
        "sizes": [len(groups.members[g]) for g in shown],
        "total": len(groups.names),
        "measures": {
            name: _bars(part, shown, slice(outputs)) for name, part in groups.measures.items()
        },
    }


def _interactions(report, outputs):
    if report.interactions is None or not len(report.interactions.pairs):
        return None
    names, first = report.feature_names, slice(PAIRS)
    return {
        "pairs": [[brief(names[i]), brief(names[j])] for i, j in report.interactions.pairs[first]],
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
    most = min(count, max(LEAST, min(TIMES, 10 * TIMES // outputs)))
    times = np.unique(np.linspace(0, count - 1, most).round().astype(int))
    shown = np.asarray(report.ranking())[:LINES]
    line = past.measures["standardized_rms"]
    parts = (line.value, line.low, line.high)
    return {
        "epochs": [_epoch(epoch) for epoch in np.asarray(past.epochs)[times].tolist()],
        "examples": [int(n) for n in np.asarray(past.examples)[times]],
        "features": [brief(report.feature_names[i]) for i in shown],
        "lines": [rounded(part[times][:, shown, :outputs].transpose(2, 1, 0)) for part in parts],
    }


def _epoch(epoch):
    """Where in training, to a thousandth of an epoch; of many thousand epochs every digit."""
    return int(epoch) if epoch == int(epoch) else round(epoch, 3)
