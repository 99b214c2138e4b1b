"""The page of benchmarks says what the records say, and the runner knows every benchmark."""

import importlib
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
TOO_LONG = 300


@pytest.fixture
def load(monkeypatch):
    """Import of a module beside the benchmarks, which find each other by their directory."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and (
            pathlib.Path(sys.modules[name].__file__).parent == BENCHMARKS
        ):
            del sys.modules[name]


def test_the_page_of_benchmarks_is_made_from_the_records(load):
    page = load("page")
    assert page.PAGE.read_text() == page.text(), "run `python benchmarks/page.py`"


def test_the_tables_of_the_page_on_scaling_are_made_from_its_record(load):
    page = load("page")
    now = page.SCALING.read_text()
    assert now == page.scaling_text(now), "run `python benchmarks/page.py`"
    assert "| GaussNewton, dense |" in now


def test_the_runner_knows_every_benchmark_and_no_other(load):
    rows = load("suite").BENCHMARKS
    scripts = {row.script or name for name, row in rows.items()}
    with_command_line = {
        path.stem
        for path in BENCHMARKS.glob("*.py")
        if "record.parser(" in path.read_text() or "peak_memory.of_sides(" in path.read_text()
    }
    assert scripts == with_command_line - {"peak_memory"}


def test_every_record_belongs_to_a_benchmark_and_is_that_of_a_full_run(load):
    page, rows = load("page"), load("suite").BENCHMARKS
    assert {path.stem for path in page.RESULTS.glob("*.json")} <= set(rows)
    for name, found in page.records().items():
        assert found["benchmark"] == name and not found["quick"]


def test_peers_have_a_file_of_requirements(load):
    for row in load("suite").BENCHMARKS.values():
        assert row.peer is None or (BENCHMARKS / f"requirements-{row.peer[1]}.txt").exists()


@pytest.mark.slow
def test_a_peer_that_cannot_be_made_is_left_out(load, monkeypatch, tmp_path, capsys):
    peers = load("peers")
    (tmp_path / "requirements-none.txt").write_text("a name that no package has\n")
    monkeypatch.setattr(peers, "HERE", tmp_path)
    monkeypatch.setattr(peers, "HOME", tmp_path / "envs")
    assert peers.python_of("none") is None
    assert "its figures stay empty" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("limits", "value", "met"),
    [
        ({"at_most": 2.0}, 1.9, True),
        ({"at_most": 2.0}, 2.1, False),
        ({"at_least": 2.0}, 2.1, True),
        ({"at_least": 2.0}, 1.9, False),
        ({"at_most": 2.0}, None, None),
        ({"at_most": 2.0}, float("nan"), None),
        ({"at_most": 2.0}, float("inf"), False),
    ],
)
def test_a_goal_is_met_missed_or_not_measured(load, limits, value, met):
    found = load("record").Record()
    found.goal("a ratio", value, **limits)
    (goal,) = found.content()["goals"]
    assert goal["met"] is met


def test_a_record_tells_no_directories(load):
    words = [
        "/home/someone/benchmarks/jvp.py",
        "--jax",
        ".venv-peers/jax/bin/python",
        "--json",
        "x",
    ]
    assert load("record").command(words) == "python benchmarks/jvp.py --jax PYTHON"


def test_the_exponent_of_a_power_law_and_its_error(load):
    fitted = load("scaling").fitted
    slope, error = fitted([1, 2, 4, 8], [3.0, 12.0, 48.0, 192.0])
    assert abs(slope - 2) < 1e-12 and error < 1e-7
    slope, error = fitted([1, 2, 4], [1.0, 2.0, 2.0])  # by hand: 1/2, and 1 / (2 √3)
    assert abs(slope - 0.5) < 1e-12 and abs(error - 12**-0.5) < 1e-12
    assert fitted([1], [1.0]) == (None, None)


def test_benchmarks_stay_short():
    for path in BENCHMARKS.glob("*.py"):
        assert len(path.read_text().splitlines()) <= TOO_LONG, path.name
