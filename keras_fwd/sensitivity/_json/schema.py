"""Which fields a sensitivity report has as plain data, and what each must be."""

import dataclasses
import itertools
import math
import reprlib
from typing import Any, NoReturn

import numpy as np

from keras_fwd.errors import ConfigurationError
from keras_fwd.sensitivity import measures
from keras_fwd.sensitivity._statistics.estimates import (
    Estimate,
    Evolution,
    Groups,
    InputShape,
    Interactions,
    Sample,
)

KINDS = ("derivative", "switch")
GROUPED = ("standardized_rms", "total_index_bound")
INTERACTING = ("rms", "standardized_rms")
EVOLVING = ("mean", "standardized_rms")


def report_of(cls, top, sliced=False):
    """The report that a document holds, every field checked.

    Args:
        cls: `SensitivityReport`.
        top: The `Field` of the whole document, or of a slice.
        sliced: Whether it is a slice, which has none of its own.

    Raises:
        ConfigurationError: A field is missing or has another type or shape than it must.
    """
    features, outputs = top.entry("features").texts(1), top.entry("outputs").texts(1)
    rows, columns = len(features), len(outputs)
    slices = top.entry("slices").mapping()
    if sliced and slices:
        top.entry("slices").refuse("{} in a slice")
    return cls(
        feature_names=features,
        output_names=outputs,
        kinds=tuple(kind.one_of(KINDS) for kind in top.entry("kinds").items(rows)),
        feature_mean=top.entry("feature_mean").array(rows),
        feature_std=top.entry("feature_std").array(rows),
        output_std=top.entry("output_std").array(columns),
        examples=top.entry("examples").count(),
        left_out=top.entry("left_out").count(),
        notes=top.entry("notes").texts(),
        interrupted=top.entry("interrupted").flag(),
        confidence=top.entry("confidence").share(),
        measures=top.entry("measures").estimates(measures.MEASURES, rows, columns),
        pooled=top.entry("pooled").estimates(measures.POOLED, rows, 1),
        groups=top.entry("groups").optional(_groups, rows, columns),
        interactions=top.entry("interactions").optional(_interactions, rows, columns),
        sample=_sample(top.entry("sample"), rows, columns),
        inputs=tuple(_input(field, rows) for field in top.entry("inputs").items()),
        slices={label: report_of(cls, field, sliced=True) for label, field in slices.items()},
        evolution=top.entry("evolution").optional(_evolution, rows, columns),
        about={key: field.text() for key, field in top.entry("about").mapping().items()},
    )


def _groups(field, rows, columns):
    names = field.entry("names").texts()
    members = field.entry("members").items(len(names))
    return Groups(
        names,
        tuple(tuple(i.count(below=rows) for i in group.items()) for group in members),
        field.entry("measures").estimates(GROUPED, len(names), columns),
    )


def _interactions(field, rows, columns):
    pairs = [[i.count(below=rows) for i in pair.items(2)] for pair in field.entry("pairs").items()]
    return Interactions(
        np.array(pairs, int).reshape(-1, 2),
        field.entry("measures").estimates(INTERACTING, len(pairs), columns),
        field.entry("examples").count(),
    )


def _sample(field, rows, columns):
    examples = len(field.entry("features").items())
    return Sample(
        field.entry("features").array(examples, rows),
        field.entry("derivatives").array(examples, rows, columns),
    )


def _input(field, rows):
    shape = tuple(size.count(least=1) for size in field.entry("shape").items())
    start = field.entry("start").count()
    if start + math.prod(shape) > rows:
        field.refuse(f"an input whose components are among the {rows} features")
    return InputShape(field.entry("name").text(), shape, start)


def _evolution(field, rows, columns):
    epochs = [epoch.amount() for epoch in field.entry("epochs").items()]
    examples = [n.count() for n in field.entry("examples").items(len(epochs))]
    return Evolution(
        np.array(epochs) if epochs else np.zeros(0, int),
        np.array(examples, int),
        field.entry("measures").estimates(EVOLVING, len(epochs), rows, columns),
    )


# Fields of a document that others may have written: each is checked as it is read.

PARTS = tuple(field.name for field in dataclasses.fields(Estimate))
NUMBERS = {int, float}  # not bool, which is an int for isinstance


@dataclasses.dataclass(frozen=True)
class Field:
    """A value of a document, and where it stands.

    Every method returns what it says, or raises a `ConfigurationError` that names the field.

    Attributes:
        value: As JSON gave it.
        path: Such as `measures.mean.low`; empty for the whole document.
        source: What the messages begin with: a call or the path of a file.
    """

    value: Any
    path: str
    source: str

    def refuse(self, expected, received=None) -> NoReturn:
        """Raise the error: what was expected, and what came instead."""
        received = reprlib.repr(self.value) if received is None else received
        raise ConfigurationError(
            f"{self.source}: `{self.path or 'report'}` must be {expected}. Received: {received}. "
            "Give it a text or file of SensitivityReport.to_json, whole and unchanged."
        )

    def mapping(self):
        """The fields of a dict, by name."""
        if type(self.value) is not dict:
            self.refuse("a dict")
        for key in self.value:
            Field(key, f"{self._below(key)} (the name)", self.source).text()
        return {k: Field(v, self._below(k), self.source) for k, v in self.value.items()}

    def entry(self, key):
        """The field of a dict under `key`."""
        if type(self.value) is not dict:
            self.refuse("a dict")
        if key not in self.value:
            Field(None, self._below(key), self.source).refuse("there", "no such field")
        return Field(self.value[key], self._below(key), self.source)

    def _below(self, key):
        return f"{self.path}.{reprlib.repr(key)[1:-1]}".lstrip(".")

    def items(self, length=None):
        """The fields of a list, of the given length if there is one."""
        if type(self.value) is not list:
            self.refuse("a list")
        if length not in (None, len(self.value)):
            self.refuse(f"a list of length {length}", f"length {len(self.value)}")
        return [Field(v, f"{self.path}[{i}]", self.source) for i, v in enumerate(self.value)]

    def optional(self, read, *args):
        """What `read(field, *args)` makes of the field, or None where it is null."""
        return None if self.value is None else read(self, *args)

    def text(self):
        """A text, which can be written as UTF-8."""
        if type(self.value) is not str:
            self.refuse("a text")
        try:
            self.value.encode()
        except UnicodeEncodeError:  # JSON can hold half a surrogate pair; no file can
            self.refuse("a text without halves of surrogate pairs", ascii(self.value[:40]))
        return self.value

    def texts(self, least=0):
        """A list of texts as a tuple, `least` or more."""
        texts = tuple(field.text() for field in self.items())
        if len(texts) < least:
            self.refuse(f"a list of at least {least}")
        return texts

    def one_of(self, choices):
        """One of some texts."""
        if self.value not in choices:
            self.refuse(" or ".join(f'"{choice}"' for choice in choices))
        return self.value

    def flag(self):
        """True or false."""
        if type(self.value) is not bool:
            self.refuse("true or false")
        return self.value

    def count(self, least=0, below=None):
        """A whole number of at least `least`, and below `below` if that is given."""
        # 2**53: what any reader of JSON keeps exactly, and any NumPy integer holds.
        limit = 2**53 if below is None else below
        if type(self.value) is not int or not least <= self.value < limit:
            bound = "" if below is None else f" and below {below}"
            self.refuse(f"a whole number of at least {least}{bound}")
        return self.value

    def amount(self):
        """A finite number of at least 0."""
        if type(self.value) not in NUMBERS or not 0 <= self.value < 2**53:
            self.refuse("a number of at least 0")
        return self.value

    def share(self):
        """A number between 0 and 1, both excluded."""
        if type(self.value) not in NUMBERS or not 0 < self.value < 1:
            self.refuse("a number above 0 and below 1")
        return float(self.value)

    def array(self, *shape):
        """Nested lists of numbers and nulls as a float64 array; null is NaN."""
        level = [self.value]
        for depth, size in enumerate(shape):
            for k, part in enumerate(level):
                if type(part) is not list or len(part) != size:
                    self._refuse_part(part, k, shape[:depth], f"a list of length {size}")
            # Level by level, and not by recursion: arrays of a million numbers are read at once.
            level = list(itertools.chain.from_iterable(level))
        if not set(map(type, level)) <= NUMBERS | {type(None)}:
            k = next(k for k, v in enumerate(level) if v is not None and type(v) not in NUMBERS)
            self._refuse_part(level[k], k, shape, "a number or null")
        try:
            array = np.array(level, np.float64)
        except OverflowError:  # an integer beyond all floats
            array = np.array([np.inf])
        if np.isinf(array).any():
            self.refuse("numbers that a float64 can hold, or null", "a number beyond 1e308")
        return array.reshape(shape)

    def _refuse_part(self, part, k, outer, expected):
        index = "".join(f"[{i}]" for i in np.unravel_index(k, outer)) if outer else ""
        received = f"a list of length {len(part)}" if type(part) is list else None
        Field(part, self.path + index, self.source).refuse(expected, received)

    def estimates(self, names, *shape):
        """A dict of estimates of one shape: those named, which must be there, and any others."""
        for name in names:
            self.entry(name)
        return {
            name: Estimate(*(field.entry(part).array(*shape) for part in PARTS))
            for name, field in self.mapping().items()
        }
