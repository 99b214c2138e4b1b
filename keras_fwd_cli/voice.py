"""What a command says: results on standard output, everything else on standard error.

With `--json`, standard output holds one JSON document and standard error one JSON object a line:
`{"note": …}` or `{"error": …}`.
"""

import contextlib
import json
import os
import sys

from keras_fwd_cli.failures import UsageError


def speak_plainly():
    """Makes characters that a terminal lacks, such as ∂, question marks and not an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def say(text):
    """Prints a result."""
    with _standard_output():
        print(text)


def flush():
    """Brings on its way what was printed.

    Raises:
        UsageError: It cannot be written, as on a full disk.
    """
    with _standard_output():
        sys.stdout.flush()


def say_json(value):
    """Prints a result as JSON; numbers that are not finite become null."""
    say(json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False))


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


@contextlib.contextmanager
def _standard_output():
    """Names it in an error, and drops what it did not take: Python would try again at its end."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        close_pipe()
        raise UsageError(f"standard output: {error.strerror or error}.") from error


def _to_stderr(kind, text, as_json):
    line = json.dumps({kind: text}, ensure_ascii=False) if as_json else f"keras-fwd: {text}"
    print(line, file=sys.stderr, flush=True)
