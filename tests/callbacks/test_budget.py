"""How many examples a measurement may use: simulated training, on a clock of its own."""

import itertools

import keras
import numpy as np
import pytest

from keras_fwd.callbacks import CurvatureCallback, JacobianNormCallback
from keras_fwd.callbacks._measuring import schedule
from keras_fwd.callbacks._measuring.budget import SMALLEST, Budget, sizes
from keras_fwd.callbacks._measuring.schedule import ScheduledCallback, shuffled
from keras_fwd.errors import ConfigurationError

SHARE = 0.1


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Simulation:
    """A training whose epochs and measurements take what they are told to."""

    def __init__(self, fixed, slope, examples=1024, share=SHARE):
        self.clock = Clock()
        self.budget = Budget(share, examples, self.clock)
        self.fixed, self.slope = fixed, slope
        self.budget.calibrate(self.measure)

    def measure(self, count):
        self.clock.now += self.fixed + self.slope * count

    def epoch(self, seconds, interruption=0.0):
        """Examples used, and what the measurement took."""
        self.budget.resume()
        self.clock.now += seconds
        self.budget.pause()
        count = self.budget.grant()
        if not count:
            return 0, 0.0
        start = self.clock.now
        self.measure(count)
        self.clock.now += interruption
        self.budget.charge(count)
        return count, self.clock.now - start

    def epochs(self, number, seconds):
        return [self.epoch(seconds) for _ in range(number)]


#: Seconds of every measurement, of every example, of an epoch; what the last epochs must use.
CASES = {
    "cheap": (0.0, 1e-5, 1.0, 1024),
    "limited": (0.0, 1e-3, 1.0, 64),
    "a fixed part": (0.05, 1e-4, 1.0, 256),
    "a fixed part that fills it nearly": (0.075, 1e-6, 1.0, 1024),
    "noise of the clock": (0.0, 0.0, 1.0, 1024),
}


@pytest.mark.parametrize("case", CASES)
def test_each_measurement_keeps_below_its_share_and_uses_what_it_may(case):
    fixed, slope, seconds, expected = CASES[case]
    training = Simulation(fixed, slope)
    runs = training.epochs(12, seconds)
    assert all(took <= SHARE * seconds for _, took in runs)
    assert [count for count, _ in runs[6:]] == [expected] * 6
    assert runs[0][0] <= 4 * 64  # few at first
    assert training.budget.skipped == 0


@pytest.mark.parametrize("fixed", [0.09, 0.3, 2.0])
def test_where_the_smallest_is_too_dear_epochs_are_skipped(fixed):
    training = Simulation(fixed, fixed / 1000)
    runs = training.epochs(200, 1.0)
    counts = np.array([count for count, _ in runs])
    assert sum(took for _, took in runs) <= SHARE * 200
    assert sum(took for _, took in runs) > 0.3 * SHARE * 200  # and what it may is used
    assert (counts == 0).sum() == training.budget.skipped > 50
    # What is fixed is paid for anyway: more examples, less often.
    assert counts.max() >= 512
    assert f"{training.budget.skipped} left out" in training.budget.summary()


def test_a_single_interruption_does_not_blind_it():
    training = Simulation(0.0, 5e-4)
    before = training.epochs(5, 1.0)
    assert before[-1][0] == 128
    training.epoch(1.0, interruption=30.0)
    assert [count for count, _ in training.epochs(3, 1.0)] == [0, 128, 128]


def test_an_interruption_of_the_first_measurements_is_forgotten():
    training = Simulation(0.5, 5e-4)
    training.fixed = 0.0
    counts = [count for count, _ in training.epochs(40, 1.0)]
    assert counts[-1] == 128


def test_it_follows_a_machine_that_slows_down_and_recovers():
    training = Simulation(0.0, 1e-4)
    assert training.epochs(10, 1.0)[-1][0] == 512
    training.slope = 1e-3
    slow = training.epochs(20, 1.0)
    assert slow[-1][0] == 64
    assert all(took <= SHARE for _, took in slow[6:])
    assert sum(took for _, took in slow) <= SHARE * 25
    training.slope = 1e-4
    assert training.epochs(20, 1.0)[-1][0] == 512


def test_a_dear_measurement_is_timed_once_before_training():
    training = Simulation(1.5, 0.0)
    assert training.clock.now == 100.0 + 2 * 1.5
    assert training.budget.predicted(1024) == 1.5


def test_shorter_epochs_have_fewer_examples():
    """The first epoch also traces: what it allows says nothing of the next ones."""
    training = Simulation(0.0, 1e-4)
    training.epochs(6, 20.0)
    assert [count for count, _ in training.epochs(3, 0.5)] == [256] * 3


def test_an_allowance_that_was_not_needed_is_forgotten():
    training = Simulation(0.0, 1e-4)
    training.epochs(20, 100.0)
    assert all(took <= SHARE * 0.1 for _, took in training.epochs(20, 0.1))


def test_what_was_too_much_is_taken_from_the_next():
    training = Simulation(0.0, 5e-4)
    training.epochs(5, 1.0)
    _, took = training.epoch(1.0, interruption=0.06)
    assert took > SHARE
    count, _ = training.epoch(1.0)
    assert 0 < count < 128


def test_the_sizes_are_nested_and_end_with_all():
    assert sizes(1) == [1]
    assert sizes(SMALLEST) == [SMALLEST]
    assert sizes(100) == [32, 64, 100]
    assert sizes(256) == [32, 64, 128, 256]


def test_the_summary_says_nothing_where_nothing_changed():
    training = Simulation(0.0, 0.0, examples=32)
    training.epochs(3, 1.0)
    assert training.budget.summary() == ""


def test_the_summary_counts():
    training = Simulation(0.0, 5e-4)
    training.epochs(10, 1.0)
    text = training.budget.summary()
    assert text == (
        "128 of 1024 examples in each of 10 measurements; they took 6.4% of the time of training"
    )


# --- in `fit` -------------------------------------------------------------------------------------


class Measuring(ScheduledCallback):
    """Takes a millisecond an example, on the clock."""

    def __init__(self, clock, schedule="epoch", max_overhead=SHARE, fixed=0.0, examples=256):
        super().__init__(schedule, max_overhead)
        self.clock, self.fixed, self.all, self.counts = clock, fixed, examples, []

    def begin(self):
        self.counts = []
        return self.all

    def names(self):
        return ["value", "examples"]

    def measure(self, count):
        self.clock.now += self.fixed + 1e-3 * count
        self.counts.append(count)
        return {"value": float(count)}


class Passing(keras.callbacks.Callback):
    """Lets time pass at each batch, and keeps the logs."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds, self.batches = clock, seconds, []

    def on_train_batch_begin(self, batch, logs=None):
        self.clock.now += self.seconds

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(dict(logs))


def train(callbacks, epochs=4, **arguments):
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.ones([6, 1])
    arguments = {"verbose": 0, "batch_size": 2, **arguments}
    return model.fit(x, x, epochs=epochs, callbacks=callbacks, **arguments).history


def test_the_number_of_examples_is_in_the_logs():
    clock = Clock()
    callback = Measuring(clock)
    history = train([callback, Passing(clock, 0.5)])
    assert history["examples"] == history["value"] == [64] * 4
    assert callback.counts == [32, 32, 32, 64, *history["examples"]]  # timed before training
    clock = Clock()
    history = train([Measuring(clock, max_overhead=None), Passing(clock, 0.5)])
    assert history["value"] == [256] * 4
    assert "examples" not in history


def test_its_own_time_and_that_between_epochs_is_no_training():
    clock = Clock()

    class Slow(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            clock.now += 100.0

    history = train([Measuring(clock), Passing(clock, 0.5), Slow()])
    assert history["examples"] == [64] * 4


def test_steps_that_were_sent_and_are_not_done_are_training(monkeypatch):
    """An accelerator runs behind: half of the time of an epoch passes while its end is awaited."""
    clock = Clock()

    def wait(model):
        clock.now += 0.75

    monkeypatch.setattr(schedule, "_wait", wait)
    assert train([Measuring(clock), Passing(clock, 0.25)])["examples"] == [64] * 4
    monkeypatch.setattr(schedule, "_wait", lambda model: None)
    assert train([Measuring(clock), Passing(clock, 0.25)])["examples"] == [32] * 4


def test_skipped_epochs_have_every_name_in_the_logs():
    clock = Clock()
    history = train([Measuring(clock, fixed=0.5), Passing(clock, 0.5)], epochs=12)
    counts, values = np.array(history["examples"]), np.array(history["value"])
    assert len(counts) == len(values) == 12
    assert 0 < (counts == 0).sum() < 12
    np.testing.assert_array_equal(np.isnan(values), counts == 0)


def test_every_n_batches_keeps_below_the_share_of_their_time():
    clock = Clock()
    callback, passing = Measuring(clock, schedule=2), Passing(clock, 0.85)
    history = train([callback, passing], epochs=8)  # 3 batches each
    counts = [logs.get("examples") for logs in passing.batches]
    assert [count is None for count in counts] == [True, False] * 12
    assert set(counts[1::2]) == {128}
    assert history["examples"] == [128] * 8


def test_a_batch_that_is_skipped_has_nothing_in_its_logs():
    clock = Clock()
    callback, passing = Measuring(clock, schedule=1, fixed=0.2), Passing(clock, 0.6)
    train([callback, passing], epochs=8, batch_size=1)
    written = ["value" in logs for logs in passing.batches]
    assert 0 < sum(written) == len(callback.budget.used) < len(written)


def test_fit_says_what_the_bound_changed(capsys):
    for verbose, said in ((0, False), (2, True)):
        clock = Clock()
        train([Measuring(clock), Passing(clock, 0.5)], verbose=verbose)
        out = capsys.readouterr().out
        assert ("Measuring(max_overhead=0.1): 64 of 256 examples in each of 4" in out) is said


@pytest.mark.parametrize("max_overhead", [0, -0.1, "0.1", float("nan")])
@pytest.mark.parametrize("kind", [JacobianNormCallback, CurvatureCallback])
def test_a_bad_share_is_named_at_construction(kind, max_overhead):
    x = np.ones([4, 1])
    with pytest.raises(ConfigurationError, match="`max_overhead` must be a finite number above 0"):
        kind((x, x), max_overhead=max_overhead)


def test_shuffled_examples_stay_together_and_are_all_there():
    x = np.arange(100.0)
    first, (second, third) = shuffled((x, [x + 1, x[:, None]]), seed=1)
    np.testing.assert_array_equal(first + 1, second)
    np.testing.assert_array_equal(first, third[:, 0])
    assert sorted(first) == list(x)
    assert not (first[:20] < 30).all()
    np.testing.assert_array_equal(shuffled(x, seed=1), first)


# --- the callbacks that measure in a graph --------------------------------------------------------

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(100, 5)), RANDOM.normal(size=(100, 2))
W = RANDOM.uniform(0.5, 2.0, 100)
FEW = {"num_iterations": 4, "num_probes": 2}
KINDS = {
    "frobenius": lambda **more: JacobianNormCallback(X, **more),
    "estimated": lambda **more: JacobianNormCallback(X, num_probes=2, **more),
    "spectral": lambda **more: JacobianNormCallback(X, "spectral", **more),
    "hessian": lambda **more: CurvatureCallback((X, Y), **FEW, **more),
    "ggn": lambda **more: CurvatureCallback((X, Y, W), ["trace"], "ggn", **FEW, **more),
}


def network(jit=False):
    stack = [keras.layers.Dense(n, f, dtype="float64") for n, f in ((6, "tanh"), (2, None))]
    model = keras.Sequential([keras.Input([5], dtype="float64"), *stack])
    model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=jit)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_examples_is_measured_by_one_graph(kind, float64):
    """A prefix of the shuffled examples: the same as a callback that is given those alone."""
    model = network()
    callback = KINDS[kind](max_overhead=SHARE)
    callback.set_model(model)
    callback.on_train_begin()
    for count in (32, 50, 100):
        found = callback.measure(count)
        alone = KINDS[kind]()
        alone._data = tf_slice(callback._data, count)
        alone.set_model(model)
        alone.on_train_begin()
        expected = alone.measure(count)
        assert list(found) == list(expected) == callback.names()[:-1]
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-8)
    assert callback._measure.experimental_get_tracing_count() == 1


def tf_slice(data, count):
    return tuple(part[:count] for part in data) if isinstance(data, tuple) else data[:count]


@pytest.mark.slow
@pytest.mark.parametrize("jit", [False, True])
def test_the_callbacks_in_fit_by_a_clock(jit, float64):
    ticks = itertools.count()
    callbacks = [
        JacobianNormCallback(X, max_overhead=SHARE, name="j"),
        CurvatureCallback((X, Y), "trace", max_overhead=SHARE, every=2, num_probes=2),
    ]
    for callback in callbacks:
        callback.clock = lambda: float(next(ticks))
    history = network(jit).fit(X, Y, verbose=0, epochs=3, callbacks=callbacks).history
    # A second for each look at the clock: training and a measurement take about the same.
    assert history["j_examples"][0] == 0 and np.isnan(history["j"][0])
    assert set(history) >= {"j", "j_examples", "hessian_trace", "hessian_examples"}
    for callback in callbacks:
        callback.max_overhead = 1e6
    history = network(jit).fit(X, Y, verbose=0, epochs=3, callbacks=callbacks).history
    assert history["j_examples"] == history["hessian_examples"] == [100] * 3
    assert np.isfinite(history["j"]).all() and np.isfinite(history["hessian_trace"]).all()


def test_a_sum_over_the_examples_has_no_bound(float64):
    model = network()
    model.compile("sgd", keras.losses.MeanSquaredError(reduction="sum"))
    callback = CurvatureCallback((X, Y), max_overhead=SHARE)
    callback.set_model(model)
    with pytest.raises(ConfigurationError, match="`max_overhead` must be None for a loss"):
        callback.on_train_begin()
