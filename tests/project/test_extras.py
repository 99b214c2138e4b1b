"""Without an extra: what needs it says which to install, and the rest does without."""

import importlib.metadata
import importlib.util
import pathlib
import re
import sys

import keras
import numpy as np
import pytest
from support import extras
from support.report_cases import made_up_report

import keras_fwd
from keras_fwd._checks import EXTRAS, needed
from keras_fwd._leaks.report import LeakReport
from keras_fwd_cli.failures import REPORT
from keras_fwd_cli.main import main

X = np.ones((4, 2), "float32")
ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def network():
    return keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])


def linear_map():
    return keras_fwd.linearize(network(), X)[1]


def watcher():
    callback = keras_fwd.SensitivityCallback(X, max_overhead=None)
    model = network()
    model.compile("sgd", loss="mse")
    model.fit(X, X[:, :1], verbose=0, callbacks=[callback])
    return callback


#: (what is called, the package it needs, how the message starts)
CALLS = [
    (lambda: made_up_report().to_frame(), "pandas", "SensitivityReport.to_frame"),
    (lambda: made_up_report().to_html("none.html"), "jinja2", "SensitivityReport.to_html"),
    (lambda: made_up_report()._repr_html_(), "jinja2", "SensitivityReport"),
    (lambda: made_up_report().plot(), "matplotlib", "SensitivityReport.plot"),
    (lambda: made_up_report().plot("heatmap"), "matplotlib", "SensitivityReport.plot"),
    (lambda: made_up_report().plot("beeswarm"), "matplotlib", "SensitivityReport.plot"),
    (lambda: made_up_report().compare(made_up_report()).to_frame(), "pandas", "SensitivityComp"),
    (lambda: made_up_report().compare(made_up_report()).plot(), "matplotlib", "SensitivityComp"),
    (lambda: watcher().to_html("none.html"), "jinja2", "SensitivityReport.to_html"),
    (lambda: LeakReport([]).to_frame(), "pandas", "LeakReport.to_frame"),
    (lambda: linear_map().to_scipy(), "scipy", "LinearMap.to_scipy"),
    (lambda: keras_fwd.JacobianNormCallback(X, log_dir="x"), "tensorboard", "JacobianNormCallback"),
    (lambda: keras_fwd.CurvatureCallback((X, X), log_dir="x"), "tensorboard", "CurvatureCallback"),
    (lambda: keras_fwd.SensitivityCallback(X, log_dir="x"), "tensorboard", "SensitivityCallback"),
    (lambda: keras_fwd.SensitivityCallback(X, log_dir="x"), "matplotlib", "SensitivityCallback"),
]
#: (arguments of the command, the package it needs)
COMMANDS = [
    (["completion", "bash"], "shtab"),
    (["report", "model.keras", "data.parquet"], "pyarrow"),
    (["report", "model.keras", "data.csv", "-o", "report.html"], "jinja2"),
    (["report", "model.keras", "data.csv", "-o", "report.csv"], "pandas"),
]


def hide(monkeypatch, package):
    """From here on an import of the package fails as if it were not installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize(("call", "package", "start"), CALLS)
def test_a_call_names_the_extra_that_it_needs(monkeypatch, tmp_path, call, package, start):
    monkeypatch.chdir(tmp_path)
    hide(monkeypatch, package)
    shown, extra = EXTRAS[package]
    more = f"; it is in the extra `{extra}`" if extra else ""
    message = rf"^{start}.* needs {shown}: run `pip install {package}`{more}\.$"
    with pytest.raises(ImportError, match=message):
        call()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("arguments", "package"), COMMANDS)
def test_a_command_names_the_extra_that_it_needs(monkeypatch, tmp_path, capsys, arguments, package):
    monkeypatch.chdir(tmp_path)
    network().save("model.keras")
    for name in ("data.csv", "data.parquet"):
        pathlib.Path(name).write_text("a,b\n1,2\n3,4\n")
    hide(monkeypatch, package)
    assert main(arguments) == 2
    words = rf"needs {package}: run `pip install {package}`; it is in the extra `report`\.$"
    assert re.search(words, capsys.readouterr().err.strip())


@pytest.mark.parametrize("package", ["mlxtend", "sklearn", "tensorflow_datasets"])
def test_the_examples_name_theirs(monkeypatch, package):
    for module in ("mlxtend", "sklearn", "tensorflow_datasets"):
        extras.needed(module, "examples")  # so that it is the hidden one which is missed
    hide(monkeypatch, package)
    spec = importlib.util.spec_from_file_location("datasets_again", EXAMPLES / "datasets.py")
    with pytest.raises(ImportError, match=rf"{package}.*: run `pip install '\.\[examples\]'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_without_rich_tables_are_plain_text(monkeypatch):
    hide(monkeypatch, "rich")
    assert "feature" in str(made_up_report())
    assert "no leaks" in str(LeakReport([]))
    assert str(made_up_report().compare(made_up_report()))


def test_a_package_that_is_there_but_broken_is_not_called_missing(monkeypatch, tmp_path):
    (tmp_path / "pandas.py").write_text("import a_dependency_that_is_lost")
    hide(monkeypatch, "pandas")
    monkeypatch.delitem(sys.modules, "pandas")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_dependency_that_is_lost"):
        needed("call", "pandas")
    monkeypatch.delitem(sys.modules, "pandas", raising=False)


def test_every_extra_that_is_named_exists():
    metadata = importlib.metadata.metadata("keras-fwd")
    extras = set(metadata.get_all("Provides-Extra"))
    named = {extra for _, extra in EXTRAS.values() if extra}
    assert named | {"report", "examples"} <= extras
    brought = importlib.metadata.requires("keras-fwd")
    of_report = {r.partition(">")[0] for r in brought if 'extra == "report"' in r.replace("'", '"')}
    assert of_report == set(REPORT)


def texts():
    for pattern in ("README.md", "docs/**/*.md", "keras_fwd*/**/*.py", "examples/*.py"):
        for path in ROOT.glob(pattern):
            if path.relative_to(ROOT).parts[:2] not in {("docs", "gallery"), ("docs", "api")}:
                yield path


def test_nothing_tells_to_install_what_no_index_has():
    """Until keras_fwd is published, a checkout or a wheel is what it comes from."""
    wrong = re.compile(r"pip3? install (?:-\S+ )*[\"']?keras[-_]fwd(?!\S*\.whl)")
    assert wrong.search("run `pip install --upgrade 'keras-fwd[report]'`")
    found = [path for path in texts() if wrong.search(path.read_text(encoding="utf-8"))]
    assert len(list(texts())) > 200
    assert not found
