"""The `keras-fwd` command: what the conformance suite covers, written down."""

import argparse
import difflib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ORDER = "Layers|Activations|Losses|keras.ops|TensorFlow ops|Models|Applications".split("|")
MODES = {"graph": "graph", "eager": "eager", "xla": "XLA"}
KINDS = ["exact", "LeakError", "wrong", "error"]

INTRODUCTION = """\
# Coverage

Written by `keras-fwd coverage` from what the suite in `tests/conformance/` finds, with TensorFlow
{tensorflow} and Keras {keras}; do not edit.

* **exact**: agrees with central differences in float64, and the adjoint gap is zero.
* **LeakError**: refused, with the name of the op at fault.
* **wrong**: a number that is not the derivative. **error**: fails in some other way.
* **listed**: there is nothing to differentiate, for the reason given. **not covered**: the suite
  does not know that name yet.

*By*: what is differentiated by, inputs or weights. *Run*: the highest order in each mode. Order 1
is `jvp` and `linearize`; order 2 is `jvp` of `jvp` and the gradient of `⟨w, J u⟩`; order 3 is `jvp`
of `jvp` of `jvp`.
"""


def main(arguments=None):
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="keras-fwd", description="Forward-mode derivatives for Keras 3 on TensorFlow."
    )
    version = f"keras-fwd {importlib.metadata.version('keras-fwd')}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_coverage(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except _UsageError as error:
        print(f"keras-fwd: {error}", file=sys.stderr)
        return 2


class _UsageError(Exception):
    """What is missing, for the user to read."""


def _add_coverage(commands):
    coverage = commands.add_parser(
        "coverage",
        help="run the conformance suite and write what it covers",
        description=(
            "Runs the conformance suite of a checkout (twenty minutes on two cores) and writes, "
            "for each layer, loss and op, whether its derivatives are exact. Exit code: 0 if all "
            "is as the suite expects and, with --check, the file says so; 1 if not; 2 if something "
            "is missing."
        ),
    )
    coverage.set_defaults(run=_coverage)
    coverage.add_argument(
        "--suite",
        type=pathlib.Path,
        default=pathlib.Path("tests/conformance"),
        help="folder of the suite (default: %(default)s)",
    )
    coverage.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("docs/coverage.md"),
        help="file to write, or to compare with (default: %(default)s)",
    )
    coverage.add_argument(
        "--check", action="store_true", help="write nothing; compare the file with the suite"
    )
    coverage.add_argument(
        "--results",
        type=pathlib.Path,
        help="folder with the results of a run with CONFORMANCE_RESULTS=FOLDER, instead of a run",
    )
    coverage.add_argument("--jobs", default="2", help="processes of the run (default: %(default)s)")


def _coverage(options):
    if options.results:
        failed, text = 0, _page(_read(options.results))
    else:
        with tempfile.TemporaryDirectory() as folder:
            failed = _run_suite(options.suite, folder, options.jobs)
            text = _page(_read(pathlib.Path(folder)))
    if options.check:
        return 1 if failed or not _same(options.output, text) else 0
    if not options.output.parent.is_dir():
        raise _UsageError(f"no folder {options.output.parent} to write {options.output.name} to.")
    options.output.write_text(text, encoding="utf-8")
    print(f"wrote {options.output}")
    return 1 if failed else 0


def _run_suite(suite, folder, jobs):
    """Whether a test failed; the results are in the folder."""
    if not (suite / "test_conformance.py").is_file():
        raise _UsageError(
            f"no conformance suite in {suite}: it comes with a checkout of the repository, not "
            "with the installed package. Run this in the root of a checkout, or give --suite."
        )
    command = [sys.executable, "-m", "pytest", "-q", "-m", "conformance", str(suite)]
    if _installed("xdist"):
        command += ["-n", jobs]
    code = subprocess.run(command, env={**os.environ, "CONFORMANCE_RESULTS": folder}).returncode
    if code not in (0, 1):
        raise _UsageError(f"the suite did not run: pytest ended with exit code {code}.")
    return code


def _installed(module):
    return importlib.util.find_spec(module) is not None


def _read(folder):
    """The contents of the result files, by family in the order of the tables."""
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not files:
        raise _UsageError(
            f"no results in {folder}: run the conformance tests with CONFORMANCE_RESULTS={folder}."
        )
    families = {}
    for path in files:
        contents = json.loads(path.read_text(encoding="utf-8"))
        family = families.setdefault(contents.pop("family"), {"rows": []})
        family["rows"] += contents.pop("rows", [])
        family |= contents
    place = {name: i for i, name in enumerate(ORDER)}
    return dict(sorted(families.items(), key=lambda item: place.get(item[0], len(place))))


def _page(families):
    versions = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras")}
    lines = [INTRODUCTION.format(**versions), *_summary(families)]
    for name, family in families.items():
        lines += ["", f"## {name}", ""]
        lines += ["| name | by | order 1 | order 2 | order 3 | run | note |", "|---|" + "---|" * 6]
        lines += [_line(row) for row in family["rows"]]
        lines += [
            f"| {name} | | **not covered** | | | | |" for name in family.get("not covered", [])
        ]
        reasons = {}
        for entry in family.get("listed", []):
            reasons.setdefault(entry["reason"], []).append(f"`{entry['name']}`")
        lines += ["", "Listed:", ""] if reasons else []
        lines += [f"* {reason}: {', '.join(sorted(names))}" for reason, names in reasons.items()]
    return "\n".join(lines) + "\n"


def _summary(families):
    columns = [*KINDS, "listed", "not covered"]
    lines = ["| family | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    totals = [0] * len(columns)
    for name, family in families.items():
        kinds = [_kind(row) for row in family["rows"]]
        counts = [kinds.count(kind) for kind in KINDS]
        counts += [len(family.get(key, [])) for key in ("listed", "not covered")]
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        lines.append(f"| {name} | " + " | ".join(map(str, counts)) + " |")
    return [*lines, "| **all** | " + " | ".join(map(str, totals)) + " |"]


def _kind(row):
    """The worst that any mode and order shows."""
    found = {
        outcome.partition(":")[0]
        for orders in row["outcomes"].values()
        for outcome in orders.values()
    }
    return max(found, key=KINDS.index, default="error")


def _line(row):
    outcomes = row["outcomes"]
    cells = [_cell({m: outcomes[m].get(k) for m in MODES if m in outcomes}) for k in "123"]
    run = ", ".join(f"{MODES[m]} {max(outcomes[m])}" for m in MODES if m in outcomes)
    return (
        "| "
        + " | ".join([row["name"].replace("|", "\\|"), row["wrt"], *cells, run, row["note"]])
        + " |"
    )


def _cell(by_mode):
    """One outcome if all modes agree, else each with its modes."""
    modes = {}
    for mode, outcome in by_mode.items():
        if outcome:
            modes.setdefault(_short(outcome), []).append(MODES[mode])
    if len(modes) == 1:
        return next(iter(modes))
    return "; ".join(f"{outcome} ({', '.join(names)})" for outcome, names in modes.items()) or "–"


def _short(outcome):
    """Without what differs from run to run."""
    kind, _, rest = outcome.partition(": ")
    if kind == "LeakError":
        return f"LeakError `{rest}`"
    if kind == "error":
        return f"**error** {rest.partition(':')[0]}"
    return f"**{kind}**" if kind == "wrong" else kind


def _same(path, text):
    """Whether the file says what the suite says; prints the first differences."""
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    lines = difflib.unified_diff(
        before.splitlines(), text.splitlines(), str(path), "what the suite says", lineterm="", n=0
    )
    lines = list(lines)
    if lines:
        shown = [*lines[:40], f"… {len(lines) - 40} more lines"] if len(lines) > 40 else lines
        print("\n".join(shown))
        print(f"{path} is not what the suite says: run `keras-fwd coverage`.", file=sys.stderr)
    return not lines
