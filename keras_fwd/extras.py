"""What is not installed with the package: which extra brings it, and the error that says so."""

import importlib
from typing import Any

#: Package -> how it is written, and what `pip install` is to be given.
EXTRAS = {
    "jinja2": ("Jinja2", "'keras-fwd[report]'"),
    "matplotlib": ("matplotlib", "'keras-fwd[report]'"),
    "pandas": ("pandas", "'keras-fwd[report]'"),
    "scipy": ("SciPy", "scipy"),
    "tensorboard": ("TensorBoard", "'keras-fwd[tensorboard]'"),
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
        name, install = EXTRAS[package]
        raise ImportError(f"{call} needs {name}: run `pip install {install}`.") from None
