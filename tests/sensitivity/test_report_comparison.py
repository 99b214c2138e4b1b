"""Comparisons of sensitivity reports: closed forms, false discoveries, calibration, texts."""

import dataclasses
import json
import sys
import types

import keras
import numpy as np
import pytest
import scipy.stats
from support.report_cases import made_up_report

from keras_fwd import ConfigurationError, SensitivityReport, sensitivity_report
from keras_fwd.sensitivity._statistics import changes
from keras_fwd.sensitivity._statistics.estimates import Estimate
from keras_fwd.sensitivity.comparison import compare


def report_of(value, stderr, name="mean", **fields):
    """A report whose measure `name` is given, `[features, outputs]`."""
    value, stderr = np.broadcast_arrays(np.asarray(value, float), stderr)
    report = made_up_report(*value.shape, sample=0)
    measures = {
        **report.measures,
        name: Estimate(value, stderr, value - 1.96 * stderr, value + 1.96 * stderr),
    }
    return dataclasses.replace(report, measures=measures, **fields)


def live(report, key, replicates):
    """A report that still has its resamples."""
    source = types.SimpleNamespace(key=key, replicates=replicates.get)
    return dataclasses.replace(report, source=source)


# Closed forms ----------------------------------------------------------------------------------


def test_linear_models_differ_by_their_coefficients():
    """The derivative of a linear model is its coefficient at every example: no error at all."""
    before, after = np.array([[3.0], [-0.5], [2.0]]), np.array([[3.0], [0.5], [2.5]])
    change = compare(report_of(before, 0.0), report_of(after, 0.0), "mean").changes["mean"]
    np.testing.assert_array_equal(change.difference, after - before)
    np.testing.assert_array_equal(change.low, change.difference)
    np.testing.assert_array_equal(change.p_value, [[1.0], [0.0], [0.0]])
    np.testing.assert_array_equal(change.significant, [[False], [True], [True]])


def test_error_interval_and_p_value_of_independent_reports():
    first, second = report_of([[1.0, 2.0]], [[0.3, 0.1]]), report_of([[2.0, 1.9]], [[0.4, 0.1]])
    change = compare(first, second, "mean").changes["mean"]
    stderr = np.array([[0.5, 0.1 * np.sqrt(2)]])
    np.testing.assert_allclose(change.stderr, stderr, rtol=1e-14)
    reach = scipy.stats.norm.ppf(0.975) * stderr
    np.testing.assert_allclose(change.high - change.difference, reach, rtol=1e-12)
    np.testing.assert_allclose(change.difference - change.low, reach, rtol=1e-12)
    expected = 2 * scipy.stats.norm.sf(np.abs(change.difference) / stderr)
    np.testing.assert_allclose(change.p_value, expected, rtol=1e-12)
    assert not change.paired and not compare(first, second).paired


def test_rounding_of_float32_is_no_change():
    value = np.array([[1.0], [1000.0], [1.0]])
    other = value * (1 + np.array([[1e-7], [5e-7], [1e-5]]))
    change = compare(report_of(value, 0.0), report_of(other, 0.0), "mean").changes["mean"]
    np.testing.assert_array_equal(change.significant, [[False], [False], [True]])


def test_false_discovery_rates_by_hand():
    p = np.array([0.001, 0.008, 0.039, 0.041, 0.9])
    # 5p/k for k = 1…5: 0.005, 0.02, 0.065, 0.05125, 0.9; then the least from there on.
    np.testing.assert_allclose(
        changes.q_values(p), [0.005, 0.02, 0.05125, 0.05125, 0.9], rtol=1e-12
    )


@pytest.mark.parametrize("seed", range(5))
def test_false_discovery_rates_are_those_of_scipy(seed):
    p = np.round(np.random.default_rng(seed).random((7, 9)) ** 2, 2)  # rounded: many ties
    expected = scipy.stats.false_discovery_control(p.ravel()).reshape(p.shape)
    np.testing.assert_allclose(changes.q_values(p), expected, rtol=1e-12)


def test_what_has_no_p_value_does_not_count():
    p = np.array([0.01, np.nan, 0.02])
    np.testing.assert_allclose(changes.q_values(p), [0.02, np.nan, 0.02], rtol=1e-12)
    assert changes.q_values(np.full(3, np.nan)).shape == (3,)


def test_a_single_example_has_no_significance():
    first, second = report_of([[1.0]], np.nan), report_of([[2.0]], np.nan)
    comparison = compare(first, second, "mean")
    assert np.isnan(comparison.changes["mean"].p_value).all()
    assert not comparison.changes["mean"].significant.any()
    assert "No sensitivity can be compared" in str(comparison)


# Calibration -----------------------------------------------------------------------------------


def uniform(p):
    """The probability of p-values as far from uniform as these."""
    return scipy.stats.kstest(p.ravel(), "uniform").pvalue


def test_p_values_of_equal_truth_are_uniform():
    """2000 features in each of 5 seeds: no more than chance in any."""
    chances = []
    for seed in range(5):
        random = np.random.default_rng(seed)
        truth, first, second = random.normal(size=(2000, 1)), *random.uniform(0.1, 1, (2, 2000, 1))
        before = report_of(random.normal(truth, first), first)
        after = report_of(random.normal(truth, second), second)
        change = compare(before, after, "mean").changes["mean"]
        chances.append(uniform(change.p_value))
        assert change.significant.mean() < 0.002
    assert min(chances) > 0.01, chances


def resampled(random, features=400, examples=300, resamples=200):
    """Two reports of derivatives on the same examples, correlated at 0.9, with equal means."""
    shared = random.normal(size=(examples, features))
    reports, picks = [], random.integers(examples, size=(resamples, examples))
    counts = np.stack([np.bincount(pick, minlength=examples) for pick in picks]) / examples
    for _ in range(2):
        d = 3 * shared + random.normal(size=shared.shape)
        stderr = d.std(axis=0, ddof=1) / np.sqrt(examples)
        report = report_of(d.mean(axis=0)[:, None], stderr[:, None])
        reports.append(live(report, ("seed", 0), {"mean": (counts @ d)[:, :, None]}))
    return reports


def test_paired_p_values_of_equal_truth_are_uniform_and_unpaired_ones_too_large():
    before, after = resampled(np.random.default_rng(3))
    paired = compare(before, after, "mean")
    assert paired.paired and paired.changes["mean"].paired
    assert uniform(paired.changes["mean"].p_value) > 0.01
    after.source.key = ("seed", 1)
    apart = compare(before, after, "mean")
    assert not apart.paired
    assert uniform(apart.changes["mean"].p_value) < 1e-6
    assert apart.changes["mean"].stderr.mean() > 2.5 * paired.changes["mean"].stderr.mean()


def test_false_discoveries_stay_below_their_share():
    """Half of 4000 features changed: of those called changed at most about 5 % did not."""
    random = np.random.default_rng(0)
    truth, shift = random.normal(size=(4000, 1)), np.repeat([[0.0], [3.5]], 2000, axis=0)
    before = report_of(random.normal(truth, 0.7), 0.7)
    after = report_of(random.normal(truth + shift, 0.7), 0.7)
    found = compare(before, after, "mean").changes["mean"].significant
    assert found[2000:].mean() > 0.8
    assert 0.01 < found[:2000].sum() / found.sum() < 0.05


# Real reports ----------------------------------------------------------------------------------


def linear_report(coefficients, x):
    model = keras.Sequential([keras.Input([len(coefficients)]), keras.layers.Dense(1)])
    model.set_weights([np.array(coefficients)[:, None], np.zeros(1)])
    return sensitivity_report(model, x)


def test_reports_of_linear_models_differ_by_their_coefficients(float64):
    x = np.random.default_rng(0).normal(size=(50, 3))
    before, after = linear_report([1.0, 2.0, 3.0], x), linear_report([1.0, 2.5, -3.0], x)
    comparison = compare(before, after)
    change = comparison.changes["mean"]
    np.testing.assert_allclose(change.difference[:, 0], [0.0, 0.5, -6.0], atol=1e-12)
    np.testing.assert_array_equal(change.significant[:, 0], [False, True, True])
    assert comparison.paired
    again = SensitivityReport.from_json(before.to_json())
    assert not before.compare(again).paired
    assert not before.compare(again).changes["standardized_rms"].significant.any()


# Which are compared ----------------------------------------------------------------------------


def test_pairing_needs_keys_and_replicates_of_both():
    random = np.random.default_rng(0)
    replicates = {"mean": random.normal(size=(50, 2, 1))}
    one = {"mean": replicates["mean"][:1]}
    cases = [
        (("a", replicates), ("a", replicates), True),
        ((None, replicates), (None, replicates), False),
        (("a", replicates), ("b", replicates), False),
        (("a", replicates), ("a", {}), False),
        (("a", replicates), ("a", one), False),
        (("a", one), ("a", one), False),
    ]
    for *parts, expected in cases:
        first, second = (live(report_of(np.ones((2, 1)), 0.1), *part) for part in parts)
        comparison = compare(first, second, "mean")
        assert comparison.paired == expected, parts
        assert comparison.notes[0].startswith("Paired" if expected else "Not paired")


def test_pairs_of_a_report_and_itself_do_not_differ():
    report = live(report_of([[1.0], [2.0]], 0.1), 0, {"mean": np.random.normal(size=(9, 2, 1))})
    change = compare(report, report, "mean").changes["mean"]
    np.testing.assert_array_equal(change.p_value, 1.0)
    np.testing.assert_array_equal(change.stderr, 0.0)


def test_features_and_outputs_are_matched_by_name():
    before = report_of(
        [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
        0.1,
        feature_names=("a", "b", "c"),
        output_names=("y", "z"),
    )
    after = report_of(
        [[60.0, 50.0], [40.0, 30.0]], 0.1, feature_names=("c", "d"), output_names=("z", "w")
    )
    comparison = compare(before, after, "mean")
    assert comparison.feature_names == ("c",) and comparison.output_names == ("z",)
    assert comparison.changes["mean"].difference == [[54.0]]
    assert comparison.only_before == (("a", "b"), ("y",))
    assert comparison.only_after == (("d",), ("w",))
    text = str(comparison)
    assert "Only before: the features 'a', 'b'." in text
    assert "Only after: the outputs 'w'." in text


def test_replicates_are_matched_as_values_are():
    values = np.arange(12.0).reshape(2, 3, 2)
    names = {"feature_names": ("a", "b", "c"), "output_names": ("y", "z")}
    before = live(report_of(np.zeros((3, 2)), 0.1, **names), 1, {"mean": 0 * values})
    turned = {"feature_names": ("c", "a", "b"), "output_names": ("z", "y")}
    spread = np.array([-1.0, 1.0])[:, None, None] * np.arange(1.0, 7.0).reshape(3, 2)
    after = live(report_of(np.zeros((3, 2)), 0.1, **turned), 1, {"mean": spread})
    change = compare(before, after, "mean").changes["mean"]
    expected = np.array([[4.0, 3.0], [6.0, 5.0], [2.0, 1.0]]) * np.sqrt(2)
    np.testing.assert_allclose(change.stderr, expected, rtol=1e-14)


def test_switches_are_not_compared_with_derivatives():
    before = report_of([[1.0], [2.0]], 0.1, kinds=("derivative", "derivative"))
    after = report_of([[1.0], [2.0]], 0.1, kinds=("derivative", "switch"))
    comparison = compare(before, after)
    assert comparison.feature_names == ("feature 0",)
    assert comparison.only_before[0] == comparison.only_after[0] == ("feature 1",)


def test_equal_names_are_matched_in_their_order():
    names = {"feature_names": ("x", "x")}
    comparison = compare(
        report_of([[1.0], [2.0]], 0, **names), report_of([[1.0], [5.0]], 0, **names)
    )
    np.testing.assert_array_equal(comparison.changes["mean"].difference, [[0.0], [3.0]])


def test_nothing_in_common_and_unknown_measures_are_refused():
    report = made_up_report(2, 1)
    other = dataclasses.replace(report, feature_names=("a", "b"))
    with pytest.raises(ConfigurationError, match=r"features of the same names.*'feature 0', 'feat"):
        compare(report, other)
    other = dataclasses.replace(report, output_names=("z",))
    with pytest.raises(ConfigurationError, match=r"outputs of the same names.*output_names=\["):
        compare(report, other)
    for measure in ("median", ["mean", "median"], [3]):
        with pytest.raises(ConfigurationError, match="`measure` must be one of mean, mean_abs"):
            compare(report, report, measure)
    with pytest.raises(ConfigurationError, match="`measure` must name a measure"):
        compare(report, report, [])


def test_the_larger_confidence_is_used():
    comparison = compare(report_of([[1.0]], 0.1), report_of([[1.0]], 0.1, confidence=0.99))
    assert comparison.confidence == 0.99
    assert "confidence 0.95 and 0.99" in comparison.notes[-1]


# What it looks like ----------------------------------------------------------------------------


@pytest.fixture
def comparison():
    names = {"feature_names": ("<script>alert('a')</script>", "a\nb [bold]", "c" * 200)}
    before = report_of(np.ones((3, 2)), 0.1, "standardized_rms", **names)
    after = report_of([[1.0, 1.1], [1.2, 9.0], [1.0, 1.0]], 0.1, "standardized_rms", **names)
    return compare(before, after)


def test_text_says_how_many_changed_and_begins_with_the_surest(comparison):
    lines = str(comparison).splitlines()
    assert lines[0] == "1 of 6 sensitivities changed significantly (standardized_rms)"
    assert max(map(len, lines)) <= 80
    first = next(line for line in lines if "output 1" in line)
    assert "a b [bold]" in first and "+8.00 ± 0.14" in first and first.endswith("<0.001 *")
    assert "Not paired" in str(comparison)
    assert repr(comparison) == (
        "<SensitivityComparison: 1 of 6 sensitivities changed significantly>"
    )


def test_text_needs_no_rich(comparison, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "rich", None)
    assert "a b [bold], output 1, 1.00, 9.00, +8.00 ± 0.14, <0.001 *" in str(comparison)


def test_html_shows_names_as_text(comparison):
    page = comparison._repr_html_()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert page.count("<tr>") == 1 + 6 and "1 of 6 sensitivities" in page


def test_many_rows_are_cut():
    report = made_up_report(50, 2)
    text = str(compare(report, report))
    assert "… and 60 more: see to_frame()." in text
    assert text.count("1.000") == 40


def test_frame_has_a_row_for_each_measure_feature_and_output(comparison):
    frame = comparison.to_frame()
    assert len(frame) == 3 * 3 * 2
    row = frame[frame.significant & (frame.measure == "standardized_rms")].iloc[0]
    assert (row.feature, row.output, row.after) == ("a\nb [bold]", "output 1", 9.0)


def test_frame_needs_pandas(comparison, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        comparison.to_frame()


def test_json_is_strict(comparison):
    comparison.changes["mean"].p_value[0, 0] = np.nan
    data = json.loads(comparison.to_json(), parse_constant=pytest.fail)
    assert data["format"] == "keras_fwd.sensitivity_comparison" and data["version"] == 1
    assert data["measures"]["mean"]["p_value"][0][0] is None
    assert data["measures"]["standardized_rms"]["difference"][1][1] == 8.0
    assert data["measures"]["standardized_rms"]["significant"][1] == [False, True]
    assert data["measures"]["mean"]["paired"] is False


def test_figure_shows_before_and_after_the_surest_first(comparison):
    figure = comparison.plot(top=4)
    axes = figure.axes[0]
    dots = {line.get_label(): line.get_xdata() for line in axes.lines}
    assert dots["before"][0] == 1.0 and dots["after"][0] == 9.0 and len(dots["after"]) == 4
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels[0] == "a b [bold] → output 1 *" and not labels[1].endswith("*")
    assert figure.get_suptitle() == "1 of 6 sensitivities changed significantly"
    assert "4 of 6 rows shown" in figure.get_supxlabel().replace("\n", " ")
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_figure_of_one_output_and_another_measure(comparison):
    figure = comparison.plot("mean", output="output 0")
    assert len(figure.axes[0].get_yticklabels()) == 3
    assert figure.get_suptitle() == "Changes of output 0"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"measure": "rms"}, "`measure` must be one of standardized_rms, mean, total_index_bound"),
        ({"output": "z"}, "`output` must be the name or index of an output: 'output 0'"),
        ({"output": 2}, "`output` must be the name or index"),
        ({"top": 0}, "`top` must be a whole number"),
    ],
)
def test_figure_refuses_what_there_is_not(comparison, arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        comparison.plot(**arguments)
