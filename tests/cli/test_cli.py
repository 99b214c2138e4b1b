"""The `keras-fwd` command: exit codes, one line for what is wrong, and files whole or not there."""

import dataclasses
import io
import json
import os
import pathlib
import subprocess
import sys
import time
import tomllib
import types
import zipfile

import keras
import numpy as np
import pandas
import pytest

import keras_fwd
from keras_fwd_cli import files, loading, voice
from keras_fwd_cli.data import inputs
from keras_fwd_cli.main import main

ROOT = pathlib.Path(__file__).resolve().parents[2]
CARS = "weight,year,power,mpg\n" + "".join(f"{3000 + i},{70 + i},{90 - i},20\n" for i in range(6))


@dataclasses.dataclass
class Report:
    """A made-up report, which knows only what the command asks of one."""

    interrupted: bool = False
    examples: int = 6
    slices: dict = dataclasses.field(default_factory=dict)

    def __str__(self):
        return "the table"

    def to_html(self, path, title="Sensitivity"):
        pathlib.Path(path).write_text(f"<title>{title}</title>")

    def to_json(self, path=None):
        text = '{"examples": 6, "mean": [null]}'
        return text if path is None else pathlib.Path(path).write_text(text)

    def to_frame(self):
        return pandas.DataFrame({"feature": ["weight"]}).set_index("feature")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models and data that no test changes."""
    folder = tmp_path_factory.mktemp("models")
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]).save(folder / "cars.keras")
    norm = keras.Sequential([keras.Input((3,)), keras.layers.LayerNormalization()])
    norm.save(folder / "norm.keras")
    (folder / "cars.csv").write_text(CARS)
    os.mkfifo(folder / "pipe.csv")
    return folder


@pytest.fixture
def calls(monkeypatch):
    """What the reports were asked for; `answer` makes them."""
    calls = types.SimpleNamespace(answer=Report, asked=[])

    def sensitivity_report(model, data, **options):
        calls.asked.append((model, data, options))
        return calls.answer()

    monkeypatch.setattr(keras_fwd, "sensitivity_report", sensitivity_report)
    return calls


@pytest.fixture
def run(folder, capsys, monkeypatch):
    """Runs a command in the folder of the models: `(exit code, stdout, stderr)`."""
    monkeypatch.chdir(folder)

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


REPORT = ("report", "cars.keras", "cars.csv", "--target", "mpg")

# Arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], *([c] for c in "report leaks compare coverage".split())])
def test_help_has_examples_and_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0 and "keras-fwd" in shown
    assert "examples:" in shown and ("exit codes:" in shown) == (not command)


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"keras-fwd {keras_fwd.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND (see keras-fwd --help)"),
        (["reports"], "invalid choice: 'reports'"),
        (["report"], "required: MODEL.keras, DATA (see keras-fwd report --help)"),
        ([*REPORT, "--seed", "x"], "argument --seed: must be an integer of at least 0: 'x'"),
        ([*REPORT, "--max-examples", "0"], "--max-examples: must be an integer of at least 1: '0'"),
        ([*REPORT, "--features", "a,,b"], "argument --features: an empty name in 'a,,b'"),
        ([*REPORT, "-o", "r.pdf"], "--output r.pdf: the name must end in .html or .json or .csv."),
        ([*REPORT, "-o", "none/r.html"], "--output none/r.html: there is no folder none."),
        (["report", "cars.keras", "none.csv"], "none.csv: no such file."),
        (["report", "cars.keras", "data.xlsx"], "data.xlsx: data must be one of .csv, .tsv"),
        (["report", "none.keras", "cars.csv"], "none.keras: no such file."),
        (["leaks", "cars.csv"], "cars.csv: must be a .keras file, as model.save("),
        (["leaks", "."], ".: is a folder; name a .keras file."),
        (["report", "cars.keras", "pipe.csv"], "pipe.csv: is no regular file; a pipe"),
        (["completion", "cmd"], "invalid choice: 'cmd'"),
    ],
)
def test_what_is_wrong_with_the_arguments_is_one_line(run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and message in err
    assert err.startswith("keras-fwd: ") and err.count("\n") == 1 and err.endswith("\n")


def test_the_installed_command_answers_without_tensorflow():
    target = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["keras-fwd"]
    module, _, function = target.partition(":")
    code = (
        f"import sys; from {module} import {function}\n"
        "for arguments in (['--help'], ['report', '--help'], ['--version'], ['leaks']):\n"
        f"    try: {function}(arguments)\n"
        "    except SystemExit: pass\n"
        "found = {'tensorflow', 'keras', 'keras_fwd', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported: {found}' if found else 0)"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - start < 2


# Reports ------------------------------------------------------------------------------------


def test_a_report_is_printed(run, calls):
    assert run(*REPORT) == (0, "the table\n", "")
    ((model, data, options),) = calls.asked
    assert isinstance(model, keras.Model) and not model.compiled
    np.testing.assert_array_equal(data[:2], [[3000, 70, 90], [3001, 71, 89]])
    assert data.dtype == np.float32
    assert options == {
        "feature_names": ("weight", "year", "power"), "features": None, "outputs": None,
        "by": None, "interactions": 0, "max_examples": None, "seed": 0,
        "batch_size": None, "discrete": (),
        "progress": False,
    }  # fmt: skip


def test_options_reach_the_report(run, calls):
    options = "--features weight,year --features power --outputs a --interactions 3"
    options += " --max-examples 5 --seed 7 --batch-size 2"
    assert run(*REPORT, *options.split())[0] == 0
    ((_, _, asked),) = calls.asked
    assert asked["features"] == ["weight", "year", "power"] and asked["outputs"] == ["a"]
    names = ("interactions", "max_examples", "seed", "batch_size")
    assert [asked[name] for name in names] == [3, 5, 7, 2]


def test_progress_is_for_a_terminal(run, calls, monkeypatch):
    monkeypatch.setattr(voice, "on_terminal", lambda: True)
    run(*REPORT)
    run(*REPORT, "--quiet")
    assert [options["progress"] for *_, options in calls.asked] == [True, False]


def test_a_report_is_written_by_its_ending(run, calls, tmp_path):
    page, text, table = (tmp_path / f"r.{form}" for form in ("html", "json", "csv"))
    assert run(*REPORT, "-o", page, "--title", "A & B") == (0, f"wrote {page}\n", "")
    assert page.read_text() == "<title>A & B</title>"
    assert run(*REPORT, "-o", text, "--quiet") == (0, "", "")
    assert run(*REPORT, "-o", table)[0] == 0
    assert json.loads(text.read_text())["examples"] == 6 and "weight" in table.read_text()
    assert len(list(tmp_path.iterdir())) == 3  # nothing is left of the writing


def test_json_goes_to_standard_output_alone(run, calls, tmp_path):
    code, out, err = run(*REPORT, "--json", "-o", tmp_path / "r.html")
    assert (code, json.loads(out), err) == (0, {"examples": 6, "mean": [None]}, "")


def test_errors_are_json_too_where_that_is_asked_for(run):
    for arguments in (["report", "--json"], ["leaks", "none.keras", "--json"]):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "") and list(json.loads(err)) == ["error"]


def test_columns_that_nothing_reads_are_a_note(run, calls, folder):
    age, year = (keras.Input((1,), name=name) for name in ("age", "year"))
    model = keras.Model([age, year], keras.layers.Dense(1)(keras.layers.Concatenate()([age, year])))
    model.save(folder / "two.keras")
    (folder / "two.csv").write_text("year,age,id,sex\n1,2,3,m\n4,5,6,f\n")
    said = "two.csv: columns that the model does not read: id."
    assert run("report", "two.keras", "two.csv", "--by", "sex")[2] == f"keras-fwd: {said}\n"
    assert json.loads(run("report", "two.keras", "two.csv", "--json", "--by", "sex")[2]) == {
        "note": said
    }
    assert run("report", "two.keras", "two.csv", "--quiet", "--by", "sex")[2] == ""
    _, ((age, year), sex), options = calls.asked[0]
    assert options["by"] == "target" and sex.tolist() == ["m", "f"]
    assert age.tolist() == [[2], [5]] and year.tolist() == [[1], [4]]


def test_an_interrupted_report_is_kept_and_said(run, calls, tmp_path):
    calls.answer = lambda: Report(interrupted=True, examples=4)
    code, out, err = run(*REPORT, "-o", tmp_path / "r.html")
    assert (code, out) == (130, f"wrote {tmp_path / 'r.html'}\n")
    assert err == "keras-fwd: interrupted: the report holds the 4 examples done by then.\n"
    assert (tmp_path / "r.html").exists()


def raiser(error):
    def answer():
        raise error

    return answer


def test_an_interruption_before_there_is_a_report_is_said(run, calls):
    calls.answer = raiser(KeyboardInterrupt())
    assert run(*REPORT) == (130, "", "keras-fwd: interrupted; nothing was written.\n")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            keras_fwd.ConfigurationError("sensitivity_report: `by` …\nReceived: x"),
            "`by` … Received",
        ),
        (keras_fwd.LeakError("no rule"), "no rule"),
        (MemoryError(), "out of memory: use fewer examples (--max-examples)"),
        (ImportError("pandas is needed"), "pandas is needed"),
        (ModuleNotFoundError("No module named 'rich'", name="rich"), "'rich': run `pip install"),
        (OSError(28, "No space left on device", "r.html"), "r.html: No space left on device"),
        (ValueError("Input 0 of layer dense\nis incompatible"), "Input 0 of layer dense is incomp"),
    ],
)
def test_what_goes_wrong_on_the_way_is_one_line(run, calls, error, message):
    calls.answer = raiser(error)
    code, out, err = run(*REPORT)
    assert (code, out, err.count("\n")) == (2, "", 1) and message in err


def test_what_a_model_cannot_be_run_on_is_one_line(run, calls):
    import tensorflow as tf

    error = tf.errors.InvalidArgumentError(None, None, "indices[0] = 9 is not in [0, 5)")
    calls.answer = raiser(error)
    assert "cannot be run on these data: indices[0] = 9" in run(*REPORT)[2]


def test_codes_beyond_an_embedding_are_one_line(run, folder):
    kind = keras.Input((), name="kind", dtype="int32")
    out = keras.layers.Dense(1)(keras.layers.Embedding(3, 2)(kind))
    keras.Model(kind, out).save(folder / "codes.keras")
    (folder / "codes.csv").write_text("kind\n0\n7\n1\n")
    code, out, err = run("report", "codes.keras", "codes.csv")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "= 7 is not in [0, 3)" in err and "File" not in err


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError(),
        ImportError("cannot import name", name="keras_fwd._spaces.nest"),
        ModuleNotFoundError("No module named", name="keras_fwd.none"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_defect_of_ours_keeps_its_traceback(run, calls, error):
    calls.answer = raiser(error)
    with pytest.raises(type(error)):
        run(*REPORT)


def test_a_pipe_that_is_closed_ends_the_command(run, calls, monkeypatch):
    calls.answer = raiser(BrokenPipeError())
    assert run(*REPORT) == (141, "", "")


@pytest.fixture(scope="module")
def linear(folder):
    """A linear model, data with a bad cell in two rows, and its coefficients."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="mpg")])
    coefficients = np.array([[3.0], [-0.5], [2.0]])
    model.set_weights([coefficients, np.zeros(1)])
    model.save(folder / "linear.keras")
    rows = np.random.default_rng(0).normal(size=(40, 3)).round(3).astype(str)
    rows[3, 0], rows[5, 1] = "", "inf"
    lines = [f"{','.join(row)},{i % 2}" for i, row in enumerate(rows)]
    (folder / "linear.csv").write_text("\n".join(["a,b,c,mpg", *lines]))
    return coefficients


LINEAR = ("report", "linear.keras", "linear.csv", "--target", "mpg")


def test_a_linear_model_is_reported_by_its_coefficients(run, linear):
    code, out, err = run(*LINEAR, "--by", "mpg", "--json")
    report = json.loads(out)
    assert (code, err) == (0, "") and report["features"] == ["a", "b", "c"]
    np.testing.assert_allclose(report["measures"]["mean"]["value"], linear)
    assert (report["examples"], report["left_out"]) == (38, 2)
    assert any("a (1), b (1)" in note for note in report["notes"])
    assert list(report["slices"]) == ["mpg = 0", "mpg = 1"]


def test_a_report_is_written_and_compared_with_itself(run, linear, tmp_path):
    page, text = tmp_path / "r.html", tmp_path / "r.json"
    assert run(*LINEAR, "--features", "a,c", "-o", page, "--title", "<Cars>")[0] == 0
    assert "&lt;Cars&gt;" in page.read_text(encoding="utf-8")
    assert run(*LINEAR, "-o", text)[0] == 0
    assert run("compare", text, text, "--check")[::2] == (0, "")
    table = tmp_path / "r.csv"
    assert run(*LINEAR, "-o", table)[0] == 0
    assert pandas.read_csv(table)["feature"].tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--features=a,d", "`features` must be names of features"),
        ("--outputs=z", "`outputs` must be names of outputs"),
    ],
)
def test_names_that_the_report_does_not_know_are_said(run, linear, option, message):
    code, out, err = run(*LINEAR, option)
    assert (code, out, err.count("\n")) == (2, "", 1) and message in err


def test_one_row_is_a_report(run, linear, folder):
    (folder / "one.csv").write_text("a,b,c\n1,2,3\n")
    code, out, err = run("report", "linear.keras", "one.csv")
    assert (code, err) == (0, "") and "1 example" in out


# Files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_a_file_is_whole_or_as_it_was(tmp_path, error):
    path = tmp_path / "r.html"
    path.write_text("before")

    def half(aside):
        aside.write_text("half")
        raise error

    with pytest.raises(type(error)):
        files.write_aside(path, half)
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"] and path.read_text() == "before"


def test_a_file_keeps_its_rights_and_the_link_to_it(tmp_path):
    path, link = tmp_path / "r.html", tmp_path / "link.html"
    path.write_text("before")
    path.chmod(0o640)
    link.symlink_to(path)
    files.write_aside(link, lambda aside: aside.write_text("after"))
    assert link.is_symlink() and path.read_text() == "after"
    assert path.stat().st_mode & 0o777 == 0o640
    files.write_aside(tmp_path / "new.html", lambda aside: aside.write_text("after"))
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "new.html").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_folder_without_the_right_to_write_is_said(run, tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "access", lambda path, mode: mode != os.W_OK)  # for root too
    assert "no right to write there" in run(*REPORT, "-o", tmp_path / "r.html")[2]


# Models -------------------------------------------------------------------------------------


def archive(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in members.items():
            file.writestr(name.replace("_", ".", 1), text)
    return buffer.getvalue()


def with_units(path, units):
    """A model whose dense layer has another number of units than its weights."""
    with zipfile.ZipFile(path) as file:
        members = {name.replace(".", "_", 1): file.read(name) for name in file.namelist()}
    text = members["config_json"].decode().replace('"units": 1,', f'"units": {units},')
    return archive(**(members | {"config_json": text}))


def without_layers(path):
    """A model whose list of layers is lost; Keras loads it all the same."""
    with zipfile.ZipFile(path) as file:
        members = {name.replace(".", "_", 1): file.read(name) for name in file.namelist()}
    config = json.loads(members["config_json"])
    config["config"] = {"name": "empty", "layers": {}}
    config.pop("build_config", None)  # by which Keras would see it
    return archive(**(members | {"config_json": json.dumps(config)}))


def flipped(path):
    """A model's file with one byte of its weights changed."""
    contents = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        place = file.getinfo("model.weights.h5").header_offset + 200
    contents[place] ^= 0xFF
    return bytes(contents)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (lambda path: b"", "damaged, or no .keras file: File is not a zip file."),
        (lambda path: b"\x89HDF\r\n\x1a\n" * 9, "damaged, or no .keras file: File is not a zip"),
        (lambda path: path.read_bytes()[:-9], "damaged, or no .keras file: File is not a zip"),
        (flipped, "damaged: the check sum of model.weights.h5 is wrong."),
        (without_layers, "without layers: there is nothing in it."),
        (lambda path: archive(a="b"), "no Keras model: config.json is missing in it."),
        (lambda path: archive(config_json="{", metadata_json="{}"), "cannot be loaded: "),
        (lambda path: archive(config_json="[" * 9**5, metadata_json="{}"), "cannot be loaded: "),
        (
            lambda path: with_units(path, -3),
            "cannot be loaded: Received an invalid value for `units`, expected a positive integer.",
        ),
        (lambda path: with_units(path, 10**30), "cannot be loaded: ValueError: Can't convert"),
        (
            lambda path: archive(
                config_json=json.dumps(
                    {"module": "os", "class_name": "system", "config": {"command": "true"}}
                ),
                metadata_json="{}",
            ),
            "needs the class 'system', which neither Keras nor keras_fwd knows.",
        ),
    ],
    ids=[
        "nothing",
        "an HDF5 file",
        "the end is missing",
        "a bit flipped",
        "no layers",
        "an archive of something else",
        "no JSON",
        "deep JSON",
        "negative units",
        "huge units",
        "a function of the system",
    ],
)
def test_a_damaged_model_is_one_line(run, folder, tmp_path, contents, message):
    path = tmp_path / "bad.keras"
    path.write_bytes(contents(folder / "cars.keras"))
    code, out, err = run("leaks", path)
    assert (code, out, err.count("\n")) == (2, "", 1) and message in err


def test_an_archive_that_grows_without_measure_is_not_unpacked(run, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "FREE_GROWTH", 1 << 16)
    path = tmp_path / "bomb.keras"
    path.write_bytes(archive(config_json="{}", metadata_json="{}", model_weights=b"\0" * 10**6))
    assert "would unpack to 0.0 GB: no model, refused." in run("leaks", path)[2]


@pytest.fixture
def hostile(tmp_path):
    """A model whose Lambda layer leaves a file behind when it is loaded or called."""
    trace = tmp_path / "trace"
    layer = keras.layers.Lambda(eval(f"lambda x: (open({str(trace)!r}, 'w').close(), x)[1]"))
    model = keras.Sequential([keras.Input((3,)), layer])
    path = tmp_path / "hostile.keras"
    model.save(path)
    trace.unlink(missing_ok=True)
    return path, trace


def test_code_in_a_model_runs_only_if_that_is_asked_for(run, hostile):
    path, trace = hostile
    code, out, err = run("leaks", path)
    assert (code, out, err.count("\n")) == (2, "", 1) and not trace.exists()
    assert "a Lambda layer with Python code, which safe mode does not run" in err
    assert "--unsafe" in err
    assert run("leaks", path, "--unsafe")[0] == 0 and trace.exists()


def test_layers_of_this_package_are_known(run, tmp_path):
    model = keras_fwd.seal_leaks(keras.saving.load_model("norm.keras", compile=False))
    model.save(tmp_path / "sealed.keras")
    assert run("leaks", tmp_path / "sealed.keras")[:2] == (0, "no leaks\n")


def test_inputs_keep_the_structure_of_the_model():
    a, b = keras.Input((2,), name="a"), keras.Input((), name="b", dtype="int32")
    out = keras.layers.Concatenate()([a, keras.layers.Embedding(3, 2)(b)])
    arrays = {"a": np.zeros([4, 2]), "b": np.zeros(4)}
    assert [i.kind for i in inputs.declared(keras.Model([b, a], out))] == ["integer", "float"]
    assert inputs.pack(keras.Model([b, a], out), arrays)[1] is arrays["a"]
    keyed = keras.Model({"b": b, "a": a}, out)
    assert {i.name for i in inputs.declared(keyed)} == {"a", "b"}
    assert inputs.pack(keyed, arrays)["a"] is arrays["a"]
    assert [i.dtype for i in inputs.declared(keyed)] == ["float32", "int32"]
    assert inputs.pack(keras.Model((a, b), out), arrays)[0] is arrays["a"]
    assert type(inputs.pack(keras.Model((a, b), out), arrays)) is list  # a tuple means (x, y)
    double = keras.Sequential([keras.Input((2,), dtype="float64"), keras.layers.Dense(1)])
    assert inputs.declared(double)[0].dtype == "float64"
    alone = keras.Model(a, keras.layers.Dense(1)(a))
    assert inputs.pack(alone, arrays) is arrays["a"]


# Comparisons --------------------------------------------------------------------------------


class Comparison:
    """A made-up comparison of two reports, which are texts here."""

    def __init__(self, before, after, measure=("standardized_rms",)):
        self.measure, self.same = list(measure), before == after
        self.changes = {
            name: types.SimpleNamespace(significant=np.array([[not self.same]]))
            for name in self.measure
        }
        self.only_before = ((), ("gone",) if "gone" in before else ())
        self.only_after = ((), ())

    def __str__(self):
        return f"{self.measure}: {'same' if self.same else 'changed'}"

    def to_json(self):
        return json.dumps({"same": self.same})

    def to_frame(self):
        return pandas.DataFrame({"measure": self.measure})


@pytest.fixture
def reports(folder, monkeypatch):
    class Texts(str):
        def compare(self, other, **measure):
            return Comparison(self, other, **measure)

        @classmethod
        def from_json(cls, text):
            if text == '{"format": 3}':
                raise keras_fwd.ConfigurationError("from_json: no report. Received: 3")
            return cls(text)

    monkeypatch.setattr(keras_fwd, "SensitivityReport", Texts)
    texts = {"a": "{}", "b": '{"b": 1}', "gone": '{"gone": 1}'}
    texts |= {"list": "[]", "other": '{"format": 3}'}
    for name, text in texts.items():
        (folder / f"{name}.json").write_text(text)
    (folder / "cut.json").write_text('{\n  "a": ')
    (folder / "deep.json").write_text("[" * 10**5)
    (folder / "latin.json").write_bytes(b'"\xe9"')


def test_a_comparison_is_printed_and_written(run, reports, tmp_path):
    assert run("compare", "a.json", "b.json") == (0, "['standardized_rms']: changed\n", "")
    assert run("compare", "a.json", "b.json", "--json")[1] == '{"same": false}\n'
    assert run("compare", "a.json", "a.json", "--measure", "mean,rms")[1][:15] == "['mean', 'rms']"
    for form, text in {"json": '{"same": false}', "csv": "measure\nstandardized_rms\n"}.items():
        path = tmp_path / f"changes.{form}"
        assert run("compare", "a.json", "b.json", "-o", path) == (0, f"wrote {path}\n", "")
        assert path.read_text() == text


@pytest.mark.parametrize(
    ("names", "code"), [("a a", 0), ("a b", 1), ("gone gone", 1)], ids=["same", "changed", "gone"]
)
def test_a_comparison_is_checked(run, reports, names, code):
    paths = [f"{name}.json" for name in names.split()]
    assert run("compare", *paths)[0] == 0
    assert run("compare", *paths, "--check")[0] == code


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "none.json: no such file."),
        ("cut", "cut.json: no JSON: line 2, column 8: Expecting value."),
        ("deep", "deep.json: no report: nested too deeply."),
        ("latin", "latin.json: no UTF-8 text, so no report in JSON."),
        ("other", "other.json: from_json: no report. Received: 3"),
        ("list", "list.json: no report: the JSON is no object."),
    ],
)
def test_what_is_no_report_is_one_line(run, reports, name, message):
    code, out, err = run("compare", "a.json", f"{name}.json")
    assert (code, out, err) == (2, "", f"keras-fwd: {message}\n")


# Leaks, completion --------------------------------------------------------------------------


def test_leaks_are_printed_and_checked(run):
    assert run("leaks", "cars.keras", "--check") == (0, "no leaks\n", "")
    code, out, _ = run("leaks", "norm.keras")
    assert code == 0 and "StopGradient" in out
    code, out, _ = run("leaks", "norm.keras", "--check", "--json", "--verify")
    found = json.loads(out)
    assert code == 1 and found["model"] == "norm.keras" and found["verification"]
    assert [row["op"] for row in found["leaks"]] == ["StopGradient"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh"])
def test_every_shell_completes_commands_and_options(run, shell):
    code, out, err = run("completion", shell)
    assert (code, err) == (0, "") and "keras-fwd" in out
    assert "max-examples" in out and "compare" in out


@pytest.mark.parametrize(
    ("words", "completed"), [("report --tar", "--target"), ("leaks no", "norm.keras")]
)
def test_bash_completes_options_and_files(run, tmp_path, words, completed):
    (tmp_path / "script").write_text(run("completion", "bash")[1])
    ask = (
        f"source {tmp_path / 'script'}; COMP_WORDS=(keras-fwd {words}); COMP_CWORD=2; "
        "$(complete -p keras-fwd | grep -o '_shtab_[a-z_]*'); echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [completed]


def test_completion_without_its_library_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert "pip install shtab" in run("completion", "bash")[2]
