"""What a command says: results on standard output, everything else on standard error.

With `--json`, standard output holds one JSON document and standard error one JSON object a line:
`{"note": …}` or `{"error": …}`.
"""

import contextlib
import json
import os
import sys


def speak_plainly():
    """Makes characters that a terminal lacks, such as ∂, question marks and not an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def say(text):
    """Prints a result."""
    print(text)


def say_json(value):
    """Prints a result as JSON; numbers that are not finite become null."""
    print(json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False))


def finite(value):
    """The value with NaN and infinities, which JSON lacks, as None.

    >>> finite({"a": [1.0, float("nan")]})
    {'a': [1.0, None]}
    """
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not float("-inf") < value < float("inf"):
        return None
    return value


def note(text, options):
    """Something to know about a result that is there all the same; nothing with `--quiet`."""
    if not getattr(options, "quiet", False):
        _to_stderr("note", text, getattr(options, "json", False))


def error(text, as_json=False):
    """Why there is no result."""
    _to_stderr("error", text, as_json)


def on_terminal():
    """Whether somebody watches standard error."""
    return sys.stderr is not None and sys.stderr.isatty()


def close_pipe():
    """After the reader of standard output has gone: Python would remark on it at its own end."""
    with contextlib.suppress(OSError, ValueError):  # no real file, as under a test
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _to_stderr(kind, text, as_json):
    line = json.dumps({kind: text}, ensure_ascii=False) if as_json else f"keras-fwd: {text}"
    print(line, file=sys.stderr, flush=True)
