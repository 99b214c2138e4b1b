"""The trust region of `GaussNewton`: its damping against NumPy, and fits where others get lost."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_fwd
from keras_fwd._linear_algebra import least_squares
from keras_fwd.optimizers._steps import trust_region

pytestmark = pytest.mark.usefixtures("float64")


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.slow
def test_a_weight_that_only_rounding_sees_stays_where_it_is():
    """The bias of attention's keys shifts all scores of a query alike: softmax does not see it."""
    keras.utils.set_random_seed(1)
    x = keras.Input((4, 3))
    y = keras.layers.MultiHeadAttention(2, 2)(x, x)
    model = keras.Model(x, keras.layers.Dense(1)(keras.layers.Flatten()(y)))
    model.compile(keras_fwd.GaussNewton(), "mse")
    model.fit(draw(7, 4, 3), draw(7, 1, seed=1), epochs=5, verbose=0)
    assert all(np.abs(weight).max() < 1e3 for weight in model.get_weights())


# --- the damping that gives a length -------------------------------------------------------------

SYSTEMS = {
    "tall": draw(12, 4),
    "ill-conditioned": draw(12, 4) * [1e-4, 1.0, 1e2, 1e5],
    "a column twice": draw(12, 4)[:, [0, 1, 1, 2]],
    "wide": draw(3, 6),
}
SCALES = {"plain": None, "scaled": lambda A: np.linalg.norm(A, axis=0)}


def damped(A, b, damping, scale):
    """`(AᵀA + λ D²)⁻¹ Aᵀ b` by least squares of the stacked system."""
    stacked = np.vstack([A / scale, np.sqrt(damping) * np.eye(A.shape[1])])
    right = np.concatenate([b, np.zeros(A.shape[1])])
    return np.linalg.lstsq(stacked, right, rcond=None)[0] / scale


@pytest.mark.parametrize("mode", ["eager", "graph", pytest.param("xla", marks=pytest.mark.slow)])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("case", SYSTEMS)
def test_the_damping_gives_a_step_of_the_radius(case, scale, mode):
    A, b = SYSTEMS[case], draw(len(SYSTEMS[case]), seed=1)
    n = A.shape[1]
    D = np.ones(n) if scale == "plain" else SCALES[scale](A)
    parts = [tf.constant(part) for part in (A, b, np.zeros(n), np.zeros(n), D)]

    def run(radius):
        system = least_squares.dense_least_squares(*parts)
        damping = system.within(radius)
        solution = system.solve(damping)
        return damping, solution.value, system.length(solution.value)

    if mode != "eager":
        run = tf.function(run, jit_compile=mode == "xla")
    error = 1e-5 if mode == "xla" else 1e-8  # XLA iterates for eigenvalues, and stops early
    free = np.linalg.pinv(A / D) @ b / D
    whole = np.linalg.norm(D * free)
    for share in (0.9, 1e-2, 1e-6):
        damping, value, length = run(tf.constant(share * whole))
        assert float(length) == pytest.approx(share * whole, rel=1e-3)
        expected = damped(A, b, float(damping), D)
        np.testing.assert_allclose(D * value, D * expected, atol=error * share * whole)
    damping, value, _ = run(tf.constant(1.5 * whole))
    assert float(damping) == 0.0
    np.testing.assert_allclose(D * value, D * free, atol=10 * error * whole)


def test_concave_directions_are_damped_though_they_have_no_length_without():
    matrix = tf.constant(np.diag([2.0, -1.0]))
    system = least_squares.normal_equations(matrix, tf.constant([1.0, 1.0], tf.float64))
    damping = system.within(tf.constant(10.0, tf.float64))
    assert float(system.length(system.solve(damping).value)) == pytest.approx(10.0, rel=1e-3)


# --- the radius ----------------------------------------------------------------------------------

# radius, length, ratio, undamped, slope, before, after: next radius
RADII = [
    (1.0, 1.0, 0.9, False, -2.0, 3.0, 1.0, 2.0),  # a good step frees the next
    (8.0, 1.0, 0.5, True, -2.0, 3.0, 2.0, 2.0),  # inside, undamped: the length is what is known
    (1.0, 1.0, 0.5, False, -2.0, 3.0, 2.0, 1.0),
    (1.0, 1.0, 0.1, False, -2.0, 3.0, 2.9, 0.5),  # poor, though the loss fell
    (1.0, 1.0, -1.0, False, -2.0, 3.0, 6.0, 0.2),  # the parabola's minimum: 2 / (2 (3 + 2))
    (1.0, 1.0, -9.0, False, -2.0, 3.0, 99.0, 0.1),
    (1.0, 1.0, -np.inf, False, -2.0, 3.0, np.nan, 0.1),
    (99.0, 1.0, -9.0, True, -2.0, 3.0, 99.0, 1.0),  # from the step, not from afar
    (4.0, 0.0, 1.0, True, 0.0, 3.0, 3.0, 4.0),
]


@pytest.mark.parametrize(("radius", "length", "ratio", "undamped", *"sba", "following"), RADII)
def test_the_radius_follows_the_steps(radius, length, ratio, undamped, s, b, a, following):
    doubles = [tf.constant(x, tf.float64) for x in (radius, length, ratio)]
    rest = [tf.constant(x, tf.float64) for x in (s, b, a)]
    found = trust_region.adapt(*doubles, tf.constant(undamped), *rest)
    assert float(found) == pytest.approx(following)


# --- fits ----------------------------------------------------------------------------------------


class Curve(keras.layers.Layer):
    def __init__(self, function, start):
        super().__init__()
        self.function, self.start = function, start

    def build(self, shape):
        del shape
        constant = keras.initializers.Constant
        self.parameters = [
            self.add_weight(shape=(), initializer=constant(b), name=f"b{i}")
            for i, b in enumerate(self.start)
        ]

    def call(self, x):
        return self.function(x, *self.parameters)


# NIST/ITL StRD, public domain: data and certified values.
BOX = (
    np.array([1.0, 2, 3, 5, 7, 10]),
    np.array([109.0, 149, 149, 191, 213, 224]),
    lambda x, a, b: a * (1 - tf.exp(-b * x)),
    [2.1380940889e02, 5.4723748542e-01],
)
MGH10 = (
    np.arange(50.0, 126, 5),
    np.loadtxt(
        ["34780 28610 23650 19630 16370 13720 11540 9744 8261 7030 6005 5147 4427 3820 3307 2872"]
    ),
    lambda x, a, b, c: a * tf.exp(b / (x + c)),
    [5.6096364710e-03, 6.1813463463e03, 3.4522363462e02],
)
FITS = {
    "BoxBOD, far": (BOX, [1.0, 1.0], 40),
    "BoxBOD, near": (BOX, [100.0, 0.75], 40),
    "MGH10, far": (MGH10, [2.0, 4e5, 2.5e4], 400),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", FITS)
def test_a_fit_from_afar_has_seven_digits_with_the_defaults(case):
    (x, y, function, certified), start, steps = FITS[case]
    fn = keras.Sequential([keras.Input((1,)), Curve(function, start)])
    fn.compile(keras_fwd.GaussNewton(), "mse", steps_per_execution=steps)
    batch = tf.data.Dataset.from_tensors((x[:, None], y[:, None])).repeat(steps)
    fn.fit(batch, verbose=0, shuffle=False)
    np.testing.assert_allclose(fn.get_weights(), certified, rtol=1e-7)


@pytest.mark.slow
def test_steps_do_not_depend_on_the_units_of_the_weights():
    x, y = draw(30, 1), draw(30, 1, seed=1)
    ends = []
    for unit in (1.0, 2.0**-10):

        def curve(x, a, b, unit=unit):
            return tf.tanh(x * a / unit) * b

        fn = keras.Sequential([keras.Input((1,)), Curve(curve, [2.0 * unit, 0.5])])
        fn.compile(keras_fwd.GaussNewton(), "mse")
        fn.fit(x, y, batch_size=30, epochs=5, verbose=0, shuffle=False)
        ends.append(fn.get_weights() / np.array([unit, 1.0]))
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-9)
