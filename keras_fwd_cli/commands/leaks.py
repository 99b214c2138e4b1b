"""`keras-fwd leaks`: where TensorFlow's derivatives of derivatives of a model break."""

import argparse
import dataclasses
import pathlib

from keras_fwd_cli import loading, voice
from keras_fwd_cli.failures import UsageError, one_line

ENDING = """\
examples:
  keras-fwd leaks model.keras
  keras-fwd leaks model.keras --verify
  keras-fwd leaks model.keras --check --json > leaks.json

The JSON: {"model": PATH, "leaks": [{"layer", "op", "kind", "order", "sealed", "cost", "advice"},
…], "verification": {…}}. "sealed" rows are those that keras_fwd itself differentiates exactly.
"""


def add(commands):
    """Adds the command to the parser."""
    leaks = commands.add_parser(
        "leaks",
        help="list where TensorFlow's derivatives of derivatives of a model break",
        description="Lists the layers and ops of a model at which TensorFlow's own\n"
        "derivatives of derivatives are missing, wrong or slow, and what to do.",
        epilog=ENDING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    leaks.set_defaults(run=run)
    leaks.add_argument("model", type=pathlib.Path, metavar="MODEL.keras", help="the model")
    leaks.add_argument("--check", action="store_true", help="exit with 1 if there are any")
    leaks.add_argument(
        "--verify", action="store_true", help="compare with central differences at random inputs"
    )
    leaks.add_argument("--json", action="store_true", help="print JSON")
    loading.add_unsafe(leaks)


def run(options):
    """Prints the leaks of a model; returns the exit code."""
    model = loading.load_model(options.model, options.unsafe)
    package = loading.load_package()
    try:
        found = package.find_leaks(model, verify=options.verify)
    except ValueError as error:  # from the model's own layers, called with random inputs
        raise UsageError(f"{options.model}: {one_line(error)}") from error
    if options.json:
        rows = [dataclasses.asdict(row) for row in found]
        verification = found.verification
        voice.say_json({"model": str(options.model), "leaks": rows, "verification": verification})
    else:
        voice.say(str(found))
    return 1 if options.check and len(found) else 0
