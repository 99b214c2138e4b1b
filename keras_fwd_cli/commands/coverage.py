"""`keras-fwd coverage`: what the conformance suite covers, written down."""

import argparse
import difflib
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from keras_fwd_cli import files, voice
from keras_fwd_cli.commands.coverage_page import ORDER, page
from keras_fwd_cli.failures import UsageError

ENDING = """\
examples:
  keras-fwd coverage
  keras-fwd coverage --check --jobs 8
"""


def add(commands):
    """Adds the command to the parser."""
    coverage = commands.add_parser(
        "coverage",
        help="run the conformance suite and write what it covers",
        description=(
            "Runs the conformance suite of a checkout (twenty minutes on two cores) and writes,\n"
            "for each layer, loss and op, whether its derivatives are exact. Exit code 1: a test\n"
            "failed or, with --check, the file does not say what the suite says."
        ),
        epilog=ENDING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    coverage.set_defaults(run=run)
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
    coverage.add_argument(
        "--share",
        action="store_true",
        help="with --check: run a share of the cases if nothing they depend on has changed",
    )
    coverage.add_argument("--jobs", default="2", help="processes of the run (default: %(default)s)")


def run(options):
    """Runs the suite, or reads its results, and writes or checks the page; the exit code."""
    if options.share and not options.check:
        raise UsageError("--share needs --check: a share of the cases cannot write the file.")
    if not options.check:
        files.check_target(options.output, (options.output.suffix.lower(),))
    if options.results:
        failed, part, text = 0, _is_share(options.results), page(_read(options.results))
    else:
        with tempfile.TemporaryDirectory() as folder:
            failed = _run_suite(options.suite, folder, options.jobs, options.share)
            part, text = _is_share(pathlib.Path(folder)), page(_read(pathlib.Path(folder)))
    if options.check:
        same = _holds if part else _same
        return 1 if not same(options.output, text) or failed else 0
    if part:
        raise UsageError(f"{options.results} has the results of a share of the cases.")
    files.write_aside(options.output, lambda path: path.write_text(text, encoding="utf-8"))
    voice.say(f"wrote {options.output}")
    return 1 if failed else 0


def _run_suite(suite, folder, jobs, share):
    """Whether a test failed; the results are in the folder."""
    if not (suite / "test_conformance.py").is_file():
        raise UsageError(
            f"no conformance suite in {suite}: it comes with a checkout of the repository, not "
            "with the installed package. Run this in the root of a checkout, or give --suite."
        )
    command = [sys.executable, "-m", "pytest", "-q", "-m", "conformance", str(suite)]
    if _installed("xdist"):
        command += ["-n", jobs]
    environment = {**os.environ, "CONFORMANCE_RESULTS": folder}
    if not share:  # see tests/support/records.py
        environment["WHOLE"] = "1"
    code = subprocess.run(command, env=environment).returncode
    if code not in (0, 1):
        raise UsageError(f"the suite did not run: pytest ended with exit code {code}.")
    return code


def _installed(module):
    return importlib.util.find_spec(module) is not None


def _read(folder):
    """The contents of the result files, by family in the order of the tables."""
    results = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not results:
        raise UsageError(
            f"no results in {folder}: run the conformance tests with CONFORMANCE_RESULTS={folder}."
        )
    families = {}
    for path in results:
        try:
            contents = json.loads(path.read_text(encoding="utf-8"))
            family = families.setdefault(contents.pop("family"), {"rows": []})
        except (ValueError, KeyError, AttributeError) as error:
            raise UsageError(f"{path}: no results of the conformance suite: {error}.") from error
        family["rows"] += contents.pop("rows", [])
        family |= contents
    place = {name: i for i, name in enumerate(ORDER)}
    return dict(sorted(families.items(), key=lambda item: place.get(item[0], len(place))))


def _is_share(folder):
    """Whether the results are of a part of the cases: the suite says so beside them."""
    return (folder / "share").is_file()


def _holds(path, text):
    """Whether the file has each row of a share; prints those that it has not."""
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    tables = text[text.index("\n## ") :]  # without the counts, which are of the whole
    known = set(before.splitlines())
    missing = [line for line in tables.splitlines() if line not in known]
    if missing:
        print("\n".join(f"+{line}" for line in missing))
        print(f"{path} is not what the suite says: run `keras-fwd coverage`.", file=sys.stderr)
    return not missing


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
