"""`keras-fwd completion`: the script with which a shell completes the command."""

import argparse
import pathlib

from keras_fwd_cli import voice
from keras_fwd_cli.failures import needed

SHELLS = ("bash", "zsh", "fish", "tcsh")
ENDING = """\
examples:
  keras-fwd completion bash > ~/.local/share/bash-completion/completions/keras-fwd
  keras-fwd completion zsh > ~/.zfunc/_keras-fwd       (in .zshrc: fpath+=~/.zfunc; compinit)
  keras-fwd completion fish > ~/.config/fish/completions/keras-fwd.fish
  keras-fwd completion tcsh > ~/.keras-fwd.tcsh        (in .tcshrc: source ~/.keras-fwd.tcsh)
"""


def add(commands, parser):
    """Adds the command to the parser of all commands, which it later reads."""
    completion = commands.add_parser(
        "completion",
        help="print the script with which a shell completes this command",
        description="Prints a script for your shell; where it goes, see the examples.",
        epilog=ENDING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    completion.set_defaults(run=run, parser=parser)
    completion.add_argument("shell", choices=SHELLS, help="the shell")


def run(options):
    """Prints the script; returns the exit code."""
    shtab = needed("completion", "shtab")
    for action in _actions(options.parser):
        if action.type is pathlib.Path:
            action.complete = shtab.FILE
    voice.say(shtab.complete(options.parser, shell=options.shell))
    return 0


def _actions(parser):
    """All arguments, those of the commands too."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
