"""The sensitivity callback: what it logs, how it keeps the evolution, what it writes."""

import dataclasses
import json
import math

import keras
import numpy as np
import pandas
import pytest
import tensorflow as tf
from support.report_cases import made_up_report

from keras_fwd.callbacks import SensitivityCallback, sensitivity
from keras_fwd.errors import ConfigurationError
from keras_fwd.sensitivity._statistics.estimates import Estimate
from keras_fwd.sensitivity.analysis import Analysis, sensitivity_report

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(96, 3))
Y = X @ [[1.0], [-2.0], [0.0]]
SPREAD = np.array([1.0, -2.0, 0.0])


class Clock:
    """Seconds that pass when the test says so."""

    now = 0.0

    def __call__(self):
        return self.now


class FakeAnalysis:
    """Reports whose measures are the kernel of the model's only layer."""

    seconds = 0.0
    clock = Clock()

    def __init__(self, call, model, **options):
        self.model, self.options, self.counts = model, options, []

    def report(self, data, max_examples=None, progress=False):
        kernel = self.model.layers[-1].kernel.numpy().astype(float)
        features, outputs = kernel.shape
        exact = Estimate(kernel, 0 * kernel, kernel, kernel)
        size = np.abs(exact.value.mean(axis=1, keepdims=True))
        size = size if len(data) == len(X) else 1 / size  # a few examples mislead
        pooled = {"standardized_rms": Estimate(size, 0 * size, size, size)}
        report = made_up_report(features, outputs, examples=len(data), pooled=pooled)
        measures = report.measures | {"mean": exact, "standardized_rms": exact.map(np.abs)}
        self.counts.append(len(data))
        self.clock.now += self.seconds + 1e-3 * len(data)
        names = self.options["feature_names"] or report.feature_names
        return FakeReport(
            **{
                **{f.name: getattr(report, f.name) for f in dataclasses.fields(report)},
                "measures": measures,
                "feature_names": tuple(names),
            }
        )


class FakeReport(type(made_up_report())):
    def ranking(self):
        return np.argsort(-self.pooled["standardized_rms"].value[:, 0])

    def plot(self, kind):
        import matplotlib.figure

        figure = matplotlib.figure.Figure(figsize=(2, 1))
        figure.add_subplot().bar(range(len(self.feature_names)), self.measures["mean"].value[:, 0])
        return figure


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(FakeAnalysis, "clock", clock)
    monkeypatch.setattr(FakeAnalysis, "seconds", 0.0)
    monkeypatch.setattr(sensitivity, "Analysis", FakeAnalysis)
    monkeypatch.setattr(SensitivityCallback, "clock", clock)
    return clock


class Passing(keras.callbacks.Callback):
    """Lets time pass at each batch, and keeps the logs."""

    def __init__(self, clock, seconds=1.0):
        super().__init__()
        self.clock, self.seconds, self.batches, self.kernels = clock, seconds, [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.clock.now += self.seconds

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(dict(logs))

    def on_epoch_begin(self, epoch, logs=None):
        self.kernels.append(self.model.layers[-1].kernel.numpy())

    def on_train_end(self, logs=None):
        self.kernels.append(self.model.layers[-1].kernel.numpy())


def train(callbacks, features=3, outputs=1, epochs=3, dtype="float32", **arguments):
    keras.utils.set_random_seed(1)
    layer = keras.layers.Dense(outputs, use_bias=False, dtype=dtype)
    model = keras.Sequential([keras.Input([features], dtype=dtype, name="x"), layer])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = RANDOM.normal(size=(24, features))
    arguments = {"verbose": 0, "batch_size": 8, **arguments}
    return model.fit(x, x[:, :outputs], epochs=epochs, callbacks=callbacks, **arguments).history


def test_one_number_a_feature_is_in_the_logs(clock):
    callback, passing = SensitivityCallback(X, feature_names=["a", "b", "c"]), Passing(clock)
    history = train([callback, passing])
    assert set(history) == {
        "loss", "sensitivity/a", "sensitivity/b", "sensitivity/c", "sensitivity_examples"
    }  # fmt: skip
    expected = np.abs(passing.kernels[1:])[:, :, 0]
    found = np.stack([history[f"sensitivity/{name}"] for name in "abc"], axis=1)
    np.testing.assert_allclose(found, expected)
    assert history["sensitivity_examples"] == [96] * 3


def test_the_evolution_starts_before_training(clock):
    callback, passing = SensitivityCallback(X), Passing(clock)
    train([callback, passing])
    evolution = callback.report.evolution
    assert evolution.epochs.tolist() == [0, 1, 2, 3]
    assert evolution.examples.tolist() == [96] * 4
    np.testing.assert_allclose(evolution.measures["mean"].value, passing.kernels)
    np.testing.assert_allclose(evolution.measures["standardized_rms"].low, np.abs(passing.kernels))
    np.testing.assert_allclose(callback.report.measures["mean"].value, passing.kernels[-1])


def test_a_second_fit_starts_a_new_evolution_where_its_epochs_do(clock):
    callback = SensitivityCallback(X)
    train([callback, Passing(clock)])
    train([callback, Passing(clock)], epochs=7, initial_epoch=5)
    assert callback.report.evolution.epochs.tolist() == [5, 6, 7]


def test_every_n_batches_stands_within_the_epoch(clock):
    callback = SensitivityCallback(X, every=2, max_overhead=None, prefix="s_")
    passing = Passing(clock)
    train([callback, passing], epochs=2)  # 3 batches each
    np.testing.assert_allclose(callback.report.evolution.epochs, [0, 2 / 3, 4 / 3, 2])
    written = ["s_feature 0" in logs for logs in passing.batches]
    assert written == [False, True, False, True, False, True]


def test_with_many_features_the_strongest_are_logged_by_names_that_stay(clock):
    callback, passing = SensitivityCallback(RANDOM.normal(size=(96, 30))), Passing(clock)
    history = train([callback, passing], features=30)
    strongest = np.sort(np.argsort(-np.abs(passing.kernels[0][:, 0]))[:20])
    names = [name for name in history if name.startswith("sensitivity/")]
    assert names == [f"sensitivity/feature {i}" for i in strongest]
    assert all(len(history[name]) == 3 for name in names)
    assert len(callback.report.feature_names) == 30
    given = SensitivityCallback(RANDOM.normal(size=(96, 30)), features=list(range(30)))
    history = train([given, Passing(clock)], features=30)
    names = [name for name in history if name.startswith("sensitivity/")]
    assert names == [f"sensitivity/feature {i}" for i in range(20)]


def test_it_is_bounded_unless_told_otherwise(clock):
    callback = SensitivityCallback(X)
    history = train([callback, Passing(clock, 0.25)])  # allows 75 ms an epoch, a ms an example
    assert history["sensitivity_examples"] == [32] * 3
    callback = SensitivityCallback(X, max_overhead=None)
    history = train([callback, Passing(clock, 0.25)])
    assert "sensitivity_examples" not in history
    assert callback._analysis.counts == [96] * 4


def test_before_and_after_training_there_is_a_second(clock, monkeypatch):
    monkeypatch.setattr(FakeAnalysis, "seconds", 0.5)
    callback, passing = SensitivityCallback(X), Passing(clock, 0.1)
    history = train([callback, passing])
    assert history["sensitivity_examples"] == [0] * 3
    assert all(map(math.isnan, history["sensitivity/feature 0"]))
    assert callback._analysis.counts == [32, 32, 32, 64, 96, 96]
    assert callback.report.evolution.epochs.tolist() == [0, 3]
    np.testing.assert_allclose(callback.report.measures["mean"].value, passing.kernels[-1])


def test_options_of_the_report_are_passed_on(clock):
    callback = SensitivityCallback(X, output_names=["y"], seed=3, discrete={"a": [0, 1]})
    train([callback, Passing(clock)])
    assert callback._analysis.options == {
        "feature_names": None,
        "output_names": ["y"],
        "features": None,
        "seed": 3,
        "resamples": 0,
        "discrete": {"a": [0, 1]},
    }


def test_an_option_that_is_not_there_is_named_at_construction():
    with pytest.raises(ConfigurationError, match="`by` must be left out"):
        SensitivityCallback(X, by="target")
    with pytest.raises(TypeError, match="unexpected keyword argument 'feature'"):
        SensitivityCallback(X, feature="a")


# --- with the true analysis -----------------------------------------------------------------------


def test_the_report_of_a_linear_model_is_its_kernel():
    callback = SensitivityCallback(X, max_overhead=None, groups={"g": ["x[0]"]})
    passing = Passing(Clock())
    history = train([callback, passing], dtype="float64")
    evolution = callback.report.evolution
    np.testing.assert_allclose(evolution.measures["mean"].value, passing.kernels, rtol=1e-9)
    np.testing.assert_allclose(evolution.measures["mean"].stderr, 0, atol=1e-9)
    scaled = np.abs(passing.kernels[-1][:, 0]) * X.std(axis=0) / (X @ passing.kernels[-1]).std()
    names = [name for name in history if name.startswith("sensitivity/")]
    np.testing.assert_allclose([history[name][-1] for name in names], scaled, rtol=1e-9)
    assert list(names) == ["sensitivity/x[0]", "sensitivity/x[1]", "sensitivity/x[2]"]
    assert callback.report.groups.names == ("g",)


def curved():
    inner = keras.layers.Dense(8, "tanh", dtype="float64", kernel_initializer="normal")
    stack = [inner, keras.layers.Dense(2, dtype="float64")]
    return keras.Sequential([keras.Input([3], dtype="float64", name="x"), *stack])


def test_errors_without_resamples_are_about_those_of_the_bootstrap():
    model, x = curved(), 3 * np.random.default_rng(0).normal(size=(400, 3))
    rough, fine = (
        Analysis("test", model, resamples=resamples).report(x) for resamples in (0, 1000)
    )
    for name in ("mean", "rms", "standardized_rms", "total_index_bound"):
        np.testing.assert_allclose(rough.measures[name].value, fine.measures[name].value)
        for end in ("stderr", "low", "high"):
            ours, theirs = (getattr(r.measures[name], end) for r in (rough, fine))
            np.testing.assert_array_less(np.abs(ours - theirs), 2 * fine.measures[name].stderr)
        ratio = rough.measures[name].stderr / fine.measures[name].stderr
        assert 0.7 < np.median(ratio) < 1.4
    assert any("jackknife over 25 groups" in note for note in rough.notes)


def test_any_number_of_examples_is_measured_without_tracing_again():
    calls = []

    def counted(x):
        calls.append(1)
        return tf.tanh(x)

    layer = keras.layers.Dense(2, counted)
    callback = SensitivityCallback(X)
    callback.set_model(keras.Sequential([keras.Input([3]), layer]))
    callback.on_train_begin()
    traced = len(calls)
    for count in (40, 50, 96):
        callback.measure(count)
        assert callback._report.examples == count
    assert len(calls) == traced > 0


def test_the_report_is_that_of_the_trained_model():
    model = curved()
    model.compile("sgd", "mse")
    callback = SensitivityCallback(X, max_overhead=1e9, every=1)
    history = model.fit(X, X[:, :2], epochs=2, verbose=0, callbacks=[callback]).history
    assert history["sensitivity_examples"] == [96] * 2
    report = callback.report
    expected = sensitivity_report(model, callback._data)
    np.testing.assert_allclose(report.measures["mean"].value, expected.measures["mean"].value)
    assert len(report.evolution.epochs) == 7


def test_a_data_frame_is_read():
    frame = pandas.DataFrame(X, columns=["a", "b", "c"])
    for data in (frame, (frame, Y)):
        callback = SensitivityCallback(data, max_examples=50, max_overhead=1e9)
        history = train([callback], dtype="float64")
        assert {"sensitivity/a", "sensitivity/b", "sensitivity/c"} < set(history)
        assert history["sensitivity_examples"] == [50] * 3


def test_interrupting_a_measurement_ends_the_training(monkeypatch):
    callback = SensitivityCallback(X, max_overhead=None)
    model = curved()
    model.compile("sgd", "mse")

    def interrupted(self, data):
        return dataclasses.replace(made_up_report(3, 2), interrupted=True)

    monkeypatch.setattr(Analysis, "report", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, X[:, :2], verbose=0, callbacks=[callback])


def test_the_page_holds_the_evolution(tmp_path):
    callback = SensitivityCallback(X, max_overhead=None)
    train([callback])
    callback.to_html(tmp_path / "page.html", title="Linear")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Linear" in page and "evolution" in page
    assert json.loads(callback.report.to_json())["evolution"]["epochs"] == [0, 1, 2, 3]


def test_a_page_needs_a_measurement(clock, tmp_path):
    with pytest.raises(ConfigurationError, match=r"Pass it to `fit` first"):
        SensitivityCallback(X).to_html(tmp_path / "page.html")
    assert SensitivityCallback(X).report is None


BAD = {
    "every": ({"every": 0}, "`every` must be"),
    "max_examples": ({"max_examples": 0}, "`max_examples` must be"),
    "max_overhead": ({"max_overhead": 0}, "`max_overhead` must be"),
    "prefix": ({"prefix": None}, "`prefix` must be a text"),
    "seed": ({"seed": -1}, "`seed` must be"),
    "empty": ({"data": X[:0]}, "at least one example"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_argument_is_named_at_construction(case, clock):
    arguments, message = BAD[case]
    with pytest.raises(ConfigurationError, match=message):
        SensitivityCallback(**{"data": X, **arguments})
