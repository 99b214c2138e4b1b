"""What is public stands in an `__all__`, and users are shown nothing else."""

import ast
import importlib
import inspect
import pathlib
import pkgutil
import re
import types

import pytest

import keras_fwd

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = [
    name for name in keras_fwd.__all__ if isinstance(getattr(keras_fwd, name), types.ModuleType)
]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/guides").glob("*.md")),
]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


def code_of(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return text
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))


def used(tree):
    """`(module, name)` of what code takes from keras_fwd, by `from … import` or by dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "keras_fwd":
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                package, _, name = alias.name.rpartition(".")
                if package.split(".")[0] == "keras_fwd":
                    yield package, name
        elif isinstance(node, ast.Attribute):
            dotted = ast.unparse(node.value)
            if dotted == "keras_fwd" or dotted in [f"keras_fwd.{module}" for module in MODULES]:
                yield dotted, node.attr


@pytest.mark.parametrize("path", [*PAGES, *SCRIPTS], ids=lambda path: path.stem)
def test_what_pages_and_examples_use_is_public(path):
    for module, name in used(ast.parse(code_of(path))):
        public = [*importlib.import_module(module).__all__, "__version__"]
        assert name in public, f"{module}.{name}"


def test_a_private_name_in_a_page_would_be_found():
    code = "import keras_fwd\nfrom keras_fwd._spaces import nest\nkeras_fwd.optimizers._steps"
    assert set(used(ast.parse(code))) == {
        ("keras_fwd._spaces", "nest"),
        ("keras_fwd", "optimizers"),
        ("keras_fwd.optimizers", "_steps"),
    }


@pytest.mark.parametrize("name", MODULES)
def test_a_public_module_says_what_is_public(name):
    module = getattr(keras_fwd, name)
    assert sorted(module.__all__) == sorted(set(module.__all__))
    assert all(hasattr(module, public) for public in module.__all__)


def test_every_module_at_the_top_is_public():
    found = {module.name for module in pkgutil.iter_modules(keras_fwd.__path__)}
    assert {name for name in found if not name.startswith("_")} <= set(MODULES)


def documented():
    """`(name, docstring)` of what is public, and of the methods that it has from this package."""
    for name, value in {n: getattr(keras_fwd, n) for n in keras_fwd.__all__}.items():
        members = [getattr(value, n) for n in getattr(value, "__all__", [])] or [value]
        for member in members:
            if isinstance(member, type) or inspect.isfunction(member):
                yield f"{name}: {member.__name__}", inspect.getdoc(member) or ""
            if isinstance(member, type):
                for key, part in vars(member).items():
                    if inspect.isfunction(part) and not key.startswith("_"):
                        yield f"{name}: {member.__name__}.{key}", inspect.getdoc(part) or ""


def defined():
    """The names of all classes and functions of the package."""
    trees = (ast.parse(path.read_text()) for path in (ROOT / "keras_fwd").rglob("*.py"))
    kinds = ast.ClassDef | ast.FunctionDef
    return {node.name for tree in trees for node in tree.body if isinstance(node, kinds)}


def test_no_public_docstring_leads_to_a_private_name():
    public = {*keras_fwd.__all__, "fit", "epsilon"}  # the last one, of a formula
    for name in MODULES:
        public |= set(getattr(keras_fwd, name).__all__)
    private = defined() - public
    left = []
    for name, text in documented():
        referred = re.findall(r"\b(?:[Aa]s (?:in |of |by )?|[Ss]ee )`(?!keras\.)(\w+)", text)
        left += [f"{name}: {other}" for other in referred if other in private]
        left += [f"{name}: {path}" for path in re.findall(r"keras_fwd[\w.]*\._\w+", text)]
    left = [where for where in left if not re.match(r"optimizers|GaussNewton|KFAC", where)]
    assert not left


def test_what_the_optimizers_return_is_public():
    returned = {"StepStatus", "StepReport", "MinimizeResult", "BlockReport", "CG"}
    assert returned <= set(keras_fwd.optimizers.__all__)
