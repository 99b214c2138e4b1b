"""Lanczos, Hutchinson and the quadrature against dense eigenvalues and exact traces."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import MODES

import keras_fwd
from keras_fwd import spectrum
from keras_fwd._linear_algebra import lanczos
from keras_fwd._spaces import nest
from keras_fwd._spaces.linear_map import LinearMap, diagonal, identity
from keras_fwd.errors import ConfigurationError, StructureError


def symmetric(values, seed=0):
    """A dense matrix with these eigenvalues."""
    n = len(values)
    Q = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]
    return Q * np.asarray(values, float) @ Q.T


def on_vectors(matrix, dtype="float64"):
    """A symmetric matrix as a map on vectors."""
    matrix = tf.constant(matrix, dtype)
    spec = tf.TensorSpec([matrix.shape[0]], dtype)
    return LinearMap(*[lambda x: tf.linalg.matvec(matrix, x)] * 2, spec, spec)


SPACE = {
    "a": tf.TensorSpec([2, 3], "float32"),
    "b": [None, tf.TensorSpec([], "float64")],
    "c": tf.TensorSpec([4], "float64"),
}


def on_nests(matrix):
    """A matrix of 11 rows as a map on nests of several dtypes, with a leaf that has no tangent."""
    matrix = tf.constant(matrix, "float64")

    def mv(x):
        return nest.unravel(tf.linalg.matvec(matrix, nest.ravel(x, tf.float64)), SPACE)

    return LinearMap(mv, mv, SPACE, SPACE)


SPECTRA = {
    "indefinite": np.linspace(-5, 3, 11) ** 3,
    "both ends large": [-9.0, -8, *[0.1] * 7, 7, 10],
    "multiple": [2.0] * 4 + [5.0] * 4 + [-1.0] * 3,
    "rank one": [0.0] * 10 + [3.0],
    "negative": -np.geomspace(1e-6, 1e6, 11),
    "identity": np.ones(11),
    "zero": np.zeros(11),
    "tiny": 1e-12 * np.arange(11),
}


TABLE = [(values, "graph") for values in SPECTRA]
TABLE += [(values, mode) for values in ("negative", "zero") for mode in ("eager", "xla")]


@pytest.mark.parametrize(("values", "mode"), TABLE)
def test_as_many_iterations_as_components_find_every_eigenvalue(values, mode):
    A = on_vectors(symmetric(SPECTRA[values]))
    found = MODES[mode](lambda: spectrum.ritz_values(A, 11))()
    expected = np.linalg.eigvalsh(A.to_dense())
    scale = np.abs(expected).max() or 1.0
    nearest = np.abs(found.values.numpy()[:, None] - expected).min(axis=1)
    assert (nearest <= found.errors.numpy() + 1e-12 * scale).all()
    np.testing.assert_allclose(found.values, expected, atol=1e-7 * scale)
    # XLA's own solver of the tridiagonal system stops early.
    assert np.max(found.errors) <= scale * (1e-6 if mode == "xla" else 1e-12)


def relations(result, A):
    """How far a `Tridiagonal` is from what it says it is: orthonormality, and A Vᵀ = Vᵀ T + …"""
    V, matrix = result.vectors.numpy(), A.to_dense().numpy()
    steps = len(V)
    T = np.diag(result.diagonal.numpy())
    beside = result.off_diagonal.numpy()
    T += np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    residual = matrix @ V.T - V.T @ T
    scale = np.abs(matrix).max() or 1.0
    return {
        "orthonormal": np.abs(V @ V.T - np.eye(steps)).max(),
        "relation": np.abs(residual[:, :-1]).max(initial=0) / scale,
        "last": abs(np.linalg.norm(residual[:, -1]) - beside[-1]) / scale,
        "outside": np.abs(V @ residual[:, -1]).max() / scale,
    }


@pytest.mark.parametrize("steps", [1, 4, 11, 50])
@pytest.mark.parametrize("values", SPECTRA)
def test_the_vectors_are_orthonormal_and_the_map_is_tridiagonal_in_them(values, steps):
    A = on_vectors(symmetric(SPECTRA[values]))
    result = tf.function(lambda: lanczos.lanczos(A, steps), autograph=False)()
    assert len(result.vectors) == min(steps, 11)
    assert max(relations(result, A).values()) < 1e-10


def without_reorthogonalization(A, steps):
    """The textbook's three-term recurrence, which loses its orthogonality."""
    n = A.shape[0]
    v, before, beta = np.ones(n) / np.sqrt(n), np.zeros(n), 0.0
    rows, alphas, betas = [], [], []
    for _ in range(steps):
        w = A(tf.constant(v)).numpy() - beta * before
        alphas.append(v @ w)
        w -= alphas[-1] * v
        rows.append(v)
        before, beta = v, np.linalg.norm(w)
        betas.append(beta)
        v = w / beta
    return lanczos.Tridiagonal(*map(tf.constant, (np.array(alphas), np.array(betas), rows)))


def test_lost_orthogonality_would_be_noticed():
    A = on_vectors(symmetric(np.geomspace(1e-6, 1e6, 40)))
    assert relations(without_reorthogonalization(A, 30), A)["orthonormal"] > 1e-3
    assert relations(lanczos.lanczos(A, 30), A)["orthonormal"] < 1e-12


def test_a_wrong_entry_would_be_noticed():
    A = on_vectors(symmetric(SPECTRA["indefinite"]))
    right = lanczos.lanczos(A, 5)
    assert relations(right._replace(diagonal=right.diagonal + 1e-3), A)["relation"] > 1e-6
    assert relations(right._replace(off_diagonal=right.off_diagonal * 1.01), A)["last"] > 1e-4


@pytest.mark.parametrize("mode", MODES)
def test_a_start_in_an_invariant_space_goes_on_elsewhere(mode):
    A = diagonal(tf.constant([4.0, 1.0, 2.0, 3.0], tf.float64))
    start = tf.constant([7.0, 0.0, 0.0, 0.0], tf.float64)
    result = MODES[mode](lambda: lanczos.lanczos(A, 4, start))()
    np.testing.assert_allclose(result.vectors[0], [1.0, 0, 0, 0])
    assert result.off_diagonal[0] == 0.0
    assert max(relations(result, A).values()) < 1e-12
    nowhere = lanczos.lanczos(A, 4, 0 * start)
    assert max(relations(nowhere, A).values()) < 1e-12


# --- the ends -------------------------------------------------------------------------------------


def loss_of_weights():
    """A model's loss as a function of its weights, and their values."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    stack = [layers.Dense(6, "tanh"), layers.LayerNormalization(), layers.Dense(2)]
    model = keras.Sequential([keras.Input([3]), *stack])
    x, y = (np.random.default_rng(i).normal(size=(8, 3 - i)).astype(model.dtype) for i in (0, 1))

    def loss(values):
        outputs, _ = model.stateless_call(values, model.non_trainable_variables, x)
        return tf.reduce_mean((outputs - y) ** 2)

    return loss, [variable.value for variable in model.trainable_variables]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_both_ends_of_an_indefinite_hessian(float64, mode):
    loss, values = loss_of_weights()

    def ends():
        H = keras_fwd.hessian(loss, values)
        return [spectrum.top_eigenvalues(H, 3, 30, end) for end in ("largest", "smallest")]

    expected = np.linalg.eigvalsh(keras_fwd.hessian(loss, values).to_dense())
    assert expected[0] < -0.01 and expected[-1] > 0.01
    largest, smallest = MODES[mode](ends)()
    for found, exact in ((largest, expected[::-1][:3]), (smallest, expected[:3])):
        assert (np.abs(found.values - exact) <= found.errors.numpy() + 1e-9).all()
        np.testing.assert_allclose(found.values, exact, rtol=1e-5)
        assert found.values.dtype == tf.float64


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["eager", "graph", pytest.param("xla", marks=pytest.mark.slow)])
def test_a_model_in_float32_has_the_same_top_to_single_precision(float32, mode):
    loss, values = loss_of_weights()
    found = MODES[mode](lambda: spectrum.top_eigenvalues(keras_fwd.hessian(loss, values), 2, 30))()
    dense = keras_fwd.hessian(loss, values).to_dense().numpy().astype("float64")
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(dense)[::-1][:2], rtol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_nests_of_several_dtypes_and_leaves_without_a_tangent(mode):
    matrix = symmetric(SPECTRA["indefinite"])
    A = on_nests(matrix)
    found = MODES[mode](lambda: spectrum.top_eigenvalues(A, 2, 11))()
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(matrix)[::-1][:2], rtol=1e-5)
    estimate = MODES[mode](lambda: spectrum.trace(A, 11))()
    np.testing.assert_allclose(estimate.value, np.trace(matrix), rtol=1e-5)
    start = {"a": tf.ones([2, 3]), "b": [None, 1.0], "c": np.ones(4)}
    first = MODES[mode](lambda: lanczos.lanczos(A, 2, start))().vectors[0]
    np.testing.assert_allclose(first, np.full(11, 11**-0.5), rtol=1e-6)


def test_the_errors_are_bounds_before_convergence():
    values = np.linspace(-1, 1, 200)
    A = on_vectors(symmetric(values))
    for iterations in (3, 10, 30):
        found = spectrum.ritz_values(A, iterations)
        nearest = np.abs(found.values.numpy()[:, None] - values).min(axis=1)
        assert (nearest <= found.errors.numpy() + 1e-12).all()
        assert -1 - 1e-12 < found.values[0] < found.values[-1] < 1 + 1e-12
    assert found.errors[-1] < 0.1 < spectrum.ritz_values(A, 3).errors[-1]


@pytest.mark.parametrize("mode", MODES)
def test_a_map_that_is_not_finite_has_no_eigenvalues_and_raises_nothing(mode):
    A = on_vectors(np.full((5, 5), np.nan))
    found = MODES[mode](lambda: spectrum.top_eigenvalues(A, 2, 4))()
    assert np.isnan(found.values).all() and np.isnan(found.errors).all()
    assert np.isnan(MODES[mode](lambda: spectrum.trace(A, 3))().value)


# --- the trace ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_random_signs_are_exact_for_a_diagonal(mode):
    entries = np.arange(30.0) ** 2 - 50
    estimate = MODES[mode](lambda: spectrum.trace(diagonal(tf.constant(entries)), 5))()
    np.testing.assert_allclose(estimate.value, entries.sum(), rtol=1e-12)
    assert estimate.stderr < 1e-12


def test_the_trace_is_unbiased_and_its_standard_error_is_its_spread():
    matrix = symmetric(np.linspace(-3, 5, 30))
    A = on_vectors(matrix)
    run = tf.function(lambda seed: spectrum.trace(A, 8, seed), autograph=False)
    found = [run(tf.constant(seed)) for seed in range(300)]
    values, errors = (np.array(part) for part in zip(*found, strict=True))
    assert abs(values.mean() - np.trace(matrix)) < 3 * values.std() / np.sqrt(300)
    np.testing.assert_allclose(np.mean(errors**2), values.var(), rtol=0.2)
    # Of random signs: twice the squares beside the diagonal, over the number of probes.
    spread = 2 * (np.sum(matrix**2) - np.sum(np.diag(matrix) ** 2)) / 8
    np.testing.assert_allclose(values.var(), spread, rtol=0.2)


def test_a_small_map_has_its_exact_trace():
    matrix = np.random.default_rng(0).normal(size=(5, 5))
    estimate = spectrum.trace(on_vectors(matrix), 5)
    np.testing.assert_allclose(estimate.value, np.trace(matrix), rtol=1e-12)
    assert estimate.stderr == 0.0


# --- the density ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_the_density_has_the_moments_of_the_spectrum(mode):
    values = np.concatenate([np.linspace(-2, 1, 35), [5.0] * 5])
    A = on_vectors(symmetric(values))
    density = MODES[mode](lambda: spectrum.spectral_density(A, 8, 30))()
    nodes, weights = density.nodes.numpy(), density.weights.numpy()
    assert nodes.shape == (30, 8)
    np.testing.assert_allclose(weights.sum(axis=1), np.full(30, 1 / 30), rtol=1e-12)
    for power in range(1, 5):
        of_probes = 30 * (weights * nodes**power).sum(axis=1)
        stderr = of_probes.std(ddof=1) / np.sqrt(30)
        assert abs(of_probes.mean() - np.mean(values**power)) < 3 * stderr


def test_the_quadrature_is_exact_up_to_degree_2m_minus_1():
    """For the very vectors of the trace: the same seeds draw the same signs."""
    A = on_vectors(symmetric(np.linspace(-1, 2, 20)))
    density = spectrum.spectral_density(A, 3, 4, seed=7)
    power = A
    for degree in range(1, 6):
        of_trace = spectrum.trace(power, 4, seed=7).value / 20
        of_density = tf.reduce_sum(density.weights * density.nodes**degree)
        np.testing.assert_allclose(of_density, of_trace, rtol=1e-10)
        power = power @ A
    of_trace = spectrum.trace(power, 4, seed=7).value / 20
    of_density = tf.reduce_sum(density.weights * density.nodes**6)
    assert abs(of_density - of_trace) > 1e-6 * abs(of_trace)


@pytest.mark.parametrize(
    "matrix", [identity(tf.TensorSpec([30])), 0.0 * identity(SPACE)], ids=["identity", "zero"]
)
def test_the_density_of_a_multiple_of_the_identity_is_one_point(matrix):
    density = spectrum.spectral_density(matrix, 6, 2)
    here = matrix.to_dense()[0, 0]
    np.testing.assert_allclose(density.nodes, np.full((2, 6), here), atol=1e-6)
    np.testing.assert_allclose(tf.reduce_sum(density.weights), 1.0, rtol=1e-6)


# --- what is refused ------------------------------------------------------------------------------

A5 = identity(tf.TensorSpec([5]))
WIDE = LinearMap(lambda x: x[:2], lambda y: y, tf.TensorSpec([5]), tf.TensorSpec([2]))
ENDLESS = identity(tf.TensorSpec([None]))

BAD = {
    "iterations": (lambda: lanczos.lanczos(A5, 0), ConfigurationError, "`iterations` must be"),
    "start": (lambda: lanczos.lanczos(A5, 2, tf.ones([4])), StructureError, "`start` must have"),
    "wide": (lambda: lanczos.lanczos(WIDE, 2), StructureError, "to itself"),
    "unknown": (lambda: spectrum.ritz_values(ENDLESS, 2), StructureError, "known size"),
    "empty": (lambda: spectrum.trace(identity([None])), StructureError, "known size"),
    "count": (lambda: spectrum.top_eigenvalues(A5, 9, 3), ConfigurationError, "`count` must be"),
    "too many": (lambda: spectrum.top_eigenvalues(A5, 6), StructureError, "at least `count`"),
    "end": (lambda: spectrum.top_eigenvalues(A5, end="top"), ConfigurationError, "`end` must be"),
    "probes": (lambda: spectrum.trace(A5, 1), ConfigurationError, "`probes` must be"),
    "no probes": (lambda: spectrum.spectral_density(A5, 2, 0), ConfigurationError, "`probes`"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_argument_is_named(case):
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()


def test_results_have_names():
    A = diagonal(tf.constant([2.0, -3.0, 1.0]))
    top, density = spectrum.top_eigenvalues(A), spectrum.spectral_density(A, probes=2)
    assert isinstance(top, spectrum.Eigenvalues) and isinstance(density, spectrum.Density)
    assert abs(top.values[0] - 2) <= top.errors[0]
    np.testing.assert_allclose(tf.reduce_sum(density.weights), 1)
