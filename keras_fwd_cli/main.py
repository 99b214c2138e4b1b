"""The `keras-fwd` command: its parser, its exit codes, and one line for whatever goes wrong."""

import argparse
import importlib.metadata
import os
import sys

from keras_fwd_cli import voice
from keras_fwd_cli.commands import compare, completion, coverage, leaks, report
from keras_fwd_cli.failures import INTERRUPTED, UsageError, reason

DESCRIPTION = "Forward-mode derivatives for Keras 3 on TensorFlow, from the command line."
ENDING = """\
examples:
  keras-fwd report model.keras data.csv --target price -o report.html
  keras-fwd leaks model.keras
  keras-fwd compare before.json after.json
  keras-fwd COMMAND --help

exit codes:
  0    done
  1    the answer is no: `leaks --check` found leaks, `compare --check` found significant changes,
       `coverage` found something amiss
  2    wrong arguments or bad input: one line on standard error says what
  130  interrupted (Ctrl-C); what was done by then is kept, and a line says so

With --json, standard output holds one JSON document, and standard error one JSON object a line:
{"error": "…"} or {"note": "…"}.
"""
PIPE_CLOSED = 141  # 128 + SIGPIPE: the reader of the output has gone, as `head` does


def main(arguments=None):
    """Runs the command.

    Args:
        arguments: List of str; default: those of the process.

    Returns:
        The exit code; see `keras-fwd --help`.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported
    as_json = "--json" in arguments
    voice.speak_plainly()
    try:
        options = parser().parse_args(arguments)
        code = options.run(options)
        voice.flush()
        return code
    except KeyboardInterrupt:
        voice.error("interrupted; nothing was written.", as_json)
        return INTERRUPTED
    except BrokenPipeError:
        voice.close_pipe()
        return PIPE_CLOSED
    except Exception as error:
        if (line := reason(error)) is None:
            raise  # a defect of ours: the traceback is what its report needs
        voice.error(line, as_json)
        return 2


def parser():
    """The parser of all commands."""
    top = _Parser(
        prog="keras-fwd",
        description=DESCRIPTION,
        epilog=ENDING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=_Version, help="print the version and exit")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (report, leaks, compare, coverage):
        command.add(commands)
    completion.add(commands, top)
    return top


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all others."""

    def error(self, message):
        raise UsageError(f"{message} (see {self.prog} --help)")


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings, dest, **arguments):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **arguments)

    def __call__(self, parser, namespace, values, option_string=None):
        print(f"keras-fwd {importlib.metadata.version('keras-fwd')}")
        parser.exit()
