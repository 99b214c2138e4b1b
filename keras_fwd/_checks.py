"""Checks of numbers that users hand over."""

import importlib
import math
import numbers
from typing import Any

import numpy as np

from keras_fwd.errors import ConfigurationError


def check_number(call, argument, value, least=0.0, above=False):
    """Raise `ConfigurationError` unless `value` is a finite number of at least (above) `least`."""
    good = isinstance(value, numbers.Real) and math.isfinite(value) and float(value) >= least
    if not good or (above and value == least):
        bound = f"above {least:g}" if above else f"of at least {least:g}"
        raise ConfigurationError(
            f"{call}: `{argument}` must be a finite number {bound}. Received: {argument}={value!r}."
        )


def check_count(call, argument, value, least=1, none=None, most=None):
    """Raise `ConfigurationError` unless `value` is a whole number of at least `least`.

    Args:
        call: Name of the public call.
        argument: Name of its argument.
        value: What was given.
        least: The smallest number allowed.
        none: What None means, where it is allowed.
        most: The largest number allowed, or None.
    """
    if value is None and none is not None:
        return
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or int(value) < least or (most is not None and int(value) > most):
        otherwise = "" if most is None else f" and at most {most}"
        otherwise += f", or None for {none}" if none else ""
        raise ConfigurationError(
            f"{call}: `{argument}` must be a whole number of at least {least}{otherwise}. "
            f"Received: {argument}={value!r}."
        )


def check_flag(call, argument, value):
    """Raise `ConfigurationError` unless `value` is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ConfigurationError(
            f"{call}: `{argument}` must be True or False. Received: {argument}={value!r}."
        )


# What is not installed with the package, and the error that says so. It names the package to
# install: an extra of ours can be asked for in a checkout alone, as no index has keras_fwd yet.

#: Package -> how it is written, and the extra of `pyproject.toml` that brings it, or None.
EXTRAS = {
    "jinja2": ("Jinja2", "report"),
    "matplotlib": ("matplotlib", "report"),
    "pandas": ("pandas", "report"),
    "scipy": ("SciPy", None),
    "tensorboard": ("TensorBoard", "tensorboard"),
}


def needed(call: str, module: str) -> Any:
    """A module that a call cannot do without, imported.

    Args:
        call: Name of the public call, or what of it needs the module, for the message.
        module: Its name, of a package in `EXTRAS` or inside one.

    Raises:
        ImportError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        if (error.name or "").partition(".")[0] not in ("", package):
            raise  # it is there, but something that it needs is not
        name, extra = EXTRAS[package]
        more = f"; it is in the extra `{extra}`" if extra else ""
        raise ImportError(f"{call} needs {name}: run `pip install {package}`{more}.") from None
