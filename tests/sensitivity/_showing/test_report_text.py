"""A sensitivity report as text: `print(report)`."""

import re
import sys

import numpy as np
import pytest
from support.report_cases import made_up_report

from keras_fwd.sensitivity._showing.presentation import TEXT_WIDTH, interval, number, text_table


def of_features(report, lines):
    """The first words of the lines of the table, one a feature."""
    return [line[:10].strip() for line in lines if line.startswith(("feature ", "⇄"))][1:]


def test_text_sorts_by_strength_within_80_columns():
    report = made_up_report(5, 1)
    lines = text_table(report).splitlines()
    assert max(map(len, lines)) <= TEXT_WIDTH
    assert lines[0] == "Sensitivity of 1 output to 5 features, 100 examples"
    wanted = [report.feature_names[i] for i in report.ranking()]
    assert of_features(report, lines) == wanted
    assert "per unit of the" in text_table(report) and report.notes[0] in lines[-1]


def test_text_holds_the_numbers_of_every_output_with_the_errors():
    report = made_up_report(4, 3)
    text = text_table(report)
    strength = report.measures["standardized_rms"]
    for i in range(4):
        for o in range(3):
            line = [
                line
                for line in text.splitlines()
                if number(report.measures["mean"].value[i, o]) in line.split()
                and f"output {o}" in line
            ]
            value, _, error = line[0].split()[-3:]
            assert float(value) == pytest.approx(strength.value[i, o], abs=strength.stderr[i, o])
            assert float(error) == pytest.approx(strength.stderr[i, o], rel=0.06)


def test_switches_are_marked_also_where_the_name_is_cut():
    names = ("plain", "origin: 1 → 2", "kind: " + "very long " * 9)
    report = made_up_report(3, 1, feature_names=names, kinds=("derivative", "switch", "switch"))
    text = text_table(report)
    assert "⇄ origin: 1 → 2 " in text and "⇄ kind: very long" in text and "⇄ plain" not in text
    assert "effect of switching" in " ".join(text.split())
    assert "⇄" not in text_table(made_up_report(3, 1))


@pytest.mark.parametrize("outputs", [1, 2])
def test_long_wide_and_hostile_names_stay_within_80_columns(outputs):
    names = ("a" * 200, "[bold]b[/bold]", "名前" * 50, "line\nbreak\x1b[31mred", "e\u0301" * 60)
    report = made_up_report(
        5, outputs, feature_names=names, output_names=("o" * 90,) * outputs, notes=("n" * 300,)
    )
    report.measures["mean"].value[:] = -1.23456e-17
    report.measures["mean_abs"].value[:] = 1.23456e17
    text = text_table(report)
    wide = [
        len(line) + len(re.findall("[名前]", line)) - line.count("\u0301")
        for line in text.splitlines()
    ]
    assert max(wide) <= TEXT_WIDTH
    assert "[bold]b" in text and "\x1b" not in text
    assert len(text.splitlines()) < 30


def test_many_features_are_counted_and_not_listed():
    text = text_table(made_up_report(100, 1))
    assert "… and 60 features more" in text and len(text.splitlines()) < 60
    assert "… and 80 features more" in text_table(made_up_report(100, 2))


def test_a_single_example_has_dashes_for_errors():
    report = made_up_report(2, 1, examples=1)
    report.measures["standardized_rms"].stderr[:] = np.nan
    assert text_table(report).count("± –") == 2
    assert ", 1 example" in text_table(report)


def test_text_needs_no_rich(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    assert "std. rms ± s.e." in text_table(made_up_report(2, 1))


@pytest.mark.parametrize(
    ("numbers", "texts"),
    [
        ((0.44312, 0.4145, 0.4718), ("0.443", "0.414", "0.472")),
        ((123.4, 101.0, 149.0), ("123", "101", "149")),
        ((1.5, np.nan, np.nan), ("1.50", "–", "–")),
        ((2e-9, 1e-9, 3e-9), ("2.00e-09", "1.00e-09", "3.00e-09")),
        ((1.0, -np.inf, np.inf), ("1.00", "–", "–")),
    ],
)
def test_intervals_have_matching_decimals(numbers, texts):
    assert interval(*numbers) == texts
