"""Files that are whole or not there: written aside, then renamed."""

import contextlib
import os
import pathlib
import tempfile

from keras_fwd_cli.failures import UsageError


def check_target(path, suffixes):
    """Whether a result can be written there, asked before the work is done.

    Args:
        path: `pathlib.Path` or None, which is always right.
        suffixes: The endings that say in which form, such as `(".html", ".json")`.

    Raises:
        UsageError: Another ending, no such folder, a folder itself, or no right to write.
    """
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"--output {path}: the name must end in {' or '.join(suffixes)}.")
    if path.is_dir():
        raise UsageError(f"--output {path}: is a folder; name a file.")
    folder = _real(path).parent
    if not folder.is_dir():
        raise UsageError(f"--output {path}: there is no folder {path.parent}.")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise UsageError(f"--output {path}: no right to write there.")


def write_aside(path, write):
    """Writes a file under another name in the same folder and renames it when it is whole.

    Args:
        path: `pathlib.Path`; what stood there is replaced in one step, or left as it is.
        write: Function of a path with the same ending.

    Raises:
        OSError: It cannot be written, of the path that was given; nothing is left behind.
    """
    real = _real(path)
    aside = None
    try:
        handle, name = tempfile.mkstemp(real.suffix, f".{real.stem}.", real.parent)
        os.close(handle)
        aside = pathlib.Path(name)
        write(aside)
        aside.chmod(real.stat().st_mode & 0o777 if real.exists() else 0o666 & ~_umask())
        os.replace(aside, real)
    except BaseException as error:  # Ctrl-C too
        if aside is not None:
            with contextlib.suppress(OSError):
                aside.unlink()
        # Reports have an error of their own, which names the file that they were given.
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        if not isinstance(cause, OSError) or cause.errno is None:
            raise
        cause.filename = str(path)  # not of the one aside, which nobody knows
        raise cause from None


def write_frame(frame, path):
    """Writes a pandas data frame as CSV, with its row labels where they have a name."""
    frame.to_csv(path, index=any(name is not None for name in frame.index.names))


def check_source(path, what):
    """Whether there is a file to read.

    Raises:
        UsageError: There is none, it is a folder or a pipe, or there is no right to read it.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name {what}.")
    if not path.exists():
        raise UsageError(f"{path}: no such file.")
    if not path.is_file():
        raise UsageError(f"{path}: is no regular file; a pipe, say, can be read only once.")
    if not os.access(path, os.R_OK):
        raise UsageError(f"{path}: no right to read it.")


def _real(path):
    return pathlib.Path(os.path.realpath(path))  # through links: the link itself must stay


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
