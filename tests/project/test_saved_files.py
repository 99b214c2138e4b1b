"""What version 0.1.0 saved loads: models, optimizers with their state, reports, pickles.

`data/saved_0_1_0/write.py` made the files, before modules moved to where they are now.
"""

import importlib.util
import json
import pathlib
import pickle
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_fwd
from keras_fwd import _moved, layers, losses, regularizers
from keras_fwd.layers.regularize import LossRegularizedModel, RegularizedModel
from keras_fwd.sensitivity.comparison import SensitivityComparison

FILES = pathlib.Path(__file__).parents[1] / "data" / "saved_0_1_0"
KNOWN = json.loads((FILES / "known.json").read_text())

# Imported for the functions and classes that the models name, which it registers with Keras.
_spec = importlib.util.spec_from_file_location("saved_case", FILES / "write.py")
saved_case = importlib.util.module_from_spec(_spec)
sys.modules["saved_case"] = saved_case
_spec.loader.exec_module(saved_case)


def load(name):
    return keras.saving.load_model(FILES / f"{name}.keras")


def test_every_model_has_a_known_answer():
    assert {path.stem for path in FILES.glob("*.keras")} == set(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_a_model_predicts_what_it_predicted(name):
    found = keras.tree.flatten(load(name).predict(saved_case.X, verbose=0))
    for y, known in zip(found, KNOWN[name]["outputs"], strict=True):
        np.testing.assert_allclose(y, known, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in KNOWN if name.startswith("trained_")])
def test_an_optimizer_has_the_state_it_had_and_goes_on(name):
    model = load(name)
    state = [np.asarray(variable) for variable in model.optimizer.variables]
    assert len(state) == len(KNOWN[name]["state"])
    for value, known in zip(state, KNOWN[name]["state"], strict=True):
        np.testing.assert_allclose(value, known, rtol=1e-6)
    before = model.evaluate(saved_case.X, saved_case.Y, verbose=0)
    steps = int(model.optimizer.iterations)
    model.fit(saved_case.X, saved_case.Y, batch_size=8, epochs=2, verbose=0)
    assert int(model.optimizer.iterations) == steps + 2
    after = model.evaluate(saved_case.X, saved_case.Y, verbose=0)
    assert after < 1.1 * before


@pytest.mark.parametrize("name", [name for name in KNOWN if name.startswith("regularized_")])
def test_a_regularized_model_trains_on(name):
    model = load(name)
    history = model.fit(saved_case.X, saved_case.Y, epochs=2, verbose=0).history
    assert np.all(np.isfinite(history["loss"]))
    assert isinstance(model.loss, losses.Cauchy)


def test_the_options_of_conjugate_gradients_are_read():
    found = json.dumps(load("trained_cg").optimizer.get_config(), default=str)
    assert re.search(r'max_(solver_)?iterations": 7', found)
    for option, value in {
        "preconditioner": '"kfac"',
        "warm_start": "true",
        "backtracking": "true",
        "progress_tolerance": 0.0005,
        "curvature_batch": 4,
    }.items():
        assert f'{option}": {value}' in found, option


def test_a_report_is_read_from_json():
    report = keras_fwd.SensitivityReport.from_json((FILES / "sensitivity_report.json").read_text())
    saved = pickle.loads((FILES / "sensitivity_report.pickle").read_bytes())
    assert report.feature_names == ("a", "b", "c")
    for name, estimate in saved.measures.items():
        np.testing.assert_allclose(report.measures[name].value, estimate.value, rtol=1e-12)
        np.testing.assert_allclose(report.measures[name].low, estimate.low, rtol=1e-12)


# name of the pickle -> (class, a part of its text)
PICKLES = {
    "sensitivity_report": (keras_fwd.SensitivityReport, "40 examples"),
    "comparison": (SensitivityComparison, "3 of 3 sensitivities changed"),
    "leak_report": (keras_fwd.LeakReport, "seal_leaks"),
    "step_report": (tuple, "step"),
    "step_status": (int, ""),
    "block_report": (object, "Kronecker"),
    "minimize_result": (tuple, "steps"),
    "leak_error": (keras_fwd.LeakError, "a leak"),
    "regularizer": (regularizers.JacobianNorm, ""),
    "cauchy": (losses.Cauchy, ""),
    "regularized_model": (RegularizedModel, ""),
    "loss_regularized_model": (LossRegularizedModel, ""),
    "sealed_layer": (layers.Sealed, ""),
    "trained_model": (keras.Model, ""),
    "optimizer": (keras_fwd.KFAC, ""),
}


def test_every_pickle_has_a_case():
    assert {path.stem for path in FILES.glob("*.pickle")} == set(PICKLES)


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_loads_prints_and_is_pickled_again(name):
    expected, words = PICKLES[name]
    value = pickle.loads((FILES / f"{name}.pickle").read_bytes())
    assert isinstance(value, expected)
    assert words in str(value) and repr(value)
    assert type(pickle.loads(pickle.dumps(value))) is type(value)


MOVED = [(old, name) for old, (_, names) in _moved.CLASSES.items() for name in sorted(names)]


@pytest.mark.parametrize(("old", "name"), MOVED, ids=[f"{old}.{name}" for old, name in MOVED])
def test_an_old_reference_is_found(old, name):
    found = pickle.loads(f"c{old}\n{name}\n.".encode())
    assert isinstance(found, type)
    assert found.__name__ == name
    assert found.__module__ != old


@pytest.mark.parametrize(
    "code",
    [
        "import keras_fwd.leaks",
        "import keras_fwd.leaks.scan",
        "import keras_fwd.nest",
        "from keras_fwd.solvers import ConjugateGradient",
        "from keras_fwd.leaks.report import text_table",
        "from keras_fwd.custom_jvp import closure",
        "from keras_fwd.sensitivity.moments import Places",
    ],
)
def test_other_old_paths_fail_with_the_error_of_python(code):
    with pytest.raises(ImportError, match="keras_fwd"):
        exec(code, {})


def test_pickles_load_where_only_pickle_was_imported():
    """As in another process: no name is known but those that `import keras_fwd` brings."""
    code = "import pickle, sys; import keras_fwd; print(pickle.load(open(sys.argv[1], 'rb')))"
    command = [sys.executable, "-c", code, str(FILES / "leak_report.pickle")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert "SoftsignGrad" in run.stdout, run.stderr
