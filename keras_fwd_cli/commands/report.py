"""`keras-fwd report`: which inputs drive a model, from a file of data."""

import argparse
import dataclasses
import pathlib

from keras_fwd_cli import files, loading, voice
from keras_fwd_cli.arguments import Names, natural
from keras_fwd_cli.data import inputs
from keras_fwd_cli.data.columns import Choice
from keras_fwd_cli.data.reading import SUFFIXES, check_data, read_data
from keras_fwd_cli.failures import INTERRUPTED, UsageError, needed, one_line

WRITERS = {
    ".html": lambda report, path, title: report.to_html(
        path, **({"title": title} if title else {})
    ),
    ".json": lambda report, path, title: report.to_json(path),
    ".csv": lambda report, path, title: files.write_frame(report.to_frame(), path),
}
#: What writing takes, asked for before the work is done.
NEEDS = {".html": "jinja2", ".csv": "pandas"}
ENDING = """\
examples:
  keras-fwd report model.keras cars.csv --target mpg
  keras-fwd report model.keras cars.csv --target mpg -o report.html
  keras-fwd report model.keras cars.csv --target mpg --by origin --features weight,year
  keras-fwd report digits.keras digits.npz --max-examples 1000 --json > report.json

data:
  .csv (.tsv, .txt)  UTF-8, the first line names the columns; commas, semicolons or tabs; empty
                     cells, NA and NaN are missing values, whose rows are left out and counted
  .parquet           one value in each cell (needs pyarrow)
  .npz               arrays with the examples on axis 0, named as the model's inputs, or x
A model of one input takes the columns in the order of the file, as many as it has components. One
of several inputs takes the columns of their names (age; or pixel[0], pixel[1], … for a wider one).
"""


def add(commands):
    """Adds the command to the parser."""
    report = commands.add_parser(
        "report",
        help="report which inputs drive a model, how much and how surely",
        description="Statistics of the derivatives of a model's outputs by its inputs over data.",
        epilog=ENDING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.set_defaults(run=run)
    report.add_argument("model", type=pathlib.Path, metavar="MODEL.keras", help="the model")
    report.add_argument(
        "data", type=pathlib.Path, metavar="DATA", help=f"the data: {', '.join(SUFFIXES)}"
    )
    _add_columns(report)
    _add_what(report)
    report.add_argument(
        "-o",
        "--output",
        type=pathlib.Path,
        metavar="FILE",
        help="write .html, .json or .csv, by the ending (default: print a table)",
    )
    report.add_argument("--title", help="title of the page")
    report.add_argument("--json", action="store_true", help="print the report as JSON")
    report.add_argument("--quiet", action="store_true", help="no progress, no notes")
    loading.add_unsafe(report)


def _add_columns(report):
    columns = report.add_argument_group("columns of the data")
    columns.add_argument("--target", metavar="COL", help="what the model predicts: no input")
    columns.add_argument(
        "--columns",
        action=Names,
        metavar="A,B,…",
        help="the columns that feed the model, in this order (default: all but the target)",
    )
    columns.add_argument("--ignore", action=Names, metavar="A,B,…", help="columns to leave out")
    columns.add_argument("--by", metavar="COL", help="a report for each value of this column too")


def _add_what(report):
    what = report.add_argument_group("what is computed")
    what.add_argument("--features", action=Names, metavar="A,B,…", help="only these features")
    what.add_argument("--outputs", action=Names, metavar="A,B,…", help="only these outputs")
    what.add_argument(
        "--discrete",
        action=Names,
        metavar="A,B,…",
        help="columns of numbers that are codes: what switching their value does",
    )
    what.add_argument(
        "--interactions",
        type=natural(0),
        default=0,
        metavar="N",
        help="the N strongest pairs of features too (default: none)",
    )
    what.add_argument(
        "--max-examples", type=natural(1), metavar="N", help="at most N examples, drawn at random"
    )
    what.add_argument(
        "--batch-size",
        type=natural(1),
        metavar="N",
        help="examples at once (default: as many as suits their size)",
    )
    what.add_argument(
        "--seed",
        type=natural(0),
        default=0,
        metavar="N",
        help="of what is drawn at random (default: %(default)s)",
    )


def run(options):
    """Makes the report; returns the exit code."""
    files.check_target(options.output, tuple(WRITERS))
    if options.output is not None and options.output.suffix.lower() in NEEDS:
        suffix = options.output.suffix.lower()
        needed(f"{options.output}: writing {suffix}", NEEDS[suffix])
    check_data(options.data)
    loading.check_archive(options.model)
    model = loading.load_model(options.model, options.unsafe)
    choice = Choice(
        options.target, options.by, tuple(options.columns or ()), tuple(options.ignore or ())
    )
    data = read_data(options.data, inputs.declared(model), choice)
    for sentence in data.notes:
        voice.note(sentence, options)
    report = _report(model, data, options)
    _deliver(report, options)
    if not getattr(report, "interrupted", False):
        return 0
    voice.error(
        f"interrupted: the report holds the {report.examples} examples done by then.", options.json
    )
    return INTERRUPTED


def _report(model, data, options):
    arrays = inputs.pack(model, data.arrays)
    try:
        report = loading.load_package().sensitivity_report(
            model,
            arrays if data.labels is None else (arrays, data.labels),
            feature_names=data.features,
            features=options.features,
            outputs=options.outputs,
            by=None if data.labels is None else "target",
            discrete=options.discrete or (),
            interactions=options.interactions,
            max_examples=options.max_examples,
            seed=options.seed,
            batch_size=options.batch_size,
            progress=voice.on_terminal() and not options.quiet,
        )
    except ValueError as error:  # ours, or from the model's own layers
        raise UsageError(one_line(error)) from error
    return report if data.labels is None else _renamed(report, options.by)


def _renamed(report, by):
    """With slices of the column's name: the labels came as targets, and are called so."""
    slices = {label.replace("target", by, 1): part for label, part in report.slices.items()}
    return dataclasses.replace(report, slices=slices)


def _deliver(report, options):
    if options.output is not None:
        write = WRITERS[options.output.suffix.lower()]
        files.write_aside(options.output, lambda path: write(report, path, options.title))
    if options.json:
        voice.say(report.to_json())
    elif options.output is None:
        voice.say(str(report))
    elif not options.quiet:
        voice.say(f"wrote {options.output}")
