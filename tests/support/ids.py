"""Names of parametrized cases: what a case is about, never its place in a list."""

import inspect
import re

LONGEST = 60  # of a name that is made of values


def name_of(value):
    """A name for a parameter; None where pytest's own is good, or nothing better is known."""
    if isinstance(value, dict | list | tuple):
        return _shown(value)[:LONGEST] or None
    if inspect.isfunction(value) and value.__name__ == "<lambda>":
        return _of_lambda(value)
    if isinstance(value, str) and len(value) > 5 * LONGEST:
        return f"{value.splitlines()[0]} and so on"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, BaseException):
        return type(value).__name__
    return None


def _shown(value):
    """The value in a few words: the same in each process, so without addresses."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={_shown(item)}" for key, item in value.items()) or "nothing"
    if isinstance(value, list | tuple):
        return ", ".join(_shown(item) for item in value) or "nothing"
    if isinstance(value, str | int | float | complex | None):
        return str(value)
    if inspect.isfunction(value) and value.__name__ == "<lambda>":
        return _of_lambda(value)
    return getattr(value, "__name__", None) or getattr(value, "name", None) or type(value).__name__


def _of_lambda(function):
    """The names that it uses."""
    code = function.__code__
    return ".".join([*code.co_names, *code.co_freevars])[:LONGEST] or None


def places(items):
    """The tests whose names hold the place of a parameter, such as `options0` or `<lambda>0`."""
    for item in items:
        spec = getattr(item, "callspec", None)
        if spec is None:
            continue
        parts = "|".join([*map(re.escape, spec.params), "<lambda>"])
        if re.search(rf"(^|-)({parts})\d+(-|$)|<lambda>", spec.id):
            yield item.nodeid
