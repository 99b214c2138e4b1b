"""One page for each public name, written from `__all__` before the site is built.

A name that a module shares with the package (`keras_fwd.optimizers.KFAC`, `keras_fwd.KFAC`) has
one page, under the shorter name. Of a class, the members that keras_fwd defines and documents are
shown, and not the hundred that it has from Keras.
"""

import importlib
import inspect
import re
import types
from pathlib import Path

PACKAGE = "keras_fwd"
# The public modules, in the order of the pages.
MODULES = [
    *("", "optimizers", "callbacks", "regularizers", "layers", "losses"),
    *("sensitivity", "spectrum", "testing"),
]


def setup(app):
    """Makes this file an extension of Sphinx."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir) / "api"))
    # Before napoleon, which takes a section only where its name stands alone in its line.
    app.connect("autodoc-process-docstring", _part_sections, priority=100)
    return {"parallel_read_safe": True}


def public() -> dict[str, list[str]]:
    """The names of each public module; each object once, where its name is shortest."""
    names: dict[str, list[str]] = {}
    seen = set()
    for part in MODULES:
        dotted = f"{PACKAGE}.{part}".rstrip(".")
        module = importlib.import_module(dotted)
        found = [name for name in _exported(module) if id(getattr(module, name)) not in seen]
        seen |= {id(getattr(module, name)) for name in found}
        names[dotted] = sorted(found, key=lambda name: (_rank(getattr(module, name)), name))
    return names


def _rank(value) -> int:
    """Functions come first, errors last."""
    return 0 if not inspect.isclass(value) else 2 if issubclass(value, Exception) else 1


def _exported(module) -> list[str]:
    if hasattr(module, "__all__"):
        found = module.__all__
    else:
        found = [
            n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__
        ]
    public = [name for name in found if not name.startswith("_")]
    return [name for name in public if not isinstance(getattr(module, name), types.ModuleType)]


def write(folder: Path) -> None:
    """Writes the pages; those of names that are gone are removed."""
    names = public()
    pages = {"index.rst": _index(names)}
    for dotted, found in names.items():
        module = importlib.import_module(dotted)
        pages[f"{dotted}.rst"] = _module_page(dotted, found)
        for name in found:
            pages[f"{file_name(dotted, name)}.rst"] = _page(dotted, name, getattr(module, name))
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.rst"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        # A page that is rewritten is read again: leave those that are as they should be.
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def file_name(dotted: str, name: str) -> str:
    """The page of a name; `losses.cauchy` is no file beside `losses.Cauchy` on every system."""
    twin = name.islower() and hasattr(importlib.import_module(dotted), name.capitalize())
    return f"{dotted}.{name}{'-function' if twin else ''}"


def _heading(text: str, line: str = "=") -> str:
    return f"{text}\n{line * len(text)}\n\n"


def _toctree(entries: list[str]) -> str:
    return ".. toctree::\n   :hidden:\n\n" + "".join(f"   {entry}\n" for entry in entries) + "\n"


def _index(names: dict[str, list[str]]) -> str:
    tables = [
        _heading(f":mod:`{dotted}`", "-") + _table(dotted, found) for dotted, found in names.items()
    ]
    intro = "Every public name has a page: what it is, its arguments, what it costs, an example."
    return _heading("API") + f"{intro}\n\n" + _toctree(list(names)) + "".join(tables)


def _table(dotted: str, names: list[str]) -> str:
    head = f".. currentmodule:: {dotted}\n\n.. autosummary::\n   :nosignatures:\n\n"
    return head + "".join(f"   {name}\n" for name in names) + "\n"


def _module_page(dotted: str, names: list[str]) -> str:
    pages = _toctree([file_name(dotted, name) for name in names])
    text = f".. automodule:: {dotted}\n   :no-members:\n\n"
    return _heading(dotted) + text + pages + _table(dotted, names)


def _page(dotted: str, name: str, value) -> str:
    head = _heading(name) + f".. currentmodule:: {dotted}\n\n"
    if not inspect.isclass(value):
        return head + f".. autofunction:: {name}\n"
    kind = "autoexception" if issubclass(value, Exception) else "autoclass"
    members = "".join(f"\n   .. auto{what}:: {name}.{m}\n" for m, what in _members(value).items())
    return head + f".. {kind}:: {name}\n{members}"


def _members(cls: type) -> dict[str, str]:
    """What keras_fwd adds: its own documented public methods and properties, and which each is."""
    members: dict[str, str] = {}
    for base in cls.__mro__:
        if base.__module__.split(".")[0] != PACKAGE:
            continue
        for name, value in vars(base).items():
            value = getattr(value, "__func__", value)  # of a class method
            known = inspect.isfunction(value) or isinstance(value, property)
            if not name.startswith("_") and known and value.__doc__:
                members[name] = "property" if isinstance(value, property) else "method"
    return members


def _part_sections(app, what, name, obj, options, lines) -> None:
    """`Cost: text` becomes a section, as napoleon wants it; `Example:` its heading."""
    parted = []
    for line in lines:
        if match := re.match(r"(\s*)(Cost|Attributes|Example): (\S.*)$", line):
            parted += [f"{match[1]}{match[2]}:", f"{match[1]}    {match[3]}"]
        elif match := re.match(r"(\s*)Example:$", line):
            parted.append(f"{match[1]}.. rubric:: Example")
        else:
            parted.append(line)
    lines[:] = parted
