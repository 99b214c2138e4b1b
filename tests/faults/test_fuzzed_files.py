"""Ten thousand damaged and hostile files: `keras-fwd` reads them or says why not, in one line.

Where nothing changed since they were all right, a share of each kind is taken.

The command runs in this process. Whatever a file holds, the exit code is one that the help names,
there is no traceback, no file is left behind or written elsewhere, no code in it runs, and neither
time nor memory get out of hand.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
from collections.abc import Callable

import keras
import numpy as np
import pandas
import pytest

import keras_fwd
from faults import file_mutations as files
from faults import hostile_models as models
from keras_fwd_cli import loading
from keras_fwd_cli.main import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # what libraries remark on such a file is not ours
]

CHUNK = 50
SECONDS = 20  # of processor time, for one file
MEGABYTES = 700  # beyond what the process takes; reading what may be unpacked takes 256


@dataclasses.dataclass(frozen=True)
class Kind:
    """A way to break a file.

    Attributes:
        id: Its name.
        file: Which of the originals.
        make: `make(random, contents, canary)` returns the bytes of a bad one.
        count: How many of the ten thousand.
    """

    id: str
    file: str
    make: Callable
    count: int


def plain(change):
    return lambda random, contents, canary: change(random, contents)


def of_report(random, contents, canary):
    """A report whose fields have values that they cannot have."""
    text = json.dumps(files.changed(random, json.loads(contents)))
    if random.random() < 0.05:
        text = text.replace("null", files.nested(int(random.integers(100_000))), 1)
    return text.encode("utf-8", "surrogatepass")


KINDS = [
    Kind("csv, bytes", "data.csv", plain(files.mutated), 2000),
    Kind("parquet, bytes", "data.parquet", plain(files.mutated), 1250),
    Kind("npz, bytes", "data.npz", plain(files.mutated), 1000),
    Kind("npz, inside", "data.npz", plain(files.rewritten), 500),
    Kind("npz, headers", "data.npz", plain(files.with_header), 500),
    Kind("npz, pickles", "data.npz", files.with_pickle, 250),
    Kind("npz, archives", "data.npz", files.hostile, 250),
    Kind("keras, bytes", "model.keras", plain(files.mutated), 750),
    Kind("keras, inside", "model.keras", plain(files.rewritten), 500),
    Kind("keras, values", "model.keras", plain(models.misconfigured), 750),
    Kind("keras, code", "model.keras", models.attacking, 500),
    Kind("keras, archives", "model.keras", files.hostile, 250),
    Kind("json, bytes", "report.json", plain(files.mutated), 500),
    Kind("json, values", "report.json", of_report, 1000),
]
CHUNKS = [
    pytest.param(
        kind,
        chunk,
        id=f"{kind.id}, {chunk}",
        marks=pytest.mark.recorded("fuzzed files", kind=kind.id),
    )
    for kind in KINDS
    for chunk in range(kind.count // CHUNK)
]


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    layers = [keras.layers.Dense(2, "tanh"), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.save(folder / "model.keras")
    values = np.random.default_rng(0).normal(size=(20, 3))
    frame = pandas.DataFrame(values, columns=["a", "b", "c"])
    frame.to_csv(folder / "data.csv", index=False)
    frame.to_parquet(folder / "data.parquet")
    np.savez(folder / "data.npz", x=values, y=values[:, 0])
    report = keras_fwd.sensitivity_report(model, values.astype("float32"), interactions=1)
    (folder / "report.json").write_text(report.to_json())
    return folder


class Report:
    """Reads all data, as a report does, and writes them; in the place of one, which takes long."""

    def __init__(self, model, data, **_):
        self.total = float(np.sum(np.asarray(model(data))))

    def to_json(self, path):
        pathlib.Path(path).write_text(json.dumps({"total": self.total}))


class TooLong(BaseException):  # no `except Exception` catches it
    """A file took more processor time than it may."""


@contextlib.contextmanager
def limited(seconds=SECONDS):
    """Processor time, which a busy machine does not use up."""

    def stop(*_):
        raise TooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def memory(name):
    """A line of what Linux knows of this process, in megabytes; 0 on other systems."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) // 1024
    return 0


def forget_peak():
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")


class Bench:
    """A folder in which the command is given one bad file after another."""

    def __init__(self, originals, folder, capsys):
        self.originals, self.capsys = originals, capsys
        self.root = folder
        self.folder = folder / "work"
        self.folder.mkdir()
        self.canary = folder / "canary"
        self.out = self.folder / "out.json"
        self.codes = []

    def arguments(self, bad, *options):
        name, data = bad.name, self.originals / "data.csv"
        if name == "report.json":
            return ["compare", str(self.originals / name), str(bad), "-o", str(self.out), "--quiet"]
        model = self.originals / "model.keras"
        pair = [bad, data] if name == "model.keras" else [model, bad]
        return ["report", *map(str, pair), "-o", str(self.out), "--quiet", *options]

    def give(self, name, contents, *options):
        """Run the command on a bad file, and check all that must hold whatever is in it."""
        bad = self.folder / name
        bad.write_bytes(contents)
        forget_peak()
        before = memory("VmRSS")
        with limited():
            code = main(self.arguments(bad, *options))
        said = self.capsys.readouterr()
        grown = memory("VmHWM") - before
        self.codes.append(code)
        assert code in (0, 2), code
        assert said.out == "" and said.err.count("\n") == (code == 2), said.err
        assert code == 0 or said.err.startswith("keras-fwd: "), said.err
        assert "out of memory" not in said.err, said.err
        assert grown < MEGABYTES, f"{grown} MB more than before"
        self.check_files(name, code)
        return code, said.err

    def check_files(self, name, code):
        """The result is whole, and nothing else is there."""
        if code == 0:
            json.loads(self.out.read_text())
            self.out.unlink()
        left = {str(path.relative_to(self.root)) for path in self.root.rglob("*")}
        assert left == {"work", f"work/{name}"}, left


@pytest.fixture
def bench(originals, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(keras_fwd, "sensitivity_report", Report)
    monkeypatch.setenv("HOME", str(tmp_path))  # where Keras would keep what it downloads
    made = Bench(originals, tmp_path, capsys)
    monkeypatch.chdir(made.folder)
    return made


@pytest.mark.parametrize(("kind", "chunk"), CHUNKS)
def test_no_bad_file_does_harm(bench, monkeypatch, record_property, kind, chunk):
    contents = (bench.originals / kind.file).read_bytes()
    if kind.file.startswith("data"):  # the model is whole, and loading it takes long
        model = loading.load_model(bench.originals / "model.keras")
        monkeypatch.setattr(loading, "load_model", lambda *_: model)
    for index in range(CHUNK):
        random = np.random.default_rng([KINDS.index(kind), *divmod(CHUNK * chunk + index, 250)])
        bad = kind.make(random, contents, bench.canary)
        try:
            bench.give(kind.file, bad)
        except BaseException as error:
            keep(kind, chunk, index, bad)
            raise AssertionError(f"file {index} of {kind.id}, {chunk}: {error!r}") from error
    keras.backend.clear_session()
    assert 2 in bench.codes
    read, refused = bench.codes.count(0), bench.codes.count(2)
    record_property("found", {f"{kind.id}: read": read, f"{kind.id}: refused": refused})


def keep(kind, chunk, index, contents):
    """The file that was found, for whoever looks for the reason."""
    if folder := os.environ.get("FUZZ_FINDINGS"):
        path = pathlib.Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{kind.id}, {chunk}, {index}{pathlib.Path(kind.file).suffix}").write_bytes(
            contents
        )


def test_there_are_ten_thousand_files():
    assert sum(kind.count for kind in KINDS) == 10_000
    assert all(kind.count % CHUNK == 0 for kind in KINDS)


# --- the checks themselves ------------------------------------------------------------------------


def misbehave(monkeypatch, act):
    """A report that does harm in the place of the stub."""

    class Planted(Report):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            act()

    monkeypatch.setattr(keras_fwd, "sensitivity_report", Planted)


def fail():
    raise KeyError("a defect")


def linger():
    while True:
        pass


HARM = {
    "traceback": fail,
    "stray file": lambda: pathlib.Path("stray").touch(),
    "file elsewhere": lambda: pathlib.Path("../canary").touch(),
    "talk": lambda: print("something"),
    "memory": lambda: np.ones(int(MEGABYTES * 1.3e6), "uint8").sum(),
}


@pytest.mark.parametrize("harm", HARM)
def test_planted_harm_is_found(bench, monkeypatch, harm):
    if harm == "memory" and not memory("VmHWM"):
        pytest.skip("the peak of memory is known on Linux only")
    misbehave(monkeypatch, HARM[harm])
    with pytest.raises((AssertionError, KeyError)):
        bench.give("data.csv", (bench.originals / "data.csv").read_bytes())


def test_a_planted_loop_is_ended():
    with pytest.raises(TooLong), limited(0.2):
        linger()


def test_code_runs_if_that_is_asked_for(bench):
    """The attack that is refused above is one: with `--unsafe` it runs."""
    contents = (bench.originals / "model.keras").read_bytes()
    parts = files.members(contents)
    model = json.loads(parts["config.json"])
    model["config"]["layers"].insert(1, models.attacks(bench.canary)[0])
    parts["config.json"] = json.dumps(model).encode()
    bad = files.archive(parts.items())
    code, said = bench.give("model.keras", bad)
    assert code == 2 and "--unsafe" in said
    with pytest.raises(AssertionError, match="canary"):
        bench.give("model.keras", bad, "--unsafe")
