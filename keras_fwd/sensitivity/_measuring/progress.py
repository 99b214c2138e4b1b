"""A progress bar over the examples of a report, by Rich, on the terminal's error stream."""

import contextlib
import sys


@contextlib.contextmanager
def bar(call, show, total):
    """Gives a function that takes how many more examples are done.

    Args:
        call: Name of the public call, which stands before the bar.
        show: True, False, or `"auto"`: if the error stream is a terminal.
        total: How many examples there will be, or None.
    """
    if show == "auto":
        show = sys.stderr.isatty()
    if not show:
        yield lambda count: None
        return
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )
    except ImportError:  # the bar is a comfort: without the extra there is none
        yield lambda count: None
        return
    columns = (TextColumn(call), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(call, total=total)
        yield lambda count: progress.advance(task, count)
