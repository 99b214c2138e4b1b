"""Reading a Parquet file piece by piece."""

from keras_fwd_cli.failures import UsageError, one_line
from keras_fwd_cli.inputs import FLOAT, INTEGER

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
        try:
            import pyarrow.parquet as parquet
        except ImportError:
            raise UsageError(
                f"{path}: reading Parquet needs pyarrow: pip install 'keras-fwd[report]'."
            ) from None
        self.where = str(path)
        try:
            self._file = parquet.ParquetFile(path)
        except Exception as error:  # pyarrow has errors of its own, and OSError for its own magic
            raise self._damaged(error) from error
        self.names = [str(name) for name in self._file.schema_arrow.names]
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
            for block, sink in zip(blocks, sinks, strict=True):
                columns = [
                    self._column(batch, self.names[i], block.kind, block.dtype, first)
                    for i in block.columns
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

    def _column(self, batch, name, kind, dtype, first):
        import numpy as np
        import pyarrow as pa

        column = batch.column(batch.schema.names.index(name))
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        number = pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
        number = number or pa.types.is_boolean(column.type) or pa.types.is_null(column.type)
        number = number or pa.types.is_decimal(column.type)
        if kind in (FLOAT, INTEGER):
            if not number:
                raise UsageError(f'{self.where}: column "{name}": {column.type} is no number.')
            values = column.cast(pa.float64(), safe=False) if kind == FLOAT else column
            if kind == INTEGER:
                return self._integers(column, name, dtype, first)
            return values.to_numpy(zero_copy_only=False)
        if not (text or number):
            raise UsageError(f'{self.where}: column "{name}": {column.type} is no text.')
        cells = ["" if cell is None else str(cell) for cell in column.to_pylist()]
        return np.array(cells, dtype=object)

    def _integers(self, column, name, dtype, first):
        import numpy as np

        limits = np.iinfo(dtype)
        for i, cell in enumerate(column.to_pylist()):
            whole = cell is not None and float(cell).is_integer()
            if not whole or not limits.min <= cell <= limits.max:
                shown = "an empty cell" if cell is None else cell
                raise UsageError(
                    f'{self.where}: row {first + i}, column "{name}": {shown} is no {dtype}.'
                )
        return np.array([int(cell) for cell in column.to_pylist()], dtype=dtype)

    def _damaged(self, error):
        return UsageError(
            f"{self.where}: damaged, or no Parquet file: {one_line(error, 120).rstrip('.')}."
        )
