"""What a suite of tests depends on: the code that it reaches by its imports, without words.

Static: nothing is imported. A name that a package passes on counts as the module that defines it,
so a suite that takes `jvp` from `keras_fwd` does not depend on the report's page. A package that is
used as a whole, or in a way that is not understood, counts with all that it passes on.
"""

import ast
import functools
import hashlib
import importlib.metadata
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
VERSIONS = ("tensorflow", "keras", "numpy")
#: Functions that take an attribute's name as a string, after the object.
BY_NAME = {"getattr", "setattr", "hasattr", "delattr"}


class Tree:
    """The modules in some folders, and what imports what.

    Args:
        roots: Folders from which modules are imported: of the checkout, and of its tests.
    """

    def __init__(self, roots):
        self.roots = [pathlib.Path(root) for root in roots]

    @functools.cache  # noqa: B019 - a tree lives as long as the process
    def file(self, module):
        """The file of a module or package; None if it is not in the folders."""
        if not module:
            return None
        for root in self.roots:
            path = root.joinpath(*module.split("."))
            for candidate in (path.with_suffix(".py"), path / "__init__.py"):
                if candidate.is_file():
                    return candidate
        return None

    @functools.cache  # noqa: B019
    def parsed(self, path):
        return without_words(ast.parse(path.read_text(encoding="utf-8")))

    @functools.cache  # noqa: B019
    def code(self, path):
        """The code of a file as bytes: the same whatever its words and its layout are."""
        return ast.dump(self.parsed(path)).encode()

    def closure(self, files):
        """The files that some files reach, themselves included."""
        found, left = set(), [pathlib.Path(file) for file in files]
        while left:
            path = left.pop()
            if path not in found:
                found.add(path)
                left += self.reached(path)
        return sorted(found)

    @functools.cache  # noqa: B019
    def reached(self, path):
        """The files that a file reaches at once."""
        tree = self.parsed(path)
        reached, aliases = set(), {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not node.level:
                for alias in node.names:
                    self._bind(node.module, alias, aliases, reached)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.asname:
                        self._module(alias.name, alias.asname, aliases, reached)
                    else:  # `import a.b` binds `a`, and loads `a.b`
                        if "." in alias.name and self.file(alias.name):
                            reached.add(self.file(alias.name))
                        first = alias.name.partition(".")[0]
                        self._module(first, first, aliases, reached)
        return frozenset(reached | self._used(tree, aliases))

    def _bind(self, module, alias, aliases, reached):
        if not self.file(module) and not self.file(f"{module}.{alias.name}"):
            return
        inner = f"{module}.{alias.name}"
        if self.file(inner):
            self._module(inner, alias.asname or alias.name, aliases, reached)
        else:
            target = self.definition(module, alias.name)
            if isinstance(target, str):
                self._module(target, alias.asname or alias.name, aliases, reached)
            else:
                reached |= target

    def _module(self, module, name, aliases, reached):
        """A module under a name; of a package, only what is used of it counts."""
        file = self.file(module)
        if file is None:
            return
        if file.name == "__init__.py":
            aliases.setdefault(name, set()).add(module)
        else:
            reached.add(file)

    def definition(self, package, name):
        """The files that define a package's name; or the name of a package that it stands for."""
        file = self.file(package)
        if file is None:
            return set()
        if file.name != "__init__.py":
            return {file}
        for node in self.parsed(file).body:
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if name in (alias.asname or alias.name, "*"):
                        inner = f"{node.module}.{alias.name}"
                        if (target := self.file(inner)) is not None:
                            return inner if target.name == "__init__.py" else {target}
                        return self.definition(node.module, alias.name)
        if (inner := self.file(f"{package}.{name}")) is not None:
            return f"{package}.{name}" if inner.name == "__init__.py" else {inner}
        return {file}  # defined there, or not known: with all that the file imports

    def _used(self, tree, aliases):
        """What is used of the packages that a file knows under names of its own."""
        if not aliases:
            return set()
        uses, inside, plain = [], set(), []  # (name, attributes after it)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and id(node) not in inside:
                name, attributes = _chain(node, inside)
                if name in aliases:
                    uses.append((name, attributes))
            elif isinstance(node, ast.Call) and (named := _by_name(node, inside)):
                uses.append(named)
            elif isinstance(node, ast.Name) and node.id in aliases:
                plain.append(node)
        uses += [(node.id, []) for node in plain if id(node) not in inside]  # as a value
        uses += [(name, []) for name in aliases.keys() - {name for name, _ in uses}]  # only loaded
        reached = set()
        for name, attributes in uses:
            for package in aliases.get(name, ()):
                reached |= self._follow(package, attributes)
        return reached

    def _follow(self, package, attributes):
        """The files behind `package.a.b.c`; of the package as a whole, all that it passes on."""
        if not attributes:
            return {self.file(package)}
        target = self.definition(package, attributes[0])
        return self._follow(target, attributes[1:]) if isinstance(target, str) else target


def _chain(node, inside):
    """The name that `a.b.c` begins with and the others, if it is made of names alone."""
    names = []
    while isinstance(node, ast.Attribute):
        inside.add(id(node))
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None, []
    inside.add(id(node))
    return node.id, names[::-1]


def _by_name(call, inside):
    """The object and the attribute of `getattr(a, "b")` and its like."""
    how = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if how not in BY_NAME or len(call.args) < 2:
        return None
    first, second = call.args[:2]
    if not isinstance(first, ast.Name) or not isinstance(second, ast.Constant):
        return None
    inside.add(id(first))
    return first.id, [second.value]


def without_words(tree):
    """The code of a module without its docstrings; comments are not in a tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return tree


def data_beside(path):
    """The files beside a module that are no code, and those in folders that hold none."""
    for other in sorted(path.parent.iterdir()):
        if other.is_file() and other.suffix not in (".py", ".pyc", ".json", ".typed"):
            yield other
        elif other.is_dir() and other.name != "__pycache__" and not [*other.glob("*.py")]:
            yield from (file for file in sorted(other.rglob("*")) if file.is_file())


def digest(tree, files, more=()):
    """A hash of all code that some files reach, of other files, and of versions."""
    paths, total = tree.closure(files), hashlib.sha256()
    for path in paths:
        total.update(f"{_place(tree, path)}\n".encode() + tree.code(path))
    beside = {other for path in paths if "tests" not in path.parts for other in data_beside(path)}
    for path in sorted(beside | {pathlib.Path(path) for path in more}):
        total.update(_place(tree, path).encode() + path.read_bytes())
    total.update(repr(versions()).encode())
    return total.hexdigest()[:32]


def _place(tree, path):
    return str(path.relative_to(next(root for root in tree.roots if path.is_relative_to(root))))


def versions():
    """The versions that what is found depends on."""
    found = {name: importlib.metadata.version(name) for name in VERSIONS}
    return {**found, "python": ".".join(map(str, sys.version_info[:2]))}


def checkout():
    """The modules of this checkout and of its tests."""
    return Tree([ROOT, ROOT / "tests"])
