"""The data of a report, read from a file by its ending."""

import contextlib
import dataclasses
import typing

from keras_fwd_cli import files
from keras_fwd_cli.data.arrays import GrowingArray
from keras_fwd_cli.data.columns import listed, plan
from keras_fwd_cli.data.csv_table import CsvTable
from keras_fwd_cli.data.npz_arrays import read_npz
from keras_fwd_cli.data.parquet_table import ParquetTable
from keras_fwd_cli.failures import UsageError

TABLES = {".csv": CsvTable, ".tsv": CsvTable, ".txt": CsvTable, ".parquet": ParquetTable}
SUFFIXES = (*TABLES, ".npz")


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """What a file holds for a model.

    Attributes:
        arrays: Dict from the names of the model's inputs to arrays, examples on axis 0.
        labels: Values to slice by, `[examples]`, or None.
        features: Names of the columns of a single input of numbers, or None.
        notes: Sentences about what was passed over.
    """

    arrays: dict[str, typing.Any]
    labels: typing.Any
    features: tuple[str, ...] | None
    notes: tuple[str, ...]


def check_data(path):
    """Whether there is such a file, of a kind that can be read.

    Raises:
        UsageError: There is not.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: data must be one of {', '.join(SUFFIXES)}.")
    files.check_source(path, "a file of data")


def read_data(path, inputs, choice):
    """Reads what a model needs.

    Args:
        path: `pathlib.Path`.
        inputs: List of `Input`.
        choice: `Choice`.

    Returns:
        `Data`.

    Raises:
        UsageError: Something is wrong with the file, or it does not fit the model.

    Cost: Large columns of numbers go through a temporary file; text, and all of an `.npz` file's
    arrays that are needed, stay in memory.
    """
    check_data(path)
    if path.suffix.lower() == ".npz":
        arrays, labels, ignored = read_npz(path, inputs, choice)
        features, what = None, "arrays"
    else:
        table = TABLES[path.suffix.lower()](path)
        chosen = plan(table.names, inputs, choice, table.where)
        sinks = [GrowingArray(block.shape, block.dtype) for block in chosen.blocks]
        with contextlib.ExitStack() as stack:
            for sink in sinks:
                stack.callback(sink.close)
            table.read(chosen.blocks, sinks)
            arrays = {b.key: s.finish() for b, s in zip(chosen.blocks, sinks, strict=True)}
        labels = arrays.pop("") if choice.by is not None else None
        features, ignored, what = chosen.features, chosen.ignored, "columns"
    if not len(next(iter(arrays.values()))):
        raise UsageError(f"{path}: holds no examples.")
    notes = [f"{path}: {what} that the model does not read: {listed(ignored)}."] if ignored else []
    return Data(arrays, None if labels is None else _labels(labels), features, tuple(notes))


def _labels(values):
    """Numbers where all of them are, else text."""
    import numpy as np

    values = values.reshape(-1)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if values.dtype.kind not in "OU":
        return values
    try:
        numbers = values.astype("float64")
    except ValueError:
        return values.astype(str)
    whole = np.isfinite(numbers) & (numbers == np.round(numbers)) & (abs(numbers) < 2**53)
    return numbers.astype("int64") if whole.all() else numbers
