"""The statistics of sensitivities: closed forms, coverage of intervals, Poincaré constants."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support import sobol_functions

from keras_fwd.sensitivity import sensitivity_report
from keras_fwd.sensitivity._statistics import poincare, resampling
from keras_fwd.sensitivity._statistics.moments import Moments, Places, Reservoir
from keras_fwd.sensitivity.analysis import Analysis

KNOWN = {"ishigami": sobol_functions.ishigami(), "g_function": sobol_functions.g_function()}


def uniform(known):
    return ("uniform", known.low, known.high)


@pytest.mark.parametrize("name", KNOWN)
def test_measures_are_within_three_standard_errors_of_the_closed_form(name):
    known = KNOWN[name]
    report = sensitivity_report(known.model(), known.draw(0, 4000), marginals=uniform(known))
    for measure, truth in known.truth.items():
        estimate = report.measures[measure]
        off = np.abs(estimate.value[:, 0] - truth) / estimate.stderr[:, 0]
        assert (off < 3).all(), (measure, off)
        assert (estimate.stderr[:, 0] < 0.1 * truth).all()


@pytest.mark.parametrize("name", KNOWN)
def test_the_bound_is_above_the_total_index(name):
    known = KNOWN[name]
    for marginals in (uniform(known), "uniform", "empirical"):
        report = sensitivity_report(known.model(), known.draw(0, 4000), marginals=marginals)
        assert (report.total_index_bound[:, 0] > 0.95 * known.total_index).all()
        bound = known.truth["total_index_bound"]
        np.testing.assert_allclose(report.total_index_bound[:, 0], bound, rtol=0.12)


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_intervals_cover_the_truth_as_often_as_they_say(name):
    """Of 500 repetitions 93 to 97 %, for every measure and input (standard error 1 %)."""
    known = KNOWN[name]
    analysis = Analysis("coverage", known.model(), marginals=uniform(known), batch_size=1000)
    covered = {measure: [] for measure in known.truth}
    for seed in range(500):
        report = analysis.report(known.draw([7, seed], 1000))
        for measure, truth in known.truth.items():
            estimate = report.measures[measure]
            inside = (estimate.low[:, 0] <= truth) & (truth <= estimate.high[:, 0])
            covered[measure].append(inside)
    shares = {measure: np.mean(inside, axis=0) for measure, inside in covered.items()}
    for measure, share in shares.items():
        assert ((share >= 0.93) & (share <= 0.97)).all(), (measure, share)


@pytest.mark.slow
def test_paired_changes_of_equal_sensitivities_are_significant_as_often_as_chance_is():
    """The function and itself, moved around its circle: equal measures, other values at each x."""
    known = KNOWN["ishigami"]

    def moved(x):
        return known.function(tf.math.floormod(x + 2 + np.pi, 2 * np.pi) - np.pi)

    layers = [keras.Input([3], dtype="float64"), keras.layers.Lambda(moved, dtype="float64")]
    models = (known.model(), keras.Sequential(layers))
    first, second = (Analysis("p", model, output_names=["y"]) for model in models)
    p_values = []
    for seed in range(150):
        x = known.draw([9, seed], 500)
        comparison = first.report(x).compare(second.report(x))
        assert comparison.paired
        p_values.append(comparison.changes["standardized_rms"].p_value[:, 0])
    # Standard errors of the shares: 1.8 and 4 %.
    assert (np.abs(np.mean(np.array(p_values) < 0.05, axis=0) - 0.05) < 0.05).all()
    assert (np.abs(np.mean(np.array(p_values) < 0.5, axis=0) - 0.5) < 0.12).all()


def test_the_standard_error_is_that_of_the_formulas():
    """σ/√n for means, and the delta method's for the root mean square."""
    known = KNOWN["ishigami"]
    x = known.draw(1, 800)
    report = sensitivity_report(known.model(), x)
    d = report.sample.derivatives
    errors = {
        "mean": d.std(0),
        "mean_abs": np.abs(d).std(0),
        "rms": (d**2).std(0) / (2 * np.sqrt((d**2).mean(0))),
    }
    for name, wanted in errors.items():
        found = report.measures[name].stderr
        np.testing.assert_allclose(found, wanted / np.sqrt(800), rtol=0.15, err_msg=name)


def test_groups_of_examples_give_the_errors_of_single_ones():
    known, x = KNOWN["ishigami"], KNOWN["ishigami"].draw(2, 3000)
    x = x[np.argsort(x[:, 0])]  # the order of the data must not matter
    grouped = sensitivity_report(known.model(), x)
    d = grouped.sample.derivatives
    wanted = d.std(0) / np.sqrt(3000)
    np.testing.assert_allclose(grouped.measures["mean"].stderr, wanted, rtol=0.2)


def test_quantiles_and_shares_have_intervals_that_cover():
    random = np.random.default_rng(0)
    inside = {"q": [], "p": []}
    for _ in range(400):
        values = random.exponential(size=(200, 1))
        estimate = resampling.quantile_estimate(np.sort(values.T), 0.25, 0.95)
        inside["q"].append(estimate.low[0] <= -np.log(0.75) <= estimate.high[0])
        share = resampling.share_estimate((values < 0.1).sum(0), 200, 0.95)
        inside["p"].append(share.low[0] <= 1 - np.exp(-0.1) <= share.high[0])
    for found in inside.values():
        assert 0.92 <= np.mean(found) <= 0.98


CONSTANTS = {
    "uniform": (lambda r, n: r.uniform(2, 5, n), 9 / np.pi**2, 0.08),
    "normal": (lambda r, n: r.normal(1, 3, n), 9.0, 0.15),
    "exponential": (lambda r, n: r.exponential(1, n), 4.0, 0.6),  # the tail beyond the sample
    "constant": (lambda r, n: np.full(n, 2.0), 0.0, 0.0),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_empirical_constants_are_those_of_the_distribution(name):
    draw, wanted, tolerance = CONSTANTS[name]
    sample = draw(np.random.default_rng(0), 2000)[:, None]
    np.testing.assert_allclose(poincare.empirical_constants(sample)[0], [wanted], rtol=tolerance)


@pytest.mark.parametrize("name", ["uniform", "two_peaks"])
def test_the_errors_of_empirical_constants_are_those_of_repeated_samples(name):
    def draw(random):
        if name == "uniform":
            return random.uniform(size=(800, 1))
        return random.choice([-2.0, 2.0], size=(800, 1)) + random.normal(size=(800, 1))

    found = [poincare.empirical_constants(draw(np.random.default_rng(s))) for s in range(60)]
    values, errors = np.array(found)[:, :, 0].T
    np.testing.assert_allclose(errors.mean(), values.std() / values.mean(), rtol=0.35)


def test_the_interval_of_a_bound_knows_that_the_distribution_is_estimated():
    known = KNOWN["ishigami"]
    x = known.draw(0, 1000)
    held, free = (
        sensitivity_report(known.model(), x, marginals=m).measures["total_index_bound"]
        for m in (uniform(known), "empirical")
    )
    error = poincare.empirical_constants(x)[1]
    wanted = np.sqrt(np.square(held.stderr / held.value) + np.square(error)[:, None])
    np.testing.assert_allclose(free.stderr / free.value, wanted, rtol=0.15)


def test_empirical_constants_equal_a_dense_eigenvalue_problem():
    """∫ f' g' ρ = λ ∫ f g ρ for the same density, in f instead of its flux, on a finer grid."""
    linalg = pytest.importorskip("scipy.linalg")
    sample = np.random.default_rng(1).gamma(2.0, size=(400, 1))
    counts, bandwidth, width = poincare._histogram(sample)
    masses = poincare._smooth(counts, bandwidth) * 400 + poincare._PRIOR
    masses /= masses.sum()
    parts = 4
    density = np.repeat(masses[:, 0] / width[0], parts)
    step, count = width[0] / parts, parts * len(masses)
    stiffness, mass = np.zeros((count + 1,) * 2), np.zeros((count + 1,) * 2)
    for k in range(count):
        pair = np.ix_([k, k + 1], [k, k + 1])
        stiffness[pair] += np.array([[1, -1], [-1, 1]]) * density[k] / step
        mass[pair] += np.array([[2, 1], [1, 2]]) * density[k] * step / 6
    eigenvalues = linalg.eigh(stiffness, mass, eigvals_only=True)
    np.testing.assert_allclose(
        poincare.empirical_constants(sample)[0], [1 / eigenvalues[1]], rtol=2e-3
    )


def test_marginals_may_differ_between_features():
    known = KNOWN["ishigami"]
    x = known.draw(3, 500)
    options = {"x[0]": ("uniform", -np.pi, np.pi), "x[1]": ("normal", 2.0), "x[2]": "normal"}
    report = sensitivity_report(known.model(), x, marginals=options)
    constants = np.array([4.0, 4.0, x[:, 2].var()])
    y = report.output_std[0] ** 2
    np.testing.assert_allclose(report.total_index_bound[:, 0], constants * report.dgsm[:, 0] / y)


def test_a_reservoir_is_a_uniform_sample():
    counts = np.zeros(30)
    for seed in range(600):
        reservoir = Reservoir(10, seed)
        for part in np.array_split(np.arange(30.0), 7):
            reservoir.update([part])
        counts[reservoir.arrays[0].astype(int)] += 1
    assert counts.sum() == 6000
    assert np.abs(counts / 600 - 1 / 3).max() < 0.08  # four standard errors


def test_the_first_examples_have_a_group_each_and_others_random_ones():
    places = Places(5, seed=0)
    found = np.concatenate([places(3), places(4), places(5000)])
    assert (found[:5] == np.arange(5)).all()
    assert (np.bincount(found[7:], minlength=5) > 850).all()


def test_moments_keep_their_digits_beside_a_large_mean():
    values = np.random.default_rng(0).normal(size=(100, 2)) + 1e9
    moments = Moments()
    for part in np.array_split(values, 13):
        moments.update(part)
    np.testing.assert_allclose(moments.variance, values.var(axis=0), rtol=1e-9)
    np.testing.assert_allclose(moments.mean, values.mean(axis=0), rtol=1e-15)
