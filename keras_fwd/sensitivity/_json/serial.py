"""Sensitivity reports as plain data: to a dict or JSON text, and back, every field checked.

The schema has a name and a version. Numbers that are not finite are `null`; all others come back
to the last bit. A text that does not fit is refused with the name of the field that does not.
"""

import json
import os
import pathlib
import reprlib

import numpy as np

from keras_fwd.errors import ConfigurationError
from keras_fwd.sensitivity._json.schema import PARTS, Field, report_of

CALL = "SensitivityReport.from_json"
FORMAT = "keras_fwd.sensitivity_report"
VERSION = 1
#: Derivatives of single examples that are kept, and the examples at least.
_SAMPLE_NUMBERS, _SAMPLE_ROWS = 500_000, 5


def to_dict(report):
    """A report as dicts, lists, texts and numbers: what JSON can hold.

    Args:
        report: `SensitivityReport`.

    Returns:
        Dict with `"format"` and `"version"` first; NaN and infinities are None.
    """
    return {"format": FORMAT, "version": VERSION, **_fields(report)}


def to_json(report):
    """A report as JSON text, strict: no NaN, no infinities, ASCII only."""
    return json.dumps(to_dict(report), allow_nan=False)


def plain(array):
    """An array as lists of Python numbers, None for what is not finite.

    >>> plain(np.array([[1.5, np.nan], [-np.inf, 2.0]]))
    [[1.5, None], [None, 2.0]]
    """
    array = np.asarray(array)
    finite = np.isfinite(array)
    return (array if finite.all() else np.where(finite, array.astype(object), None)).tolist()


def _sample(sample):
    """The examples of a sample; of many numbers only some, at even distances."""
    count, *shape = sample.derivatives.shape
    room = max(_SAMPLE_ROWS, _SAMPLE_NUMBERS // max(1, int(np.prod(shape))))
    # At even distances: a sample that stands in the order of the data is kept from all of it.
    rows = np.arange(count) if count <= room else np.linspace(0, count - 1, room).astype(int)
    return {
        "features": plain(sample.features[rows]),
        "derivatives": plain(sample.derivatives[rows]),
    }


def _fields(report):
    groups, pairs, history = report.groups, report.interactions, report.evolution
    return {
        "features": list(report.feature_names),
        "outputs": list(report.output_names),
        "kinds": list(report.kinds),
        "feature_mean": plain(report.feature_mean),
        "feature_std": plain(report.feature_std),
        "output_std": plain(report.output_std),
        "examples": int(report.examples),
        "left_out": int(report.left_out),
        "notes": list(report.notes),
        "interrupted": bool(report.interrupted),
        "confidence": float(report.confidence),
        "measures": _estimates(report.measures),
        "pooled": _estimates(report.pooled),
        "groups": groups
        and {
            "names": list(groups.names),
            "members": [[int(i) for i in members] for members in groups.members],
            "measures": _estimates(groups.measures),
        },
        "interactions": pairs
        and {
            "pairs": plain(pairs.pairs),
            "examples": int(pairs.examples),
            "measures": _estimates(pairs.measures),
        },
        "sample": _sample(report.sample),
        "inputs": [
            {"name": i.name, "shape": [int(n) for n in i.shape], "start": int(i.start)}
            for i in report.inputs
        ],
        "slices": {label: _fields(part) for label, part in report.slices.items()},
        "evolution": history
        and {
            "epochs": plain(history.epochs),
            "examples": plain(history.examples),
            "measures": _estimates(history.measures),
        },
        "about": dict(report.about),
    }


def _estimates(measures):
    return {
        name: {part: plain(getattr(estimate, part)) for part in PARTS}
        for name, estimate in measures.items()
    }


def load(cls, text_or_path):
    """The report in a JSON text, which begins with a brace, or else in the file of that name.

    Args:
        cls: `SensitivityReport`.
        text_or_path: What `to_json` returned, or where it was written.

    Raises:
        ConfigurationError: As `read` and `from_json`.
    """
    if isinstance(text_or_path, str) and text_or_path.lstrip().startswith("{"):
        return from_json(cls, text_or_path)
    if isinstance(text_or_path, str | os.PathLike):
        return read(cls, text_or_path)
    raise ConfigurationError(
        f"{CALL}: `text_or_path` must be the text of SensitivityReport.to_json or the path of a "
        f"file with it. Received: {reprlib.repr(text_or_path)}."
    )


def read(cls, path):
    """The report in a `.json` file.

    Args:
        cls: `SensitivityReport`.
        path: Text or `pathlib.Path`.

    Raises:
        ConfigurationError: The file cannot be read, or is no whole report.
    """
    try:
        # With or without the mark that Windows puts before UTF-8.
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a path with a null byte
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise ConfigurationError(
            f"{CALL}: `path` must be a file that SensitivityReport.to_json wrote, or its text. "
            f"Received: {str(path)[:200]!r} ({reason})."
        ) from error
    return from_json(cls, text, source=str(path))


def from_json(cls, text, source=CALL):
    """The report that `to_json` wrote.

    Args:
        cls: `SensitivityReport`.
        text: What `to_json` returned.
        source: What errors begin with; default the method, a path where a file was read.

    Raises:
        ConfigurationError: The text is no JSON, another format, of a newer version, or a field is
            missing or has another type or shape than it must; the message names the field.
    """
    try:
        # Python would read NaN and Infinity, which are no JSON.
        data = json.loads(text, parse_constant=_refuse_constant)
    # RecursionError: a hostile text of brackets. ValueError: also integers of 5000 digits.
    except (ValueError, TypeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigurationError(
            f"{source}: the report must be JSON, whole, as SensitivityReport.to_json writes it. "
            f"Received: {reprlib.repr(text)} ({reason})."
        ) from error
    return from_dict(cls, data, source)


def _refuse_constant(name):
    raise ValueError(f"{name} is no JSON: to_json writes null")


def from_dict(cls, data, source=CALL):
    """The report that `to_dict` made, every field checked.

    Args:
        cls: `SensitivityReport`.
        data: Dict as `to_dict` returns it.
        source: What errors begin with.

    Raises:
        ConfigurationError: As `from_json`.
    """
    top = Field(data, "", source)
    if top.entry("format").value != FORMAT:
        top.entry("format").refuse(f'"{FORMAT}"')
    version = top.entry("version").count(least=1)
    if version > VERSION:
        raise ConfigurationError(
            f"{source}: `version` must be at most {VERSION}. Received: {version}. A newer keras_fwd"
            " wrote this report: upgrade to it."
        )
    return report_of(cls, top)
