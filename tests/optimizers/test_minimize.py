"""`GaussNewton.step` and `.minimize`: residuals of one's own, against SciPy and closed forms."""

import gc
import warnings
import weakref

import keras
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf
from support.flat_options import gauss_newton

import keras_fwd
from keras_fwd.optimizers.step_report import StepStatus

pytestmark = pytest.mark.usefixtures("float64")
GaussNewton = keras_fwd.GaussNewton
TIGHT = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15}
L = keras.layers

RANDOM = np.random.default_rng(0)
T = np.linspace(0, 3, 25)
Y = 2 * np.exp(-1.3 * T) + 0.5 + 0.05 * RANDOM.normal(size=25)
START = np.ones(3)
A, B = RANDOM.normal(size=(20, 5)), RANDOM.normal(size=20)


def decay(p, t=T, y=Y, exp=np.exp):
    return p[0] * exp(-p[1] * t) + p[2] - y


def variable(value, **kwargs):
    return tf.Variable(value, dtype="float64", **kwargs)


def decay_problem(start=START, **kwargs):
    p = variable(start, **kwargs)
    return lambda: decay(p, exp=tf.exp), p


def linear_problem(start=0.0):
    v = variable(np.full(5, start))
    return lambda: tf.linalg.matvec(A, v) - B, v


class Box(keras.constraints.Constraint):
    def __init__(self, lower, upper):
        self.lower, self.upper = np.array(lower), np.array(upper)

    def __call__(self, w):
        return tf.clip_by_value(w, self.lower, self.upper)


def net(*hidden, inputs=1):
    layers = [L.Dense(units, "tanh") for units in hidden]
    return keras.Sequential([keras.Input((inputs,)), *layers, L.Dense(1)])


# --- against SciPy -------------------------------------------------------------------------------

OPTIONS = {
    "trust region": {},
    "nielsen": {"damping": 1e-3},
    "cg": {"solver": "cg", "tolerance": 1e-12},
    "dual": {"solver": "dual"},
}


def slow(*names):
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("options", ["trust region", "nielsen", "cg", *slow("dual")])
def test_it_finds_what_scipy_finds(options):
    expected = scipy.optimize.least_squares(decay, START, method="lm", **TIGHT)
    fn, p = decay_problem()
    result = gauss_newton(**OPTIONS[options]).minimize(fn, [p])
    assert result.converged and result.status.code.converged
    np.testing.assert_allclose(p.numpy(), expected.x, rtol=1e-7)
    assert result.loss == pytest.approx(expected.cost, rel=1e-12)
    assert result.message == result.status.message and f"{result.steps} steps" in str(result)


@pytest.mark.parametrize("options", ["cg", *slow("trust region")])
def test_under_xla_too(options):
    expected = scipy.optimize.least_squares(decay, START, method="lm", **TIGHT)
    fn, p = decay_problem()
    optimizer = gauss_newton(**OPTIONS[options])
    result = optimizer.minimize(fn, [p], jit_compile=True, ftol=1e-12)
    assert result.converged
    np.testing.assert_allclose(p.numpy(), expected.x, rtol=1e-5)


def test_a_linear_problem_takes_one_step_to_its_closed_form():
    expected = np.linalg.lstsq(A, B, rcond=None)[0]
    calls = []
    fn, v = linear_problem()

    def counted():
        calls.append(1)
        return fn()

    optimizer = GaussNewton(damping=0.0)
    logs = optimizer.step(counted, [v])
    np.testing.assert_allclose(v.numpy(), expected, rtol=1e-12)
    assert float(logs["loss"]) == pytest.approx(np.sum((A @ expected - B) ** 2) / 2)
    assert set(logs) == {"loss", "damping", "reduction_ratio", "solver_iterations"}
    traced = len(calls)
    optimizer.step(counted, [v])
    assert len(calls) == traced


@pytest.mark.slow
@pytest.mark.parametrize("xla", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_step_in_a_function_of_the_user_is_the_same(xla):
    ends = []
    for compiled in (False, True):
        fn, p = decay_problem()
        optimizer = GaussNewton()

        def take_step(fn=fn, p=p, optimizer=optimizer):
            return optimizer.step(fn, [p])["loss"]

        step = tf.function(take_step, jit_compile=xla) if compiled else take_step
        losses = [float(step()) for _ in range(3)]
        assert losses == sorted(losses, reverse=True)
        ends.append([*p.numpy(), losses[-1]])
    # XLA iterates for eigenvalues, and stops early.
    np.testing.assert_allclose(*ends, rtol=1e-6 if xla else 1e-12)


@pytest.mark.slow
def test_steps_and_assignments_may_follow_one_another_in_one_function():
    fn, p = decay_problem()
    optimizer, again = GaussNewton(), GaussNewton()
    alone = [float(optimizer.step(fn, [p])["loss"]) for _ in range(2)]

    @tf.function
    def both():
        p.assign(p * 0 + START)
        return [again.step(fn, [p])["loss"] for _ in range(2)]

    np.testing.assert_allclose(both(), alone, rtol=1e-9)


@pytest.mark.slow
def test_weights_and_nests_are_one_long_weighted_residual():
    u, w = RANDOM.uniform(0.5, 2, 25), 3.0

    def flat(p):
        return np.concatenate([np.sqrt(u) * decay(p), np.sqrt(w) * (p - 1)])

    expected = scipy.optimize.least_squares(flat, START, method="lm", **TIGHT)
    a, b = variable(START[:2]), keras.Variable(START[2], dtype="float64")

    def residuals():
        p = tf.concat([a, b[None]], 0)
        return {"data": decay(p, exp=tf.exp), "prior": [a - 1, b - 1]}

    optimizer = GaussNewton()
    weights = {"data": u, "prior": [w, w]}
    result = optimizer.minimize(residuals, {"a": a, "b": b}, weights=weights)
    np.testing.assert_allclose([*a.numpy(), float(b)], expected.x, rtol=1e-7)
    assert result.loss == pytest.approx(expected.cost, rel=1e-12)


def test_new_data_of_the_same_shape_is_a_new_problem_without_a_new_graph():
    calls, p = [], variable(START)

    def residual(data):
        calls.append(1)
        return decay(p, data["t"], data["y"], tf.exp)

    optimizer = GaussNewton()
    traced = []
    for shift in (0.0, 1.0):
        p.assign(START)
        optimizer.minimize(residual, [p], data={"t": T, "y": Y + shift})
        expected = scipy.optimize.least_squares(lambda q, s=shift: decay(q) - s, START, **TIGHT)
        np.testing.assert_allclose(p.numpy(), expected.x, rtol=1e-6)
        traced.append(len(calls))
    assert traced[0] == traced[1]


@pytest.mark.slow
@pytest.mark.parametrize("options", ["trust region", *slow("nielsen")])
def test_means_are_those_of_fit_with_mse(options):
    x = RANDOM.normal(size=(12, 2))
    y = np.tanh(x[:, :1]) + 0.1 * RANDOM.normal(size=(12, 1))
    fitted, stepped = net(3, inputs=2), net(3, inputs=2)
    stepped.set_weights(fitted.get_weights())
    fitted.compile(gauss_newton(**OPTIONS[options]), "mse")
    fitted.fit(x, y, batch_size=12, epochs=4, verbose=0, shuffle=False)
    optimizer = gauss_newton(**OPTIONS[options])

    def residual():
        return stepped(x) - y

    for _ in range(4):
        logs = optimizer.step(residual, stepped, reduction="mean")
    for a, b in zip(fitted.get_weights(), stepped.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-10)
    assert float(logs["loss"]) == pytest.approx(fitted.evaluate(x, y, verbose=0), rel=1e-9)


# --- derivatives inside --------------------------------------------------------------------------


def by_tape(fn, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = fn(x)
    return tape.gradient(y, x)


DERIVATIVES = {
    "laplacian": keras_fwd.laplacian,
    "directional": lambda fn, x: keras_fwd.directional_derivatives(fn, x, tf.ones_like(x), 2)[2],
    "jvp": lambda fn, x: keras_fwd.jvp(fn, x, tf.ones_like(x))[1],
    "tape": by_tape,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["laplacian", "directional", *slow("jvp", "tape")])
def test_a_step_on_derivatives_is_that_of_central_differences(name):
    model, factor = net(3), variable(0.7)
    x = tf.constant(np.linspace(-1, 1, 9)[:, None])
    unknown = [*model.trainable_variables, factor]

    def residual():
        return {"pde": factor * DERIVATIVES[name](model, x) - tf.sin(x), "at": model(x[:1])}

    def at(values):
        for v, value in zip(unknown, values, strict=True):
            v.assign(value)
        return np.concatenate([np.ravel(r) for r in tf.nest.flatten(residual())])

    start = [np.array(v) for v in unknown]
    sizes = np.cumsum([v.size for v in start])[:-1]
    point = np.concatenate([np.ravel(v) for v in start])

    def moved(i, h):
        parts = np.split(point + h * np.eye(len(point))[i], sizes)
        return at([part.reshape(v.shape) for part, v in zip(parts, start, strict=True)])

    J = np.stack([(moved(i, 1e-5) - moved(i, -1e-5)) / 2e-5 for i in range(len(point))], axis=1)
    r = at(start)
    expected = point - np.linalg.solve(J.T @ J + 0.3 * np.eye(len(point)), J.T @ r)
    GaussNewton(damping=0.3, max_trials=1).step(residual, unknown)
    found = np.concatenate([np.ravel(np.array(v)) for v in unknown])
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_a_poisson_equation_is_solved():
    model = net(8)
    x = tf.constant(np.linspace(0, 1, 30)[:, None])

    def residual():
        edges = model(tf.constant([[0.0], [1.0]], tf.float64))
        return keras_fwd.laplacian(model, x) + np.pi**2 * tf.sin(np.pi * x), 10.0 * edges

    result = GaussNewton(damping=1.0).minimize(residual, model, max_steps=60)
    assert result.loss < 1e-3
    np.testing.assert_allclose(model(x), np.sin(np.pi * x), atol=2e-3)


# --- bounds --------------------------------------------------------------------------------------

BOUNDS = [0.0, 0.0, 0.7], [1.5, 5.0, 9.0]


@pytest.mark.parametrize(
    ("options", "kind"), [("trust region", "keras"), ("nielsen", "tf"), ("cg", "tf")]
)
def test_a_solution_at_a_bound_is_that_of_scipy(kind, options):
    expected = scipy.optimize.least_squares(decay, START, bounds=BOUNDS, **TIGHT)
    if kind == "keras":
        p = keras.Variable(START, dtype="float64")
        p.constraint = Box(*BOUNDS)
    else:
        p = variable(START, constraint=Box(*BOUNDS))
    result = gauss_newton(**OPTIONS[options]).minimize(lambda: decay(p, exp=tf.exp), [p])
    assert result.converged
    np.testing.assert_allclose(np.array(p), expected.x, atol=1e-7)
    assert float(p[0]) == 1.5 and float(p[2]) == 0.7


def test_linear_problems_end_exactly_at_their_bounds_in_a_few_steps():
    v = variable(np.ones(5), constraint=keras.constraints.NonNeg())

    def residual(data):
        return tf.linalg.matvec(data[0], v) - data[1]

    optimizer = GaussNewton()
    for seed in range(20):
        generator = np.random.default_rng(seed)
        matrix, right = generator.normal(size=(20, 5)), generator.normal(size=20)
        expected, _ = scipy.optimize.nnls(matrix, right)
        v.assign(np.ones(5))
        result = optimizer.minimize(residual, [v], data=(matrix, right))
        assert result.converged and result.steps <= 12
        np.testing.assert_allclose(v.numpy(), expected, atol=1e-12)
        assert (v.numpy() == 0).sum() == (expected == 0).sum()


def test_a_start_outside_of_its_bounds_is_brought_inside():
    fn, p = decay_problem([9.0, 9.0, -9.0], constraint=Box(*BOUNDS))
    expected = scipy.optimize.least_squares(decay, START, bounds=BOUNDS, **TIGHT)
    assert GaussNewton().minimize(fn, [p]).converged
    np.testing.assert_allclose(p.numpy(), expected.x, atol=1e-7)


@pytest.mark.parametrize("options", ["trust region", *slow("cg", "curvature_batch")])
def test_a_bounded_layer_in_fit_ends_where_scipy_does(options):
    free = np.linalg.lstsq(A, B, rcond=None)[0]
    expected, _ = scipy.optimize.nnls(A, B)
    # With the bound ignored and the result projected one would be elsewhere.
    assert np.abs(np.maximum(free, 0) - expected).max() > 1e-3
    dense = L.Dense(1, use_bias=False, kernel_constraint="non_neg")
    model = keras.Sequential([keras.Input((5,)), dense])
    model.set_weights([free[:, None]])  # outside, where no step with the bound lowers the loss
    optimizer = gauss_newton(**OPTIONS.get(options, {"curvature_batch": 19}))
    model.compile(optimizer, "mse")
    model.fit(A, B[:, None], batch_size=20, epochs=25, verbose=0, shuffle=False)
    np.testing.assert_allclose(model.get_weights()[0][:, 0], expected, atol=1e-8)


# --- one optimizer, several problems -------------------------------------------------------------


def test_minimize_starts_anew_whatever_came_before():
    fn, p = decay_problem()
    optimizer = GaussNewton()
    first = optimizer.minimize(fn, [p])
    end = p.numpy()
    p.assign([100.0, 40.0, -30.0])
    for _ in range(3):
        optimizer.step(fn, [p])  # huge columns, a radius far away
    p.assign(START)
    second = optimizer.minimize(fn, [p])
    assert second.steps == first.steps and second.loss == first.loss
    np.testing.assert_array_equal(p.numpy(), end)


@pytest.mark.slow
def test_problems_in_turns_do_not_disturb_each_other():
    alone, together = [], []
    (fn, p), (other, v) = decay_problem(), linear_problem(1e6)
    optimizer = GaussNewton(damping="auto")
    for _ in range(4):
        optimizer.step(fn, [p])
        alone.append(p.numpy())
    p.assign(START)
    optimizer = GaussNewton(damping="auto")
    for _ in range(4):
        optimizer.step(other, [v])
        optimizer.step(fn, [p])
        together.append(p.numpy())
    np.testing.assert_allclose(together, alone, rtol=1e-9)
    np.testing.assert_allclose(v.numpy(), np.linalg.lstsq(A, B, rcond=None)[0], rtol=1e-9)


@pytest.mark.slow
def test_an_optimizer_of_fit_takes_residuals_too():
    model = net(2)
    x = np.linspace(-1, 1, 8)[:, None]
    optimizer = GaussNewton()
    model.compile(optimizer, "mse")
    model.fit(x, x**2, epochs=2, verbose=0)
    fn, p = decay_problem()
    assert optimizer.minimize(fn, [p]).converged
    before = model.evaluate(x, x**2, verbose=0)
    model.fit(x, x**2, epochs=5, verbose=0)
    assert model.evaluate(x, x**2, verbose=0) < before


@pytest.mark.slow
def test_units_of_the_variables_do_not_matter():
    ends = []
    for unit in (1.0, 2.0**40):
        p = variable(START * [unit, 1, 1])

        def fn(p=p, unit=unit):
            return decay(p / [unit, 1, 1], exp=tf.exp)

        ends.append(GaussNewton().minimize(fn, [p]).steps)
    assert ends[0] == ends[1]


# --- how it ends ---------------------------------------------------------------------------------


def test_the_steps_run_out_or_a_callback_says_so(capsys):
    fn, p = decay_problem()
    optimizer = GaussNewton()
    result = optimizer.minimize(fn, [p], max_steps=2, verbose=2)
    assert not result.converged and result.steps == 2 and "max_steps=2" in result.message
    assert capsys.readouterr().out.count("\n") == 3
    seen = []

    def stop(step, logs):
        seen.append((step, type(logs["loss"])))
        return step == 3

    result = optimizer.minimize(fn, [p], callback=stop)
    assert result.message == "stopped by `callback`" and seen == [(i, float) for i in (1, 2, 3)]
    result = optimizer.minimize(fn, [p], gtol=0.5)
    assert result.status.code == StepStatus.GRADIENT_CONVERGED
    np.testing.assert_array_equal(optimizer.tolerances.numpy(), [-1.0] * 3)


HARD = {
    "a variable without effect": lambda v: (tf.linalg.matvec(A[:, :3], v[:3]) - B, ()),
    "rank-deficient": lambda v: tf.linalg.matvec(A[:, [0, 0, 1, 1, 2]], v) - B,
    "more variables than residuals": lambda v: tf.linalg.matvec(A[:3], v) - B[:3],
    "no residual left": lambda v: tf.linalg.matvec(A[:5], v),
    "one that is constant": lambda v: [tf.linalg.matvec(A, v) - B, tf.constant(B)],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HARD)
def test_degenerate_problems_converge_to_a_least_loss(name):
    v = variable(np.linspace(1, 2, 5))
    result = GaussNewton().minimize(lambda: HARD[name](v), [v])
    assert result.converged and np.isfinite(v.numpy()).all()
    columns = {"a variable without effect": [0, 1, 2], "rank-deficient": [0, 2, 4]}
    matrix = A[:, : len(columns.get(name, range(5)))]
    least = np.sum((matrix @ np.linalg.lstsq(matrix, B, rcond=None)[0] - B) ** 2) / 2
    if name in ("more variables than residuals", "no residual left"):
        least = 0.0
    least += np.sum(B**2) / 2 if name == "one that is constant" else 0.0
    assert result.loss == pytest.approx(least, rel=1e-9, abs=1e-20)
    if name == "a variable without effect":
        np.testing.assert_array_equal(v.numpy()[3:], [1.75, 2.0])


NOT_FINITE = {
    "NaN in a residual": (lambda v: v - np.array([1.0, np.nan, 0, 0, 0]), "NaN in outputs"),
    "residuals of 1e200": (lambda v: 1e200 * (v + 1), "infinity in the loss"),
    "NaN in a gradient": (lambda v: 1 + tf.sqrt(v - v), "NaN in the gradient of weight"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NOT_FINITE)
def test_what_is_not_finite_is_named_and_the_variables_stay(name):
    fn, named = NOT_FINITE[name]
    v = variable(np.linspace(1, 2, 5))
    result = GaussNewton().minimize(lambda: fn(v), [v])
    assert not result.converged and result.steps == 1
    assert result.status.code == StepStatus.BATCH_NOT_FINITE and named in result.message
    np.testing.assert_array_equal(v.numpy(), np.linspace(1, 2, 5))


def test_a_jacobian_that_is_not_finite_ends_it_though_the_gradient_is_zero():
    v = variable(np.linspace(1, 2, 5))
    result = GaussNewton().minimize(lambda: tf.sqrt(v - v), [v])
    assert result.status.code == StepStatus.SOLUTION_NOT_FINITE and result.steps == 1
    np.testing.assert_array_equal(v.numpy(), np.linspace(1, 2, 5))


def test_a_trial_that_is_not_finite_is_made_shorter():
    v = variable([0.1])
    result = GaussNewton(damping=0.0).minimize(lambda: tf.math.log(v) - 3.0, [v])
    assert result.converged
    assert float(v[0]) == pytest.approx(np.exp(3), rel=1e-8)


# --- what is refused -----------------------------------------------------------------------------

CONFIGURATION, STRUCTURE = keras_fwd.ConfigurationError, keras_fwd.StructureError


def frozen():
    return tf.Variable(1.0, trainable=False, dtype="float64")


REFUSED = {
    "not a function": (lambda v: ((v - 1), [v]), {}, CONFIGURATION, "must be a function"),
    "a loss": (lambda v: (lambda: tf.reduce_sum(v**2), [v]), {}, STRUCTURE, "not a loss"),
    "nothing": (lambda v: (lambda: None, [v]), {}, STRUCTURE, "not a loss"),
    "integers": (lambda v: (lambda: tf.cast(v, tf.int32), [v]), {}, STRUCTURE, "Cast integers"),
    "no variables": (lambda v: (lambda: v, []), {}, CONFIGURATION, "none in"),
    "a tensor": (lambda v: (lambda: v, [v + 1]), {}, CONFIGURATION, "must be a built layer"),
    "one twice": (lambda v: (lambda: v, [v, v]), {}, CONFIGURATION, "one twice"),
    "a frozen one": (lambda v: (lambda: v, [frozen()]), {}, CONFIGURATION, "not trainable"),
    "a layer in a list": (lambda v: (lambda: v, [net()]), {}, CONFIGURATION, r"\*model"),
    "weights of another structure": (
        lambda v: (lambda: v, [v]),
        {"weights": [1.0, 2.0]},
        STRUCTURE,
        "structure of the residuals",
    ),
    "weights of another shape": (
        lambda v: (lambda: v, [v]),
        {"weights": np.ones(3)},
        STRUCTURE,
        "broadcast",
    ),
    "negative weights": (
        lambda v: (lambda: v, [v]),
        {"weights": -1.0},
        CONFIGURATION,
        "finite numbers of at least 0",
    ),
    "weights of NaN": (
        lambda v: (lambda: v, [v]),
        {"weights": np.array([1, np.nan, 1, 1, 1])},
        CONFIGURATION,
        "finite numbers",
    ),
    "another reduction": (
        lambda v: (lambda: v, [v]),
        {"reduction": "max"},
        CONFIGURATION,
        "one of 'sum', 'mean'",
    ),
    "steps": (lambda v: (lambda: v, [v]), {"max_steps": 0}, CONFIGURATION, "max_steps"),
    "a tolerance": (lambda v: (lambda: v, [v]), {"ftol": -1.0}, CONFIGURATION, "ftol"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_meaning_is_refused_and_nothing_moves(name):
    make, options, error, match = REFUSED[name]
    v = variable(np.linspace(1, 2, 5))
    with pytest.raises(error, match=match) as raised:
        GaussNewton().minimize(*make(v), **options)
    assert "Received: " in str(raised.value) or name in ("steps", "a tolerance")
    np.testing.assert_array_equal(v.numpy(), np.linspace(1, 2, 5))


def test_a_scalar_of_one_unknown_is_a_residual():
    v = variable(1.0)
    assert GaussNewton().minimize(lambda: v**2 - 2, [v]).converged
    assert float(v) == pytest.approx(np.sqrt(2), rel=1e-12)


def test_options_of_models_and_minimize_in_a_graph_are_refused():
    fn, v = linear_problem()
    for options in ({"preconditioner": "kfac"}, {"curvature_batch": 4}, {"micro_batch": 4}):
        with pytest.raises(CONFIGURATION, match="is for models in `fit`"):
            gauss_newton(**options).minimize(fn, [v])
    with pytest.raises(CONFIGURATION, match=r"in a tf\.function call `step`"):
        tf.function(lambda: GaussNewton().minimize(fn, [v]).loss, autograph=False)()


def test_negative_weights_in_a_graph_make_the_loss_nan():
    fn, v = linear_problem()
    optimizer = GaussNewton()
    step = tf.function(lambda w: optimizer.step(fn, [v], weights=w)["loss"])
    assert np.isnan(float(step(tf.constant(-1.0, tf.float64))))
    assert optimizer.status.code == StepStatus.BATCH_NOT_FINITE
    np.testing.assert_array_equal(v.numpy(), np.zeros(5))
    assert np.isfinite(float(step(tf.constant(1.0, tf.float64))))


@pytest.mark.slow
def test_a_function_made_anew_for_each_call_is_warned_of():
    v = variable([1.0, 2.0])
    optimizer = GaussNewton(solver="cg")

    def make():
        return lambda: v - 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            optimizer.step(make(), [v])
    with pytest.warns(RuntimeWarning, match="hand it what changes as `data`"):
        optimizer.step(make(), [v])


def test_a_problem_is_forgotten_with_its_function_and_variables():
    optimizer = GaussNewton()
    fn, v = linear_problem()
    function, handle = weakref.ref(fn), weakref.ref(v)
    optimizer.minimize(fn, [v], max_steps=2)
    assert function() is not None
    del fn
    gc.collect()
    assert function() is None
    del v
    gc.collect()
    assert handle() is None
