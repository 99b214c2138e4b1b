"""Reading a Parquet file piece by piece."""

from keras_fwd_cli.data.inputs import FLOAT, INTEGER, TEXT
from keras_fwd_cli.failures import UsageError, needed, one_line

CELLS_AT_ONCE = 1 << 20


class ParquetTable:
    """A Parquet file with one value in each cell.

    Args:
        path: `pathlib.Path`.

    Attributes:
        where: The name of the file, for messages.
        names: The columns.

    Raises:
        UsageError: No Parquet file, or pyarrow is not installed.
    """

    def __init__(self, path):
        parquet = needed(f"{path}: reading Parquet", "pyarrow.parquet")
        self.where = str(path)
        try:
            self._file = parquet.ParquetFile(path)
        except Exception as error:  # pyarrow has errors of its own, and OSError for its own magic
            raise self._damaged(error) from error
        names = [str(name) for name in self._file.schema_arrow.names]
        # The row labels of a pandas data frame are no data.
        self.names = [name for name in names if not name.startswith("__index_level_")]
        if not self.names:
            raise UsageError(f"{self.where}: has no columns.")

    def read(self, blocks, sinks):
        """Reads all rows.

        Args:
            blocks: List of `Block`.
            sinks: For each an object with `append(rows)`.

        Raises:
            UsageError: The file is damaged, or a column is not of its kind.
        """
        import numpy as np

        names = [self.names[i] for i in sorted({i for block in blocks for i in block.columns})]
        first = 1
        for batch in self._batches(names):
            place = {name: i for i, name in enumerate(batch.schema.names)}
            for block, sink in zip(blocks, sinks, strict=True):
                columns = [
                    self._column(batch.column(place[name]), name, block, first)
                    for name in (self.names[i] for i in block.columns)
                ]
                if batch.num_rows:
                    sink.append(np.stack(columns, axis=1))
            first += batch.num_rows

    def _batches(self, names):
        rows = max(1, CELLS_AT_ONCE // max(1, len(names)))
        try:
            yield from self._file.iter_batches(batch_size=rows, columns=names)
        except UsageError:
            raise
        except Exception as error:
            raise self._damaged(error) from error

    def _column(self, column, name, block, first):
        import numpy as np
        import pyarrow as pa

        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if not (_is_number(column.type) or (block.kind == TEXT and text)):
            kind = "text" if block.kind == TEXT else "number"
            raise UsageError(f'{self.where}: column "{name}": {column.type} is no {kind}.')
        if block.kind == FLOAT:
            return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        if block.kind == INTEGER:
            return self._integers(column.to_pylist(), name, block.dtype, first)
        cells = ["" if cell is None else str(cell) for cell in column.to_pylist()]
        return np.array(cells, dtype=object)

    def _integers(self, cells, name, dtype, first):
        import numpy as np

        limits = np.iinfo(dtype)
        for i, cell in enumerate(cells):
            if cell is None or cell % 1 != 0 or not limits.min <= cell <= limits.max:
                shown = "an empty cell" if cell is None else cell
                raise UsageError(
                    f'{self.where}: row {first + i}, column "{name}": {shown} is no {dtype}.'
                )
        return np.array([int(cell) for cell in cells], dtype=dtype)

    def _damaged(self, error):
        return UsageError(
            f"{self.where}: damaged, or no Parquet file: {one_line(error, 120).rstrip('.')}."
        )


def _is_number(kind):
    import pyarrow as pa

    tests = ("is_floating", "is_integer", "is_boolean", "is_null", "is_decimal")
    return any(getattr(pa.types, test)(kind) for test in tests)
