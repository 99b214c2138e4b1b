"""The house: who may import whom, and what each file may hold. Read from the sources with `ast`."""

import ast
import pathlib
import statistics
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = "keras_fwd"
MAX_LINES, MEDIAN_LINES = 300, 200

# From the ground up: a module imports only from those listed before it. A new file gets a row.
FLOORS = {
    "ground floor, no Keras": [
        "errors",
        "checks",
        "typing",
        "extras",
        "tables",
        "nest",
        "given",
        "vectorized",
        "linear_map",
        "functional",
    ],
    "derivatives, no Keras": [
        "leaks.switch",
        "leaks.transposes",
        "leaks.registry",
        "leaks.graph",
        "leaks.custom_rules",
        "leaks.activations",
        "leaks.color",
        "leaks.complex_values",
        "leaks.contraction",
        "leaks.convolution",
        "leaks.cropping",
        "leaks.elementwise",
        "leaks.pooling",
        "leaks.projection",
        "leaks.resizing",
        "leaks.slicing",
        "leaks.sparse",
        "leaks.tiling",
        "leaks.windows",
        "leaks.rules",
        "leaks.functions",
        "leaks.stand_ins",
        "leaks.sealing",
        "leaks.conditions",
        "leaks.flow",
        "leaks.scan",
        "leaks.closure",
        "leaks.tracing",
        "passes",
        "double_gradient",
        "custom_jvp",
        "leaks.declared",
        "leaks.report",
        "leaks.search",
        "leaks.verification",
        "sealed_function",
        "jvp_from_vjp",
        "weight_rows",
        "jacobians",
        "derivatives",
        "taylor",
    ],
    "linear algebra, no Keras": [
        "solution",
        "stopping",
        "backtracking",
        "cg_loop",
        "solvers",
        "damped_spectrum",
        "least_squares",
        "nest_system",
        "lanczos",
        "spectrum",
        "kronecker",
        "patches",
        "weight_path",
        "weight_products",
        "weight_uses",
        "blocks",
    ],
    "the bridge to Keras": [
        "serializable",
        "nested_layers",
        "layer_marks",
        "separable",
        "weight_penalties",
        "losses",
        "model_losses",
        "model",
        "curvature",
        "fisher",
    ],
    "what users touch": [
        "optimizers.loss_scale",
        "optimizers.hook",
        "optimizers.damping",
        "optimizers.replicas",
        "optimizers.watch",
        "optimizers.step_report",
        "optimizers.convergence",
        "optimizers.expansion",
        "optimizers.bounds",
        "optimizers.precision",
        "optimizers.search",
        "optimizers.training_checks",
        "optimizers.averages",
        "optimizers.curvature_optimizer",
        "optimizers.graph_step",
        "optimizers.block_statistics",
        "optimizers.batch_preconditioner",
        "optimizers.batch_jacobian",
        "optimizers.micro_batch_checks",
        "optimizers.micro_batches",
        "optimizers.triangles",
        "optimizers.dense_system",
        "optimizers.geodesic",
        "optimizers.krylov",
        "optimizers.trust_region",
        "optimizers.residual_pass",
        "optimizers.residual_steps",
        "optimizers.minimization",
        "optimizers.residual_minimizer",
        "optimizers.sub_batch",
        "optimizers.diagonal_preconditioner",
        "optimizers.iterative_system",
        "optimizers.batch_system",
        "optimizers.gauss_newton",
        "optimizers.plane",
        "optimizers.block_states",
        "optimizers.factors",
        "optimizers.block_report",
        "optimizers.factor_options",
        "optimizers.kronecker_optimizer",
        "optimizers.kfac",
        "optimizers.kfac_preconditioner",
        "sensitivity.batches",
        "sensitivity.measures",
        "sensitivity.norms",
        "sensitivity.estimates",
        "sensitivity.columns",
        "sensitivity.fields",
        "sensitivity.schema",
        "sensitivity.serial",
        "sensitivity.presentation",
        "sensitivity.figures",
        "sensitivity.maps",
        "sensitivity.view",
        "sensitivity.charts",
        "sensitivity.swarm",
        "sensitivity.heatmaps",
        "sensitivity.plots",
        "sensitivity.significance",
        "sensitivity.changes",
        "sensitivity.comparison_view",
        "sensitivity.comparison",
        "sensitivity.page_grids",
        "sensitivity.page_data",
        "sensitivity.html_page",
        "sensitivity.report",
        "layers.wrapping",
        "layers.custom_jvp",
        "layers.sealed",
        "layers.linearized",
        "layers.jacobian_layer",
        "layers.laplacian",
        "layers.input_gradient",
        "regularizers.examples",
        "regularizers.batch",
        "regularizers.base",
        "regularizers.features",
        "regularizers.tangents",
        "regularizers.jacobian_norm",
        "regularizers.contractive",
        "regularizers.curvature",
        "regularizers.directional",
        "regularizers.gradient_penalty",
        "regularizers.input_gradient",
        "regularizers.local_linearity",
        "regularizers.monotonic",
        "regularizers.spectral",
        "layers.sensitivity_penalty",
        "regularize",
        "costs",
        "seal",
        "sensitivity.moments",
        "sensitivity.resampling",
        "sensitivity.poincare",
        "sensitivity.switches",
        "sensitivity.accumulator",
        "sensitivity.interactions",
        "sensitivity.slices",
        "sensitivity.stream",
        "sensitivity.progress",
        "sensitivity.background",
        "sensitivity.notes",
        "sensitivity.about",
        "sensitivity.plan",
        "sensitivity.run",
        "sensitivity.analysis",
        "callbacks.budget",
        "callbacks.events",
        "callbacks.schedule",
        "callbacks.jacobian_norm",
        "callbacks.matrices",
        "callbacks.noise",
        "callbacks.curvature",
        "callbacks.evolution",
        "callbacks.sensitivity",
        "callbacks.least_squares_stop",
        "testing",
    ],
}
ORDER = [module for floor in FLOORS.values() for module in floor]
WITHOUT_KERAS = {
    module for floor, modules in FLOORS.items() if floor.endswith("no Keras") for module in modules
}

# Imported with the package; everything else waits until it is used, inside a function.
INSTALLED = {"keras", "numpy", "tensorflow"}
RUNTIME = INSTALLED | sys.stdlib_module_names
LAZY = {"jinja2", "matplotlib", "pandas", "rich", "scipy", "tensorboard"}
COMMAND_LAZY = {"pyarrow", "shtab"}  # of the command alone

# A name from outside that only these modules may speak of.
ONLY_IN = {
    "GradientTape": {"passes"},
}

# Private parts of TensorFlow and Keras: which module, and why there is no public way.
PRIVATE_PREFIXES = ("tensorflow.python", "keras.src")
PRIVATE_IMPORTS = {
    "keras_fwd/_graphs/registry.py": "the gradient registry",
}


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
        if (candidate := ".".join(parts[:length])) in ORDER:
            return candidate
    return inner


def import_violations(module, is_package, imported, lazy):
    """What is wrong with one import in one module."""
    top = imported.partition(".")[0]
    if top != PACKAGE:
        if module in WITHOUT_KERAS and top == "keras":
            yield f"imports {imported}: this floor knows no Keras"
        if top not in RUNTIME | LAZY:
            yield f"imports {imported}: allowed are stdlib, {sorted(INSTALLED | LAZY)}"
        elif top in LAZY and not lazy:
            yield f"imports {imported} at the top: import it in the function that needs it"
        return
    if is_package:
        prefix = f"{PACKAGE}.{module}".rstrip(".")
        if imported != prefix and not imported.startswith(f"{prefix}."):
            yield f"imports {imported}: an __init__ imports only from its own package"
        return
    target = house_module(imported)
    if target not in ORDER:
        yield f"imports {imported}: import the module that defines it, which has a row in FLOORS"
    elif module in ORDER and ORDER.index(target) >= ORDER.index(module):
        yield f"imports {imported}: {target} does not come before {module} in FLOORS"


def violations(path, source):
    """What is wrong with one file of the package; `path` is relative to the repository."""
    parts = pathlib.PurePosixPath(path).with_suffix("").parts[1:]
    is_package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if is_package else parts)
    package = ".".join((PACKAGE, *parts[:-1]))
    tree = ast.parse(source)
    if not is_package and module not in ORDER:
        yield f"{path}: not in the table: give it a row in FLOORS ({pathlib.Path(__file__).name})"
    if parts[-1] == "utils":
        yield f"{path}: name a file after the one idea it holds"
    if (lines := len(source.splitlines())) > MAX_LINES:
        yield f"{path}: {lines} lines, more than {MAX_LINES}: it holds two ideas, part them"
    for imported, line, lazy in imports_of(tree, package):
        for problem in import_violations(module, is_package, imported, lazy):
            yield f"{path}:{line}: {problem}"
        private = f"{imported}.".startswith(tuple(f"{prefix}." for prefix in PRIVATE_PREFIXES))
        if private and path not in PRIVATE_IMPORTS:
            yield f"{path}:{line}: imports {imported}: private, and not in PRIVATE_IMPORTS"
    for name, line in names_of(tree):
        if name in ONLY_IN and module not in ONLY_IN[name]:
            yield f"{path}:{line}: {name}: only in {sorted(ONLY_IN[name])}"
        if name == "keras" and module in WITHOUT_KERAS:
            yield f"{path}:{line}: speaks of keras: this floor knows no Keras"


COMMAND = "keras_fwd_cli"


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


FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / PACKAGE).rglob("*.py"))


@pytest.mark.parametrize("path", FILES)
def test_file_keeps_the_rules_of_the_house(path):
    found = list(violations(path, (ROOT / path).read_text(encoding="utf-8")))
    assert not found, "\n" + "\n".join(found)


COMMAND_FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / COMMAND).rglob("*.py"))


@pytest.mark.parametrize("path", COMMAND_FILES)
def test_file_of_the_command_keeps_the_rules_of_the_house(path):
    found = list(command_violations(path, (ROOT / path).read_text(encoding="utf-8")))
    assert not found, "\n" + "\n".join(found)


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
)
def test_a_planted_violation_in_the_command_is_found(source, message):
    found = "\n".join(command_violations("keras_fwd_cli/main.py", source))
    assert message in found if message else not found


def test_files_are_short():
    lengths = [len((ROOT / p).read_text(encoding="utf-8").splitlines()) for p in FILES]
    assert statistics.median(lengths) <= MEDIAN_LINES


def test_there_are_files_to_check():
    assert FILES and COMMAND_FILES


PLANTED = [
    (
        "keras_fwd/_spaces/nest.py",
        "from keras_fwd import solvers",
        "solvers does not come before nest",
    ),
    ("keras_fwd/_spaces/nest.py", "from . import solvers", "solvers does not come before nest"),
    (
        "keras_fwd/_spaces/nest.py",
        "import keras_fwd._models.training_pass as m",
        "model does not come before nest",
    ),
    (
        "keras_fwd/_spaces/nest.py",
        "from keras_fwd._spaces.nest import add",
        "nest does not come before nest",
    ),
    (
        "keras_fwd/_spaces/nest.py",
        "def f():\n    from .model import a",
        "model does not come before nest",
    ),
    ("keras_fwd/_graphs/registry.py", "from .scan import check", "leaks.scan does not come before"),
    ("keras_fwd/_graphs/scan.py", "from ..model import a", "model does not come before leaks.scan"),
    ("keras_fwd/_models/training_pass.py", "import keras_fwd", "import the module that defines it"),
    (
        "keras_fwd/_models/training_pass.py",
        "from keras_fwd import jvp",
        "import the module that defines it",
    ),
    ("keras_fwd/optimizers/__init__.py", "from keras_fwd import model", "its own package"),
    ("keras_fwd/_linear_algebra/conjugate_gradients.py", "import keras", "knows no Keras"),
    ("keras_fwd/_linear_algebra/conjugate_gradients.py", "from keras import ops", "knows no Keras"),
    (
        "keras_fwd/_linear_algebra/conjugate_gradients.py",
        "import tensorflow as tf\ntf.keras.Model",
        "knows no Keras",
    ),
    ("keras_fwd/_models/training_pass.py", "import torch", "imports torch: allowed are"),
    (
        "keras_fwd/_models/training_pass.py",
        "def f():\n    import torch",
        "imports torch: allowed are",
    ),
    ("keras_fwd/_models/training_pass.py", "import pandas as pd", "at the top"),
    (
        "keras_fwd/_models/training_pass.py",
        "try:\n    import pandas\nexcept ImportError:\n    pass",
        "at the top",
    ),
    (
        "keras_fwd/_models/training_pass.py",
        "import tensorflow as tf\ntf.GradientTape()",
        "only in ['passes']",
    ),
    (
        "keras_fwd/_models/training_pass.py",
        "from tensorflow import GradientTape as T",
        "only in ['passes']",
    ),
    (
        "keras_fwd/_models/training_pass.py",
        "from tensorflow.python.ops import a",
        "not in PRIVATE_IMPORTS",
    ),
    (
        "keras_fwd/_models/training_pass.py",
        "from tensorflow import python",
        "not in PRIVATE_IMPORTS",
    ),
    ("keras_fwd/_models/training_pass.py", "import keras.src.backend", "not in PRIVATE_IMPORTS"),
    ("keras_fwd/brand_new.py", "", "give it a row in FLOORS"),
    ("keras_fwd/leaks/utils.py", "", "name a file after the one idea"),
    ("keras_fwd/_models/training_pass.py", "x = 1\n" * (MAX_LINES + 1), "part them"),
]


@pytest.mark.parametrize(("path", "source", "message"), PLANTED)
def test_a_planted_violation_is_found(path, source, message):
    assert message in "\n".join(violations(path, source))


ALLOWED = [
    (
        "keras_fwd/__init__.py",
        "from keras_fwd._models.training_pass import a\nfrom keras_fwd import solvers",
    ),
    ("keras_fwd/optimizers/__init__.py", "from .gauss_newton import GaussNewton"),
    (
        "keras_fwd/_models/training_pass.py",
        "import keras\nimport numpy as np\nfrom . import errors, nest",
    ),
    (
        "keras_fwd/_models/training_pass.py",
        "from keras_fwd._graphs.scan import scan\nfrom keras_fwd.leaks import graph",
    ),
    ("keras_fwd/_models/training_pass.py", "def f():\n    import pandas as pd"),
    (
        "keras_fwd/_models/training_pass.py",
        '"""Unlike `tf.GradientTape`, see tensorflow.python."""',
    ),
    ("keras_fwd/_derivatives/passes.py", "import tensorflow as tf\ntf.GradientTape()"),
    ("keras_fwd/_graphs/registry.py", "from tensorflow.python.framework import ops"),
    ("keras_fwd/_models/training_pass.py", "x = 1\n" * MAX_LINES),
]


@pytest.mark.parametrize(("path", "source"), ALLOWED)
def test_what_the_house_allows_is_not_reported(path, source):
    assert list(violations(path, source)) == []
