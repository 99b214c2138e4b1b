"""`keras-fwd compare`: what changed from one sensitivity report to another."""

import argparse
import json
import pathlib

from keras_fwd_cli import files, loading, voice
from keras_fwd_cli.arguments import Names
from keras_fwd_cli.failures import UsageError, one_line

WRITERS = {
    ".json": lambda comparison, path: path.write_text(comparison.to_json(), encoding="utf-8"),
    ".csv": lambda comparison, path: files.write_frame(comparison.to_frame(), path),
}
ENDING = """\
examples:
  keras-fwd report old.keras cars.csv --target mpg -o old.json
  keras-fwd report new.keras cars.csv --target mpg -o new.json
  keras-fwd compare old.json new.json
  keras-fwd compare old.json new.json --check --json > changes.json
"""


def add(commands):
    """Adds the command to the parser."""
    compare = commands.add_parser(
        "compare",
        help="say what changed from one report to another, and how surely",
        description="Compares two reports that `keras-fwd report -o FILE.json` wrote.",
        epilog=ENDING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.set_defaults(run=run)
    compare.add_argument("before", type=pathlib.Path, metavar="A", help="the first report, .json")
    compare.add_argument("after", type=pathlib.Path, metavar="B", help="the second report, .json")
    compare.add_argument(
        "--measure",
        action=Names,
        metavar="M,…",
        help="measures to compare; the first is shown, and decides with --check "
        "(default: standardized_rms)",
    )
    compare.add_argument(
        "-o",
        "--output",
        type=pathlib.Path,
        metavar="FILE",
        help="write .json or .csv, by the ending (default: print a table)",
    )
    compare.add_argument(
        "--check",
        action="store_true",
        help="exit with 1 if a sensitivity changed significantly, or a feature or output is in one "
        "report only",
    )
    compare.add_argument("--json", action="store_true", help="print JSON")
    compare.add_argument("--quiet", action="store_true", help="do not say what was written")


def run(options):
    """Compares two reports; returns the exit code."""
    files.check_target(options.output, tuple(WRITERS))
    texts = [_read(path) for path in (options.before, options.after)]
    report_class = loading.load_package().SensitivityReport
    before, after = (
        _report(report_class, path, text)
        for path, text in zip((options.before, options.after), texts, strict=True)
    )
    chosen = {} if options.measure is None else {"measure": options.measure}
    comparison = before.compare(after, **chosen)
    if options.output is not None:
        write = WRITERS[options.output.suffix.lower()]
        files.write_aside(options.output, lambda path: write(comparison, path))
    if options.json:
        voice.say(comparison.to_json())
    elif options.output is None:
        voice.say(str(comparison))
    elif not options.quiet:
        voice.say(f"wrote {options.output}")
    return 1 if options.check and _differ(comparison) else 0


def _differ(comparison):
    shown = next(iter(comparison.changes.values()))
    alone = [*comparison.only_before, *comparison.only_after]  # names of features, of outputs
    return bool(shown.significant.any()) or any(map(len, alone))


def _read(path):
    """The text of a file that holds JSON, whichever."""
    files.check_source(path, "a report, as `keras-fwd report -o FILE.json` writes it")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if not isinstance(json.loads(text), dict):
            raise UsageError(f"{path}: no report: the JSON is no object.")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: no UTF-8 text, so no report in JSON.") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UsageError(f"{path}: no JSON: {where}: {error.msg}.") from error
    except RecursionError as error:
        raise UsageError(f"{path}: no report: nested too deeply.") from error
    return text


def _report(report_class, path, text):
    try:
        return report_class.from_json(text)
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path}: {one_line(error)}") from error
