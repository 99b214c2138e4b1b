"""The house: which folder may import which, and what each may hold. Read from the sources."""

import ast
import pathlib
import statistics
import subprocess
import sys

import keras
import pytest

import keras_fwd

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE, COMMAND = "keras_fwd", "keras_fwd_cli"
MAX_LINES, MEDIAN_LINES = 400, 200
MAX_AT_THE_TOP, MAX_IN_A_FOLDER, MAX_FILES, MAX_WITH_ONE_IMPORTER = 26, 16, 175, 0.35

# From the ground up: a file imports only from its own folder and from what stands above it here.
# The order is one of folders. A file stands by itself where others need it that its folder needs.
WITHOUT_KERAS = """
errors typing _checks _tables
_spaces _graphs _rules _derivatives _linear_algebra
testing spectrum
""".split()
WITH_KERAS = """
_models losses _curvature.blocks _curvature _leaks
regularizers layers
optimizers.step_report optimizers.cg optimizers._steps optimizers.curvature_optimizer
optimizers._least_squares optimizers._kronecker optimizers._residuals optimizers
sensitivity.measures sensitivity._statistics sensitivity._json sensitivity._showing
sensitivity._page sensitivity.comparison sensitivity.report sensitivity._measuring sensitivity
callbacks._measuring callbacks
_moved
""".split()
ORDER = WITHOUT_KERAS + WITH_KERAS

# Imported with the package; everything else waits until it is used, inside a function.
INSTALLED = {"keras", "numpy", "tensorflow"}
RUNTIME = INSTALLED | sys.stdlib_module_names
LAZY = {"jinja2", "matplotlib", "pandas", "rich", "scipy", "tensorboard"}
COMMAND_LAZY = {"pyarrow", "shtab"}  # of the command alone

# A name from outside that only these modules may speak of.
ONLY_IN = {"GradientTape": {"_derivatives.passes"}}

# Private parts of TensorFlow and Keras: which module, and why there is no public way.
PRIVATE_PREFIXES = ("tensorflow.python", "keras.src")
PRIVATE_IMPORTS = {"keras_fwd/_graphs/registry.py": "the gradient registry"}


def sources(package):
    """Path -> text of all files of a package."""
    found = sorted((ROOT / package).rglob("*.py"))
    return {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in found}


FILES, COMMAND_FILES = sources(PACKAGE), sources(COMMAND)


def module_of(path):
    """Dotted name below its package, `""` for the package's own face."""
    parts = pathlib.PurePosixPath(path).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def place(module):
    """Where a module stands in the order: the longest row that it is, or is inside of."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (candidate := ".".join(parts[:length])) in ORDER:
            return ORDER.index(candidate)
    return None


def names_of(tree):
    """Every identifier in the code: names, attributes and imported names, not text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.alias):
            yield node.name.rpartition(".")[2], getattr(node, "lineno", 0)


def imports_of(tree, package):
    """Yields (dotted name, line, lazy) for every import; relative ones are resolved."""
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}

    def lazy(node):
        while node := parents.get(node):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                return True
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
                return True
        return False

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, lazy(node)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                above = ".".join(parts[: len(parts) - node.level + 1])
                base = f"{above}.{base}" if base else above
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno, lazy(node)


def house_module(imported):
    """The module of ours, relative to the package, which `imported` names or names a part of."""
    inner = imported.removeprefix(PACKAGE).lstrip(".")
    parts = inner.split(".")
    for length in range(len(parts), 0, -1):
        if (candidate := ".".join(parts[:length])) in MODULES:
            return candidate
    return inner


def import_violations(module, is_face, imported, lazy):
    """What is wrong with one import in one module."""
    top = imported.partition(".")[0]
    here = place(module)
    keras_is_known = here is None or ORDER[here] not in WITHOUT_KERAS
    if top != PACKAGE:
        if top == "keras" and not keras_is_known:
            yield f"imports {imported}: this floor knows no Keras"
        if top not in RUNTIME | LAZY:
            yield f"imports {imported}: allowed are stdlib, {sorted(INSTALLED | LAZY)}"
        elif top in LAZY and not lazy:
            yield f"imports {imported} at the top: import it in the function that needs it"
        return
    if is_face:
        prefix = f"{PACKAGE}.{module}".rstrip(".")
        if imported != prefix and not imported.startswith(f"{prefix}."):
            yield f"imports {imported}: an __init__ imports only from its own package"
        return
    target = house_module(imported)
    path = MODULES.get(target)
    if path is None or path.endswith("__init__.py"):
        yield f"imports {imported}: import the module that defines it"
    elif here is not None and place(target) is not None and place(target) > here:
        yield f"imports {imported}: {target} does not come before {module} in the order"
    elif target == module:
        yield f"imports {imported}: itself"


def violations(path, source):
    """What is wrong with one file of the package; `path` is relative to the repository."""
    module, is_face = module_of(path), path.endswith("__init__.py")
    package = ".".join((PACKAGE, *pathlib.PurePosixPath(path).parts[1:-1]))
    tree = ast.parse(source)
    here = place(module)
    if here is None and not is_face:
        yield f"{path}: no row of the order holds it ({pathlib.Path(__file__).name})"
    if module.rpartition(".")[2] == "utils":
        yield f"{path}: name a file after the one idea it holds"
    if (lines := len(source.splitlines())) > MAX_LINES:
        yield f"{path}: {lines} lines, more than {MAX_LINES}: it holds two ideas, part them"
    for imported, line, lazy in imports_of(tree, package):
        for problem in import_violations(module, is_face, imported, lazy):
            yield f"{path}:{line}: {problem}"
        private = f"{imported}.".startswith(tuple(f"{prefix}." for prefix in PRIVATE_PREFIXES))
        if private and path not in PRIVATE_IMPORTS:
            yield f"{path}:{line}: imports {imported}: private, and not in PRIVATE_IMPORTS"
    for name, line in names_of(tree):
        if name in ONLY_IN and module not in ONLY_IN[name]:
            yield f"{path}:{line}: {name}: only in {sorted(ONLY_IN[name])}"
        if name == "keras" and here is not None and ORDER[here] in WITHOUT_KERAS:
            yield f"{path}:{line}: speaks of keras: this floor knows no Keras"


def command_violations(path, source):
    """What is wrong with one file of the command, which must start without TensorFlow."""
    if (lines := len(source.splitlines())) > MAX_LINES:
        yield f"{path}: {lines} lines, more than {MAX_LINES}: it holds two ideas, part them"
    for imported, line, lazy in imports_of(ast.parse(source), COMMAND):
        top = imported.partition(".")[0]
        if top not in sys.stdlib_module_names | {COMMAND} and not lazy:
            yield f"{path}:{line}: imports {imported} at the top: import it where it is needed"
        if top not in RUNTIME | LAZY | COMMAND_LAZY | {PACKAGE, COMMAND}:
            yield f"{path}:{line}: imports {imported}: no dependency of ours"


def graph(files, package):
    """File -> the files of its package that it imports; faces, which only hand on, left out."""
    names = {f"{package}.{module_of(p)}".rstrip("."): p for p in files}
    result = {}
    for path, source in files.items():
        if path.endswith("__init__.py"):
            continue
        parts = pathlib.PurePosixPath(path).parts[:-1]
        found = set()
        for imported, _, _ in imports_of(ast.parse(source), ".".join(parts)):
            while imported and imported not in names:
                imported = imported.rpartition(".")[0]
            found.add(names.get(imported))
        result[path] = {p for p in found if p and p != path and not p.endswith("__init__.py")}
    return result


def circle(imports):
    """The files of a circle of imports, in order, or None."""
    done = set()

    def visit(path, above):
        if path in above:
            return [*above[above.index(path) :], path]
        if path in done:
            return None
        done.add(path)
        for target in sorted(imports.get(path, ())):
            if found := visit(target, [*above, path]):
                return found
        return None

    for path in imports:
        if found := visit(path, []):
            return found
    return None


@pytest.mark.parametrize("path", FILES)
def test_file_keeps_the_rules_of_the_house(path):
    found = list(violations(path, FILES[path]))
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("path", COMMAND_FILES)
def test_file_of_the_command_keeps_the_rules_of_the_house(path):
    found = list(command_violations(path, COMMAND_FILES[path]))
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(("package", "files"), [(PACKAGE, FILES), (COMMAND, COMMAND_FILES)])
def test_no_files_import_each_other_in_a_circle(package, files):
    assert circle(graph(files, package)) is None


def test_a_planted_circle_is_found():
    files = {
        "keras_fwd/errors.py": "from keras_fwd import typing",
        "keras_fwd/typing.py": "def f():\n    from keras_fwd._spaces import nest",
        "keras_fwd/_spaces/nest.py": "from keras_fwd.errors import KerasFwdError",
        "keras_fwd/losses.py": "from keras_fwd import errors",
    }
    found = circle(graph(files, PACKAGE))
    assert found[0] == found[-1] and set(found) == set(files) - {"keras_fwd/losses.py"}
    del files["keras_fwd/_spaces/nest.py"]
    assert circle(graph(files, PACKAGE)) is None


def test_rows_of_the_order_are_there():
    folders = {module.rpartition(".")[0] for module in MODULES}
    assert set(ORDER) <= folders | set(MODULES) and len(set(ORDER)) == len(ORDER)


def test_the_house_is_of_the_size_it_is_meant_to_have():
    """No folder that hides its ideas in a crowd, no file that is only a part of another one."""
    known = subprocess.run(
        ["git", "ls-files", PACKAGE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = [pathlib.PurePosixPath(line) for line in known.stdout.splitlines()]
    folders = {}
    for path in paths:
        for inner, folder in zip(path.parents, path.parents[1:], strict=False):
            folders.setdefault(str(folder), set()).add(inner.name)
        folders.setdefault(str(path.parent), set()).add(path.name)
    crowded = {f: len(names) for f, names in folders.items() if len(names) > MAX_IN_A_FOLDER}
    assert crowded.pop(PACKAGE) <= MAX_AT_THE_TOP and set(crowded) <= {"."}
    imports = graph(FILES, PACKAGE)
    assert len(imports) <= MAX_FILES
    importers = [sum(path in targets for targets in imports.values()) for path in imports]
    assert importers.count(1) <= MAX_WITH_ONE_IMPORTER * len(imports)
    lengths = [len(source.splitlines()) for source in FILES.values()]
    assert statistics.median(lengths) <= MEDIAN_LINES


def test_a_curvature_optimizer_has_few_members_to_override():
    """What is not final, and not Keras' own."""
    from keras_fwd.optimizers import CurvatureOptimizer

    def is_final(member):
        function = member.fget if isinstance(member, property) else member
        return getattr(function, "__final__", False)

    own = {
        name
        for name, member in vars(CurvatureOptimizer).items()
        if not name.startswith("_")
        and not is_final(member)
        and not hasattr(keras.optimizers.Optimizer, name)
    }
    assert own == {"works_on_replicas", "new_pass", "expand", "parts", "take"}


def test_parts_of_a_step_ask_one_another_in_types():
    tree = ast.parse(FILES["keras_fwd/optimizers/_steps/parts.py"])
    assert "Any" not in {name for name, _ in names_of(tree)}
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for function in functions:
        arguments = [a for a in function.args.args if a.arg != "self"]
        assert function.returns and all(a.annotation for a in arguments), function.name


def test_the_face_shows_public_names_and_folders():
    folders = {p.name for p in (ROOT / PACKAGE).iterdir() if p.is_dir() and p.name[0] == "_"}
    shown = {name for name in dir(keras_fwd) if not name.startswith("__")}
    assert shown == set(keras_fwd.__all__) | (folders - {"__pycache__"})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import keras_fwd", "at the top"),
        ("from keras_fwd.errors import KerasFwdError", "at the top"),
        ("import numpy as np", "at the top"),
        ("def f():\n    import torch", "no dependency of ours"),
        ("x = 1\n" * (MAX_LINES + 1), "part them"),
        ("def f():\n    import keras_fwd", ""),
        ("from keras_fwd_cli import voice\nimport json", ""),
    ],
    ids=["ours", "from ours", "numpy", "torch", "long", "lazy", "its own"],
)
def test_a_planted_violation_in_the_command_is_found(source, message):
    found = "\n".join(command_violations("keras_fwd_cli/main.py", source))
    assert message in found if message else not found


NEST, MODEL = "keras_fwd/_spaces/nest.py", "keras_fwd/_models/training_pass.py"
PLANTED = [
    (NEST, "from keras_fwd import losses", "losses does not come before _spaces.nest"),
    (NEST, "from .. import losses", "losses does not come before _spaces.nest"),
    (NEST, "import keras_fwd.losses as m", "losses does not come before _spaces.nest"),
    (NEST, "from keras_fwd._spaces.nest import add", "itself"),
    (NEST, "def f():\n    from ..losses import a", "losses does not come before"),
    (
        "keras_fwd/_graphs/registry.py",
        "from keras_fwd._rules.table import a",
        "_rules.table does not come before _graphs.registry",
    ),
    (
        "keras_fwd/regularizers/base.py",
        "from keras_fwd.layers.sealed import Sealed",
        "layers.sealed does not come before regularizers.base",
    ),
    (
        "keras_fwd/optimizers/_steps/search.py",
        "from keras_fwd.optimizers.curvature_optimizer import CurvatureOptimizer",
        "optimizers.curvature_optimizer does not come before optimizers._steps.search",
    ),
    (MODEL, "import keras_fwd", "import the module that defines it"),
    (MODEL, "from keras_fwd import jvp", "import the module that defines it"),
    (MODEL, "from keras_fwd._spaces import none", "import the module that defines it"),
    ("keras_fwd/optimizers/__init__.py", "from keras_fwd import losses", "its own package"),
    (NEST, "import keras", "knows no Keras"),
    (NEST, "from keras import ops", "knows no Keras"),
    (NEST, "import tensorflow as tf\ntf.keras.Model", "knows no Keras"),
    (MODEL, "import torch", "imports torch: allowed are"),
    (MODEL, "def f():\n    import torch", "imports torch: allowed are"),
    (MODEL, "import pandas as pd", "at the top"),
    (MODEL, "try:\n    import pandas\nexcept ImportError:\n    pass", "at the top"),
    (MODEL, "import tensorflow as tf\ntf.GradientTape()", "only in ['_derivatives.passes']"),
    (MODEL, "from tensorflow import GradientTape as T", "only in ['_derivatives.passes']"),
    (MODEL, "from tensorflow.python.ops import a", "not in PRIVATE_IMPORTS"),
    (MODEL, "from tensorflow import python", "not in PRIVATE_IMPORTS"),
    (MODEL, "import keras.src.backend", "not in PRIVATE_IMPORTS"),
    ("keras_fwd/brand_new.py", "", "no row of the order holds it"),
    ("keras_fwd/_rules/utils.py", "", "name a file after the one idea"),
    (MODEL, "x = 1\n" * (MAX_LINES + 1), "part them"),
]


@pytest.mark.parametrize(
    ("path", "source", "message"), PLANTED, ids=[source[:40] or path for path, source, _ in PLANTED]
)
def test_a_planted_violation_is_found(path, source, message):
    assert message in "\n".join(violations(path, source))


ALLOWED = [
    ("keras_fwd/__init__.py", "from keras_fwd._derivatives.hessian import a"),
    ("keras_fwd/optimizers/__init__.py", "from .gauss_newton import GaussNewton"),
    (
        MODEL,
        "import keras\nimport numpy as np\nfrom keras_fwd import errors\nfrom .. import typing",
    ),
    (MODEL, "from keras_fwd._graphs.scan import check\nfrom keras_fwd._graphs import graph"),
    (MODEL, "def f():\n    import pandas as pd"),
    (MODEL, '"""Unlike `tf.GradientTape`, see tensorflow.python."""'),
    ("keras_fwd/_derivatives/passes.py", "import tensorflow as tf\ntf.GradientTape()"),
    ("keras_fwd/_graphs/registry.py", "from tensorflow.python.framework import ops"),
    (MODEL, "x = 1\n" * MAX_LINES),
]


@pytest.mark.parametrize(("path", "source"), ALLOWED, ids=[source[:40] for _, source in ALLOWED])
def test_what_the_house_allows_is_not_reported(path, source):
    assert list(violations(path, source)) == []


def test_there_are_files_to_check():
    assert FILES and COMMAND_FILES
