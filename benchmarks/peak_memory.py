"""Peak memory of a benchmark's sides, each in a process of its own: resident memory (Linux)."""

import pathlib
import subprocess
import sys


def resident(field):
    """A line of the process' status, in bytes: VmRSS now, VmHWM at its peak."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def forget():
    """From here on the peak is what is reached anew."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def report(numbers):
    """What the process of one side prints for `of_side`."""
    print("bytes", *numbers)


def of_side(script, side, options):
    """The numbers that a script reports for one side.

    Args:
        script: Its path.
        side: Name of the side.
        options: The `argparse.Namespace` of the script, handed on but for `side` and `repeats`.
    """
    handed = {k: v for k, v in vars(options).items() if k not in ("side", "repeats")}
    arguments = [part for name, value in handed.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, script, *arguments, "--side", side]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [int(number) for number in done.stdout.split("bytes ")[1].split()]
