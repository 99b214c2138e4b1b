"""What a benchmark found: printed as tables, and written as JSON for `docs/benchmarks.md`.

Every script has `--json FILE` from `parser` and ends with `Record.finish`. A record holds tables of
numbers, each column with the format in which it is shown, and goals with what was measured; beside
them the command, the date, the versions, the processor. No names of machines and no paths.
"""

import argparse
import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import subprocess
import sys

PACKAGES = ("keras-fwd", "tensorflow", "keras", "numpy", "scipy")


def parser(doc):
    """The command line of a script that says of itself `doc`."""
    made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    made.add_argument("--json", metavar="FILE", help="write what is found here as well")
    made.add_argument("--quick", action="store_true", help="sizes too small for goals: judge none")
    return made


class Table:
    """Rows of numbers and words.

    Args:
        title: What it shows.
        columns: Headings, or pairs of a heading and the format of its numbers.
        shown: Whether it is printed and on the page, or only in the record.
    """

    def __init__(self, title, *columns, shown=True):
        self.title, self.shown, self.rows = title, shown, []
        self.columns = [(c, "") if isinstance(c, str) else c for c in columns]

    def add(self, *cells):
        """A row; None for what was not measured."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(self.columns)} cells make a row. Received: {cells}")
        self.rows.append([plain(cell) for cell in cells])
        print("  ".join(self.texts(self.rows[-1])), flush=True)  # the next may take a while

    def texts(self, row):
        return [text(cell, form) for cell, (_, form) in zip(row, self.columns, strict=True)]

    def content(self):
        columns = [{"name": name, "format": form} for name, form in self.columns]
        found = {"title": self.title, "columns": columns, "rows": self.rows}
        return found if self.shown else {**found, "shown": False}


def plain(value):
    """A number of NumPy as one of Python; None for one that is not finite."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text(cell, form):
    """What a table shows of a cell: nothing of what was not measured."""
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else format(cell, form)


class Record:
    """All that one script finds."""

    def __init__(self):
        self._tables, self._goals, self._peers = [], [], {}

    def table(self, title, *columns, shown=True):
        """A new `Table`."""
        self._tables.append(Table(title, *columns, shown=shown))
        return self._tables[-1]

    def goal(self, what, value, *, at_most=None, at_least=None, form=".2f"):
        """What was hoped for, and what came out: None if not measured, infinite if not reached."""
        sense, bound = ("at most", at_most) if at_least is None else ("at least", at_least)
        met = None
        if value is not None and not math.isnan(value):
            met = bool(value <= bound if sense == "at most" else value >= bound)
            value = "not reached" if math.isinf(value) else value
        value = plain(value)
        found = {"what": what, "sense": sense, "bound": plain(bound), "value": value}
        self._goals.append({**found, "format": form, "met": met})

    def peer(self, python, *packages):
        """Note the versions of a peer, which has an interpreter of its own, or None."""
        if python:
            code = f"import importlib.metadata as m; print(*map(m.version, {packages!r}))"
            done = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, text=True)
            self._peers.update(zip(packages, done.stdout.split(), strict=False))

    def content(self):
        """The record as JSON has it."""
        return {
            "command": command(sys.argv),
            "date": datetime.date.today().isoformat(),
            "versions": versions() | self._peers,
            "machine": machine(),
            "goals": self._goals,
            "tables": [table.content() for table in self._tables],
        }

    def finish(self, options, width=110):
        """Print all tables and goals; write them where `--json` says."""
        if options.quick:
            self._goals = [{**goal, "met": None} for goal in self._goals]
        import rich.console
        import rich.table

        console = rich.console.Console(width=width)
        for table in (table for table in self._tables if table.shown):
            shown = rich.table.Table(title=table.title)
            for name, form in table.columns:
                shown.add_column(name, justify="right" if form else "left")
            for row in table.rows:
                shown.add_row(*table.texts(row))
            console.print(shown)
        for goal in self._goals:
            print(sentence(goal))
        if options.json:
            write(pathlib.Path(options.json), {"quick": options.quick, **self.content()})


def sentence(goal):
    """A goal in words."""
    value, bound = (text(goal[key], goal["format"]) for key in ("value", "bound"))
    verdict = {True: "met", False: "missed", None: "not judged"}[goal["met"]]
    return f"{goal['what']}: {value or 'nothing'}, goal {goal['sense']} {bound}: {verdict}"


def write(path, content):
    """A record in its file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def command(arguments):
    """The command line, without directories and without where the record goes."""
    words = iter(arguments[1:])
    kept = [f"benchmarks/{pathlib.Path(arguments[0]).name}"]
    for word in words:
        if word == "--json":
            next(words, None)
        else:
            kept.append("PYTHON" if word.endswith("/bin/python") else word)
    return "python " + " ".join(f'"{word}"' if " " in word else word for word in kept)


def versions():
    """Those of Python and of what is measured."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # a peer's environment has not all of them
    return found


def machine():
    """The processor and how many of its cores this process may use; and GPUs."""
    model = platform.processor() or platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    found = {"cpu": model, "cores": len(os.sched_getaffinity(0))}
    tf = sys.modules.get("tensorflow")
    if tf is not None and (gpus := tf.config.list_physical_devices("GPU")):
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        found["gpus"] = [detail.get("device_name", "GPU") for detail in details]
    return found
