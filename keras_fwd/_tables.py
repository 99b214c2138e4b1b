"""Tables of text."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, overload

Row = TypeVar("Row")


class Rows(Sequence[Row]):
    """A sequence of rows that prints as its text does.

    Attributes:
        rows: List of the rows.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows: list[Row] = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __repr__(self) -> str:
        return str(self)


def text_table(columns, rows, wide=()):
    """A table without borders; comma-separated lines where Rich is not installed.

    Args:
        columns: Headings.
        rows: A list of cells for each row.
        wide: Headings of the columns that get the most room.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    try:
        import rich.box
        import rich.console
        import rich.table
    except ImportError:
        return "\n".join(", ".join(row) for row in [list(columns), *cells])
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold", ratio=3 if name in wide else None)
    for row in cells:
        table.add_row(*row)
    # A fixed width and no colors: the same text in a terminal, a file and a notebook.
    console = rich.console.Console(width=120, no_color=True)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _cell(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.1f}" if isinstance(value, float) else "" if value is None else str(value)
