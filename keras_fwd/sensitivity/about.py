"""What a report says about its model: texts that are made when they are first read."""

import collections.abc
import functools
import importlib.metadata

from keras_fwd.errors import KerasFwdError
from keras_fwd.layers.seal import find_leaks


class About(collections.abc.Mapping):
    """A summary of the model, its leaks, and the versions of what computed the report.

    Args:
        model: Keras model or layer.
    """

    def __init__(self, model):
        self._model = model

    def __getitem__(self, key):
        return self._texts[key]

    def __iter__(self):
        return iter(self._texts)

    def __len__(self):
        return len(self._texts)

    @functools.cached_property
    def _texts(self):
        return {
            "model": _summary(self._model),
            "leaks": _leaks(self._model),
            "versions": versions(),
        }


def versions():
    """The versions of this package and of what it stands on, in one line."""
    names = ("keras-fwd", "keras", "tensorflow", "numpy")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def _summary(model):
    if not hasattr(model, "summary"):
        return f"{type(model).__name__} {model.name!r}"
    lines = []
    model.summary(line_length=80, print_fn=lambda text, **_: lines.append(text))
    return "\n".join(lines)


def _leaks(model):
    try:
        return str(find_leaks(model))
    except KerasFwdError as error:  # such as a subclassed model, whose inputs are not known
        return f"not looked for: {error}"
