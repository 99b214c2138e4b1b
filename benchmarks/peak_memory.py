"""Peak memory of a benchmark's sides, each in a process of its own: resident memory (Linux)."""

import argparse
import pathlib
import statistics
import subprocess
import sys

import record


def resident(field):
    """A line of the process' status, in bytes: VmRSS now, VmHWM at its peak."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def forget():
    """From here on the peak is what is reached anew."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def of_sides(script, doc, sides, measure, repeats=1, **sizes):
    """The command line, and the numbers of each side, a dict of lists: medians over the repeats.

    The process of one side ends in here, once it has reported what it measured.

    Args:
        script: Path of the script.
        doc: What it says of itself.
        sides: Names of the sides.
        measure: Function of a side and the options: a list of numbers of bytes.
        repeats: How often each side runs, if the command line does not say it.
        **sizes: Integers that the command line may set, and what they are else.
    """
    parser = record.parser(doc)
    for name, default in {**sizes, "repeats": repeats}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", nargs="*", choices=sides, default=list(sides), metavar="SIDE")
    parser.add_argument("--side", choices=sides, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print("bytes", *measure(options.side, options))
        sys.exit()
    arguments = [part for name in sizes for part in (f"--{name}", str(getattr(options, name)))]
    found = {}
    for side in options.only:
        runs = [_run(script, arguments, side) for _ in range(options.repeats)]
        found[side] = list(map(statistics.median, zip(*runs, strict=True)))
    return options, found


def _run(script, arguments, side):
    """What the process of one side reports."""
    command = [sys.executable, script, *arguments, "--side", side]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [int(number) for number in done.stdout.split("bytes ")[1].split()]
