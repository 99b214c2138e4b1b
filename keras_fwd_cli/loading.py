"""Reading a `.keras` file without trusting it, and saying in one line why it cannot be read."""

import contextlib
import logging
import os
import re
import sys
import zipfile

from keras_fwd_cli import files
from keras_fwd_cli.failures import UsageError, one_line

MEMBERS = ("config.json", "metadata.json")
# Keras stores its members uncompressed; what grows beyond this is no model but a bomb.
MOST_GROWTH, FREE_GROWTH = 100, 1 << 28  # times the size of the file; bytes that are never refused


def load_package():
    """Imports `keras_fwd`, with which its layers are known to Keras, and TensorFlow, quietly.

    Raises:
        ImportError: Keras was set to another backend before.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules and os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3":
        with _silent_stderr():
            import tensorflow as tf
        del tf
    import keras_fwd

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return keras_fwd


@contextlib.contextmanager
def _silent_stderr():
    """Nothing on the process's standard error, whoever writes to it.

    While it is imported, TensorFlow 2.21 logs what its C++ parts notice (no GPU, say) whatever
    TF_CPP_MIN_LOG_LEVEL is; its Python errors are raised as ever.
    """
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def load_model(path, unsafe=False):
    """The model in a `.keras` file, not compiled.

    Args:
        path: `pathlib.Path`.
        unsafe: Whether Python code in the file may run.

    Returns:
        `keras.Model`.

    Raises:
        UsageError: There is no such file, it is damaged, or it holds what Keras cannot or, in
            safe mode, must not read.
    """
    check_archive(path)
    load_package()
    import keras

    try:
        model = keras.saving.load_model(str(path), compile=False, safe_mode=not unsafe)
    except Exception as error:  # a file may hold anything, and Keras raises whatever comes of it
        raise UsageError(f"{path}: {_why(error)}") from error
    if not isinstance(model, keras.Model):
        raise UsageError(f"{path}: holds a {type(model).__name__}, which is no keras.Model.")
    # Keras loads it, and fails deep inside when it is called.
    if isinstance(model, keras.Sequential) and not model.layers:
        raise UsageError(
            f"{path}: holds a Sequential model without layers: there is nothing in it."
        )
    return model


def check_archive(path):
    """What can be said of a file before Keras reads it.

    Raises:
        UsageError: No file, no archive of Keras 3, damaged, or growing beyond measure.
    """
    files.check_source(path, "a .keras file")
    if path.suffix.lower() != ".keras":
        raise UsageError(f'{path}: must be a .keras file, as model.save("model.keras") writes it.')
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = {member.filename for member in members}
            size = sum(member.file_size for member in members)
            if size > FREE_GROWTH and size > MOST_GROWTH * path.stat().st_size:
                raise UsageError(f"{path}: would unpack to {size / 1e9:.1f} GB: no model, refused.")
            if missing := [name for name in MEMBERS if name not in names]:
                raise UsageError(f"{path}: no Keras model: {missing[0]} is missing in it.")
            damaged = archive.testzip()
    except UsageError:
        raise
    except Exception as error:  # zlib's, struct's, zipfile's own: whatever the bytes provoke
        raise UsageError(f"{path}: damaged, or no .keras file: {one_line(error, 120)}.") from error
    if damaged:
        raise UsageError(f"{path}: damaged: the check sum of {damaged} is wrong.")


def _why(error):
    text = one_line(error, 100_000)
    if "lambda" in text.lower() and "safe" in text.lower():
        return (
            "holds a Lambda layer with Python code, which safe mode does not run. If you trust "
            "whoever made the file: --unsafe, which runs that code with your rights."
        )
    if "safe_mode" in text or "safe mode" in text:
        return f"refused in safe mode: {one_line(text, 160)} If you trust the file: --unsafe."
    if found := re.search(r"Could not locate (\w+) '([^']+)'", text):
        return (
            f"needs the {found[1]} {found[2]!r}, which neither Keras nor keras_fwd knows. Models "
            "with code of your own can be reported on in Python: keras_fwd.sensitivity_report."
        )
    _, inner, text = text.rpartition("Exception encountered: ")  # Keras puts its own words around
    text = re.sub(r"\s*Full (object )?config: .*|config=\{.*|\{\{.*?\}\} ?", "", text)
    kind = "" if inner else f"{type(error).__name__}: "
    return f"cannot be loaded: {kind}{one_line(text, 200) or 'no reason given'}"


def add_unsafe(parser):
    """Adds `--unsafe` to the parser of a command that loads a model."""
    parser.add_argument(
        "--unsafe",
        action="store_true",
        help="let Python code in the model run while it is loaded (Lambda layers); only for files "
        "of people you trust",
    )
