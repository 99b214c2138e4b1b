"""`docs/benchmarks.md` and the tables of `docs/scaling.md`, from the records.

python benchmarks/page.py
"""

import json
import pathlib

import record
import suite

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "results"
DOCS = HERE.parent / "docs"
PAGE, SCALING = DOCS / "benchmarks.md", DOCS / "scaling.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

HEAD = """\
# Benchmarks

Written by `benchmarks/page.py` from the records in `benchmarks/results`: change those by running
them again, `make bench`, not this page. Each figure is a ratio against a peer, or against a forward
pass or a gradient, in the same run: both sides by turns, medians. Seconds on one machine say little
about another. `benchmarks/README.md` says how to run them, and why these.
"""


def records():
    """All that are there, in the order of the suite."""
    paths = {name: RESULTS / f"{name}.json" for name in suite.BENCHMARKS}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def table(headings, rows, numbers=()):
    """A table in Markdown; the columns in `numbers` are set to the right."""
    rules = ["--:" if i in numbers else "---" for i in range(len(headings))]
    lines = [headings, rules, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def shown(found):
    """The tables of a record that are for readers."""
    return [figures(content) for content in found["tables"] if content.get("shown", True)]


def figures(content):
    """One table of a record."""
    headings = [column["name"] for column in content["columns"]]
    formats = [column["format"] for column in content["columns"]]
    rows = [
        [record.text(cell, form) for cell, form in zip(row, formats, strict=True)]
        for row in content["rows"]
    ]
    numbers = {i for i, form in enumerate(formats) if form}
    return f"{content['title']}:\n\n" + table(headings, rows, numbers)


def origin(found):
    """By which command, when, with which versions, on which machine."""
    machine = found["machine"]
    processor = f"{machine['cpu']}, {machine['cores']} cores"
    where = ", ".join([processor, *machine.get("gpus", [])])
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    when = found.get("source", f"measured {found['date']}")
    return f"`{found['command']}`, {when}; {versions}; {where}.\n"


def verdict(goal):
    """What, the goal, what was measured, whether it is met."""
    bound = f"{goal['sense']} {record.text(goal['bound'], goal['format'])}"
    said = {True: "met", False: "**missed**", None: "not measured"}[goal["met"]]
    return [goal["what"], bound, record.text(goal["value"], goal["format"]), said]


def section(name, found):
    row = suite.BENCHMARKS[name]
    parts = [f"## {row.title}\n", f"{row.note}\n"]
    if found["goals"]:
        rows = [verdict(goal) for goal in found["goals"]]
        parts.append(table(["", "goal", "measured", ""], rows, {2}))
    if name != "scaling":
        parts += shown(found)
    return "\n".join([*parts, origin(found)])


def summary(all_records):
    """How many goals are met, and which are not."""
    goals = [(name, goal) for name, found in all_records.items() for goal in found["goals"]]
    known = [(name, goal) for name, goal in goals if goal["met"] is not None]
    missed = [(name, goal) for name, goal in known if not goal["met"]]
    said = f"Of {len(known)} goals {len(known) - len(missed)} are met. "
    said += "Missed:\n" if missed else "None is missed.\n"
    rows = [[suite.BENCHMARKS[name].title, *verdict(goal)[:3]] for name, goal in missed]
    return said + ("\n" + table(["benchmark", "goal", "", "measured"], rows, {3}) if rows else "")


def text():
    """What `docs/benchmarks.md` must say."""
    found = records()
    return "\n".join([HEAD, summary(found), *(section(n, r) for n, r in found.items())])


def scaling_text(page):
    """What `docs/scaling.md` must say: its own words, and the tables between two marks."""
    found = records()["scaling"]
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    parts = [*shown(found), origin(found)]
    return before + BEGIN + "\n\n" + "\n".join(parts) + "\n" + END + after


def write():
    """Both pages, and the figures of the second."""
    PAGE.write_text(text())
    if "scaling" in records():
        import scaling_plot  # here, so that the tables need no Matplotlib

        SCALING.write_text(scaling_text(SCALING.read_text()))
        scaling_plot.write(records()["scaling"], DOCS / "pictures")


if __name__ == "__main__":
    write()
