"""Text in the cells of a table as numbers, and which cell is none."""

import math
import re

from keras_fwd_cli.data.inputs import FLOAT, INTEGER

MISSING = {"", "na", "n/a", "nan", "null"}  # in lower case; read as NaN


class BadCell(Exception):
    """A cell that is no value of its kind.

    Attributes:
        index: Of the cell within its column.
        why: What is wrong with it, as in `"twelve" is no number`.
    """

    def __init__(self, index, why):
        super().__init__(index, why)
        self.index, self.why = index, why


def convert(cells, kind, dtype):
    """A column of text as a list of values.

    Args:
        cells: List of str.
        kind: `FLOAT`, `INTEGER` or `TEXT`.
        dtype: Of the integers, for their range.

    Raises:
        BadCell: The first cell that cannot be read so.

    Example:

    >>> convert(["1.5", " -2e3 ", ""], "float", "float32")
    [1.5, -2000.0, nan]
    """
    if kind == FLOAT:
        return _floats(cells)
    return _integers(cells, dtype) if kind == INTEGER else list(cells)


def _floats(cells):
    try:
        numbers = list(map(float, cells))
    except ValueError:
        return [_float(cell, i) for i, cell in enumerate(cells)]
    if "_" in "".join(cells):  # Python reads 1_000 as a number; in a table it is a slip
        return [_float(cell, i) for i, cell in enumerate(cells)]
    return numbers


def _float(cell, i):
    text = cell.strip()
    if text.lower() in MISSING:
        return math.nan
    try:
        if "_" not in text:
            return float(text)
    except ValueError:
        pass
    raise BadCell(i, f"{_shown(cell)} is no number{_hint(text)}")


def _integers(cells, dtype):
    import numpy as np

    limits = np.iinfo(dtype)
    numbers = [_integer(cell, i) for i, cell in enumerate(cells)]
    for i, number in enumerate(numbers):
        if not limits.min <= number <= limits.max:
            raise BadCell(i, f"{_shown(cells[i])} is out of the range of {dtype}")
    return numbers


def _integer(cell, i):
    text = cell.strip()
    if re.fullmatch(r"[+-]?[0-9]{1,30}", text):
        return int(text)
    if text.lower() in ("true", "false"):
        return int(text.lower() == "true")
    if text.lower() in MISSING:
        raise BadCell(i, "is empty, and an input of integers has no value for that")
    number = _float(cell, i)
    if not number.is_integer() or abs(number) > 2**53:
        raise BadCell(i, f"{_shown(cell)} is no integer")
    return int(number)


def _shown(cell, limit=40):
    text = " ".join(cell.split()) if cell.strip() else cell
    text = "".join(c if c.isprintable() else "�" for c in text)
    return f'"{text[:limit]}…"' if len(text) > limit else f'"{text}"'


def _hint(text):
    if re.fullmatch(r"[+-]?[\d.]*\d,\d+", text):
        return ": write a decimal point, not a comma"
    return ""
