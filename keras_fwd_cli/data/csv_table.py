"""Reading a CSV file row by row, so that what is wrong has a row, a line and a column."""

import csv
import pathlib

from keras_fwd_cli.data.cells import BadCell, convert
from keras_fwd_cli.data.columns import listed
from keras_fwd_cli.failures import UsageError

SEPARATORS = ",;\t"
CELLS_AT_ONCE = 1 << 18
LONGEST_CELL = 1 << 20


class CsvTable:
    """A file of text with the names of its columns in the first line.

    UTF-8, with or without a byte order mark; separated by commas, semicolons or tabs, whichever
    the first line has most of; cells may be quoted.

    Args:
        path: `pathlib.Path`.

    Attributes:
        where: The name of the file, for messages.
        names: The columns.

    Raises:
        UsageError: No text, nothing in it, or no names in the first line.
    """

    def __init__(self, path):
        self.where = str(path)
        self._path = pathlib.Path(path)
        self._separator = ","
        self._line = 0
        self.names = self._read_names()

    def read(self, blocks, sinks):
        """Reads all rows.

        Args:
            blocks: List of `Block`.
            sinks: For each an object with `append(rows)`.

        Raises:
            UsageError: A row is too short or too long, or a cell is not of its kind.
        """
        rows, lines, first = [], [], 1
        at_once = max(1, CELLS_AT_ONCE // len(self.names))
        records = self._records()
        next(records)
        for line, cells in records:
            if len(cells) != len(self.names):
                # What stands in the rows before comes first: it is what a person meets first.
                self._convert(rows, lines, first, blocks, sinks)
                raise UsageError(self._ragged(first + len(rows), line, cells))
            rows.append(cells)
            lines.append(line)
            if len(rows) == at_once:
                self._convert(rows, lines, first, blocks, sinks)
                rows, lines, first = [], [], first + len(rows)
        self._convert(rows, lines, first, blocks, sinks)

    def _convert(self, rows, lines, first, blocks, sinks):
        import numpy as np

        wrong = []  # the uppermost bad cell of each block
        for block, sink in zip(blocks, sinks, strict=True):
            wide = len(block.columns)
            cells = [row[column] for row in rows for column in block.columns]
            try:
                values = convert(cells, block.kind, block.dtype)
            except BadCell as bad:
                wrong.append((bad.index // wide, block.columns[bad.index % wide], bad.why))
                continue
            with np.errstate(over="ignore"):  # beyond the range of the dtype: infinite
                array = np.array(values, dtype=block.dtype)
            if rows:
                sink.append(array.reshape(len(rows), wide))
        if wrong:
            index, column, why = min(wrong)
            raise UsageError(
                f"{self.where}: row {first + index} (line {lines[index]}), "
                f'column "{self.names[column]}": {why}.'
            )

    def _records(self):
        """Yields (line of the file, cells) for the names and each row; blank lines are passed."""
        csv.field_size_limit(LONGEST_CELL)
        self._line = 1
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, delimiter=self._separator, strict=True)
                for cells in reader:
                    if cells:
                        yield self._line, cells
                    self._line = reader.line_num + 1
        except UnicodeDecodeError as error:
            raise UsageError(self._no_text(error)) from error
        except csv.Error as error:
            raise UsageError(f"{self.where}: line {self._line}: {error}.") from error

    def _read_names(self):
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as file:
                head = file.readline(LONGEST_CELL)
        except UnicodeDecodeError as error:
            raise UsageError(self._no_text(error)) from error
        bare = "".join(head.split('"')[::2])  # what is quoted separates nothing
        self._separator = max(SEPARATORS, key=bare.count)
        _, names = next(self._records(), (1, []))
        names = [name.strip() or f"column {i + 1}" for i, name in enumerate(names)]
        if not any(name.strip() for name in names) or not head.strip():
            raise UsageError(f"{self.where}: is empty, or its first line names no column.")
        if _are_numbers(names):
            raise UsageError(
                f"{self.where}: line 1 must name the columns. Received numbers: {listed(names, 4)}."
            )
        return names

    def _ragged(self, row, line, cells):
        return (
            f"{self.where}: row {row} (line {line}): {len(cells)} cells, and line 1 names "
            f"{len(self.names)} columns."
        )

    def _no_text(self, error):
        with self._path.open("rb") as file:
            head = file.read(4)
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return f"{self.where}: is UTF-16; save it as CSV UTF-8."
        if head[:4] == b"PK\x03\x04":
            return f"{self.where}: is a zip archive or a spreadsheet; save it as CSV UTF-8."
        byte = error.object[error.start]
        return f"{self.where}: line {self._line} or below: no UTF-8 text (byte {byte:#04x})."


def _are_numbers(names):
    """Whether a first line is a row of data; 0, 1, 2, … are names that pandas gives."""
    if names == [str(i) for i in range(len(names))]:
        return False
    try:
        return all(float(name) is not None for name in names)
    except ValueError:
        return False
