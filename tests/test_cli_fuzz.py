"""Files with bytes changed, cut or doubled: `keras-fwd` reads them or says why not, in one line."""

import io
import json
import pathlib
import zipfile

import keras
import numpy as np
import pandas
import pytest

import keras_fwd
from keras_fwd_cli.main import main

MUTATIONS = 150


def mutated(random, contents):
    """The bytes with a few of them changed, a piece cut out, doubled or moved."""
    contents = bytearray(contents)
    for _ in range(random.integers(1, 4)):
        a, b = sorted(random.integers(0, len(contents) + 1, 2))
        b = min(b, a + random.integers(1, 64))
        kind = random.integers(5)
        if kind == 0 and contents:
            contents[min(a, len(contents) - 1)] = random.integers(256)
        elif kind == 1:
            del contents[a:b]
        elif kind == 2:
            contents[a:a] = contents[a:b]
        elif kind == 3:
            del contents[a:]
        else:
            contents[a:a] = random.choice([b",", b"\n", b'"', b"\0", b"\xff", b"nan", b"9" * 400])
    return bytes(contents)


def rewritten(random, contents):
    """An archive whose members are changed inside, with check sums that are right again."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(contents)) as old, zipfile.ZipFile(out, "w") as new:
        chosen = random.choice(old.namelist())
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, mutated(random, data) if name == chosen else data)
    return out.getvalue()


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    layers = [keras.layers.Dense(2, "tanh"), keras.layers.Dense(1)]
    keras.Sequential([keras.Input((3,)), *layers]).save(folder / "model.keras")
    values = np.random.default_rng(0).normal(size=(20, 3))
    frame = pandas.DataFrame(values, columns=["a", "b", "c"])
    frame.to_csv(folder / "data.csv", index=False)
    frame.to_parquet(folder / "data.parquet")
    np.savez(folder / "data.npz", x=values, y=values[:, 0])
    return folder


class Report:
    """Reads all data, as a report does, and writes them."""

    def __init__(self, model, data, **_):
        self.total = float(np.sum(np.asarray(model(data))))

    def to_json(self, path):
        pathlib.Path(path).write_text(json.dumps({"total": self.total}))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what libraries remark on a damaged file is not ours
@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((name, mutated) for name in ("data.csv", "data.parquet", "data.npz", "model.keras")),
        *((name, rewritten) for name in ("data.npz", "model.keras")),
    ],
)
def test_no_damaged_file_ends_in_a_traceback(
    originals, tmp_path, monkeypatch, capsys, name, change
):
    monkeypatch.setattr(keras_fwd, "sensitivity_report", Report)
    random = np.random.default_rng(1)
    contents = (originals / name).read_bytes()
    codes = []
    for _ in range(MUTATIONS):
        bad = tmp_path / name
        bad.write_bytes(change(random, contents))
        paths = {"model.keras": originals / "model.keras", "data": originals / "data.csv"}
        paths["model.keras" if name == "model.keras" else "data"] = bad
        out = tmp_path / "report.json"
        code = main(["report", *map(str, paths.values()), "-o", str(out), "--quiet"])
        said = capsys.readouterr()
        assert code in (0, 2) and out.exists() == (code == 0), bad.read_bytes()
        assert said.err.count("\n") == (code == 2), said.err
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
            [name, *(["report.json"] if code == 0 else [])]
        )
        out.unlink(missing_ok=True)
        codes.append(code)
    assert 2 in codes
