"""What ends a command early, and the one line that says so."""

import importlib
import sys

#: What the command needs besides, all in the extra `report`.
REPORT = ("jinja2", "matplotlib", "pandas", "pyarrow", "rich", "shtab")
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class UsageError(Exception):
    """What is wrong with the arguments or with a file, in one line, for the user to read.

    Not a `KerasFwdError`: those come with `keras_fwd` and TensorFlow, and this one must not wait
    for them. It never leaves `main`.
    """


def needed(what, module):
    """A module that an extra brings, imported.

    Raises:
        UsageError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.partition(".")[0]
        raise UsageError(f"{what} needs {name}: {_install(name)}.") from None


def reason(error):
    """The one line for an error that a user can do something about; None for a defect of ours."""
    if isinstance(error, UsageError):
        return one_line(error)
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror or one_line(error)}"
    if isinstance(error, MemoryError):
        return (
            "out of memory: use fewer examples (--max-examples) or smaller batches (--batch-size)."
        )
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("keras_fwd"):
        name = str(error.name).partition(".")[0]
        return f"{error}: {_install(name)}." if name in REPORT else one_line(error)
    worded = isinstance(error, ImportError) and error.name is None  # by us, not by Python
    if worded or isinstance(error, _known("keras_fwd.errors", "KerasFwdError")):
        return one_line(error)
    if isinstance(error, _known("tensorflow", "errors", "OpError")):
        return f"the model cannot be run on these data: {_without_frames(error.message)}"
    return None


def _install(name):
    return f"run `pip install {name}`; it is in the extra `report`"


def one_line(error, limit=400):
    r"""An error's text on one line, cut where it grows long.

    >>> one_line("a\n  b")
    'a b'
    """
    text = " ".join(str(error).split())
    return text if len(text) <= limit else f"{text[:limit]}…"


def _without_frames(message):
    r"""What went wrong in a graph, without where in the Python code the op was made.

    >>> _without_frames('Detected at node n\n  File "a.py"\n\nbad\n [[n]]')
    'bad'
    """
    frames = ("Graph execution error", "Detected at node", "File ", "[[")
    lines = [line for line in message.splitlines() if not line.strip().startswith(frames)]
    return one_line(" ".join(lines))


def _known(module, *names):
    """A class as a tuple of one; of none, if its module is not imported: then nothing raised it."""
    found = sys.modules.get(module)
    for name in names:
        found = getattr(found, name, None)
    return () if found is None else (found,)
