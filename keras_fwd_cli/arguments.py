"""Kinds of arguments that several commands take."""

import argparse


class Names(argparse.Action):
    """Names parted by commas, and the option may be repeated."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Adds the names, or ends with an error."""
        names = [name.strip() for name in str(values).split(",")]
        if not all(names):
            parser.error(f"argument {option_string}: an empty name in {values!r}")
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or []), *names])


def natural(least):
    """A type of argument: an integer of at least that."""

    def parse(text):
        if not text.strip().isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be an integer of at least {least}: {text!r}")
        return int(text)

    return parse
