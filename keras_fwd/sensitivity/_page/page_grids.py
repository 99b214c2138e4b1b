"""Sensitivities over the components of an image or a sequence, as grids for the page."""

import math

import numpy as np

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
