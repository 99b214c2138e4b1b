"""`keras-fwd coverage`: what it writes, what it compares, and what it says is missing."""

import json

import pytest

from keras_fwd_cli.main import main

EXACT = {"1": "exact", "2": "exact"}
ROW = {"name": "Dense", "wrt": "inputs", "outcomes": {"graph": {**EXACT, "3": "exact"}}, "note": ""}


def results(folder, *rows, family="Layers", **more):
    folder.mkdir(exist_ok=True)
    contents = {"family": family, "rows": list(rows), **more}
    (folder / f"{family}.0.json").write_text(json.dumps(contents))
    return folder


def written(tmp_path, *rows, **more):
    output = tmp_path / "coverage.md"
    folder = results(tmp_path / "results", *rows, **more)
    code = main(["coverage", "--results", str(folder), "--output", str(output)])
    assert code == 0
    return output.read_text()


def test_an_exact_row_says_so(tmp_path):
    text = written(tmp_path, ROW)
    assert "| Dense | inputs | exact | exact | exact | graph 3 |  |" in text
    assert "| Layers | 1 | 0 | 0 | 0 | 0 | 0 |" in text


def test_modes_that_differ_are_named(tmp_path):
    outcomes = {"graph": EXACT, "eager": {"1": "exact"}, "xla": {**EXACT, "2": "LeakError: Lu"}}
    text = written(tmp_path, {**ROW, "outcomes": outcomes})
    assert "| exact | exact (graph); LeakError `Lu` (XLA) | – | graph 2, eager 1, XLA 2 |" in text
    assert "| Layers | 0 | 1 | 0 | 0 | 0 | 0 |" in text


def test_what_differs_from_run_to_run_is_left_out(tmp_path):
    outcomes = {"graph": {"1": "wrong: t1 2e-03", "2": "error: TypeError: node_17"}}
    text = written(tmp_path, {**ROW, "outcomes": outcomes})
    assert "| **wrong** | **error** TypeError |" in text
    assert "2e-03" not in text and "node_17" not in text
    assert "| Layers | 0 | 0 | 0 | 1 | 0 | 0 |" in text  # a row counts once, by its worst


def test_listed_and_unknown_names_are_shown(tmp_path):
    names = [{"name": "Hashing", "reason": "integers in"}]
    text = written(tmp_path, ROW, listed=names, **{"not covered": ["Brand"]})
    assert "* integers in: `Hashing`" in text
    assert "| Brand | | **not covered** |" in text


def test_families_keep_their_order(tmp_path):
    folder = tmp_path / "results"
    results(folder, ROW, family="keras.ops")
    text = written(tmp_path, ROW, family="Layers")
    assert text.index("## Layers") < text.index("## keras.ops")


def test_check_tells_a_difference(tmp_path, capsys):
    written(tmp_path, ROW)
    command = ["coverage", "--check", "--output", str(tmp_path / "coverage.md"), "--results"]
    assert main([*command, str(tmp_path / "results")]) == 0
    capsys.readouterr()
    folder = results(tmp_path / "results", {**ROW, "note": "new"})
    assert main([*command, str(folder)]) == 1
    shown = capsys.readouterr()
    assert "+| Dense | inputs | exact | exact | exact | graph 3 | new |" in shown.out
    assert "run `keras-fwd coverage`" in shown.err


def test_a_share_is_compared_row_by_row(tmp_path, capsys):
    text = written(tmp_path, ROW, {**ROW, "name": "Other"})
    output, folder = str(tmp_path / "coverage.md"), results(tmp_path / "some", ROW)
    (folder / "share").write_text("a share of 1 of 2 cases")
    command = ["coverage", "--check", "--output", output, "--results"]
    assert main([*command, str(folder)]) == 0
    assert "| Layers | 2 | 0 |" in text  # a count that no share could have
    capsys.readouterr()
    results(folder, {**ROW, "note": "new"})
    assert main([*command, str(folder)]) == 1
    assert "| new |" in capsys.readouterr().out


def test_a_share_writes_no_file(tmp_path, capsys):
    folder = results(tmp_path / "some", ROW)
    (folder / "share").write_text("a share of 1 of 2 cases")
    output = tmp_path / "coverage.md"
    assert main(["coverage", "--output", str(output), "--results", str(folder)]) == 2
    assert main(["coverage", "--output", str(output), "--share"]) == 2
    assert not output.exists() and "--share needs --check" in capsys.readouterr().err


def test_check_of_a_file_that_is_not_there_fails(tmp_path):
    folder = results(tmp_path / "results", ROW)
    missing = str(tmp_path / "none.md")
    assert main(["coverage", "--check", "--results", str(folder), "--output", missing]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "nowhere"], "no conformance suite in nowhere: it comes with a checkout"),
        (["--results", "nowhere"], "no results in nowhere"),
    ],
)
def test_what_is_missing_is_said_without_a_traceback(arguments, message, capsys):
    assert main(["coverage", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_named(tmp_path, capsys):
    folder = results(tmp_path / "results", ROW)
    output = str(tmp_path / "none" / "coverage.md")
    assert main(["coverage", "--results", str(folder), "--output", output]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_the_suite_is_run_and_its_failures_are_told(tmp_path, capfd):
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "test_conformance.py").write_text(
        "import json, os, pathlib, pytest\n"
        "pytestmark = pytest.mark.conformance\n"
        "def test_one():\n"
        "    folder = pathlib.Path(os.environ['CONFORMANCE_RESULTS'])\n"
        f"    rows = {[ROW]!r}\n"
        "    contents = {'family': 'Layers', 'rows': rows}\n"
        "    (folder / 'one.json').write_text(json.dumps(contents))\n"
        "    assert False\n"
    )
    output = tmp_path / "coverage.md"
    command = ["coverage", "--suite", str(suite), "--output", str(output), "--jobs", "0"]
    assert main(command) == 1
    assert "| Dense | inputs | exact |" in output.read_text()
    capfd.readouterr()
