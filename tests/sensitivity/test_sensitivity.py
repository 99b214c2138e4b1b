"""Sensitivity reports: against coefficients, central differences and plain NumPy statistics."""

import re
import sys
import tracemalloc

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_fwd.errors import ConfigurationError, StructureError
from keras_fwd.sensitivity import SensitivityReport, sensitivity_report
from keras_fwd.sensitivity._measuring.stream import Background
from keras_fwd.sensitivity._statistics.accumulator import Accumulator
from keras_fwd.sensitivity._statistics.moments import GroupSums, Moments, Reservoir
from keras_fwd.sensitivity.analysis import Analysis
from keras_fwd.sensitivity.measures import MEASURES, QUANTILES

SIMPLE = ("mean", "mean_abs", "rms")


def inputs(n=50, features=3):
    return np.random.default_rng(0).normal(1.0, 2.0, (n, features))


def dense(units, activation=None):
    return keras.layers.Dense(units, activation, dtype="float64", bias_initializer="normal")


def linear_model(kernel):
    layer = dense(kernel.shape[1])
    model = keras.Sequential([keras.Input([kernel.shape[0]], dtype="float64"), layer])
    layer.set_weights([kernel, np.zeros(kernel.shape[1])])
    return model


def nonlinear_model():
    x = keras.Input([3], dtype="float64")
    hidden = dense(6, "tanh")(x)
    return keras.Model(x, [dense(1)(hidden), dense(2, "sigmoid")(hidden)])


def mixed_model():
    """A dict model: two floating-point inputs, an integer one, and a dict of outputs."""
    left = keras.Input([2, 2], dtype="float64", name="left")
    right = keras.Input([1], dtype="float64", name="right")
    city = keras.Input([1], dtype="int32", name="city")
    embedded = keras.layers.Embedding(5, 3, dtype="float64")(city)
    flat = [keras.layers.Flatten(dtype="float64")(part) for part in (left, right, embedded)]
    hidden = dense(5, "tanh")(keras.layers.Concatenate(dtype="float64")(flat))
    outputs = {"low": dense(1)(hidden), "high": dense(2)(hidden)}
    return keras.Model({"left": left, "right": right, "city": city}, outputs)


def mixed_inputs(n=11):
    random = np.random.default_rng(1)
    return {
        "left": random.normal(size=(n, 2, 2)),
        "right": random.normal(size=(n, 1)),
        "city": random.integers(0, 5, (n, 1)),
    }


def central_differences(function, x, step=1e-5):
    """`[examples, features, outputs]` for `function([examples, features])`."""
    moved = [
        (function(x + step * unit) - function(x - step * unit)) / (2 * step)
        for unit in np.eye(x.shape[1])
    ]
    return np.stack(moved, axis=1)


def assert_statistics(report, d, x, y, tolerance):
    """The report against the definitions, written down a second time."""
    scale = x.std(0)[:, None] / y.std(0)
    values = {"mean": d.mean(0), "mean_abs": np.abs(d).mean(0), "rms": np.sqrt((d**2).mean(0))}
    values |= {f"standardized_{name}": value * scale for name, value in values.items()}
    values |= {"dgsm": (d**2).mean(0), "positive": (d > 0).mean(0)}
    values["elasticity"] = (d * x[:, :, None] / y[:, None]).mean(0)
    values |= {name: np.quantile(d, level, axis=0) for name, level in QUANTILES.items()}
    np.testing.assert_allclose(report.feature_std, x.std(0), rtol=1e-12)
    np.testing.assert_allclose(report.output_std, y.std(0), rtol=1e-9)
    for name, wanted in values.items():
        scale = max(1.0, np.abs(wanted).max())
        got = getattr(report, name)
        np.testing.assert_allclose(got, wanted, atol=tolerance * scale, err_msg=name)


def assert_same(report, other, rtol=1e-12):
    for name in MEASURES:
        for field in ("value", "stderr", "low", "high"):
            got, wanted = (getattr(r.measures[name], field) for r in (report, other))
            np.testing.assert_allclose(got, wanted, rtol=rtol, atol=1e-12, err_msg=name)


def test_report_of_a_linear_model_is_its_coefficients():
    kernel = np.array([[2.0, -1.0], [0.0, 3.0], [-0.25, 1e-3]])
    x = inputs()
    report = sensitivity_report(linear_model(kernel), x, batch_size=7)
    for name, wanted in zip(SIMPLE, (kernel, np.abs(kernel), np.abs(kernel)), strict=True):
        estimate = report.measures[name]
        np.testing.assert_allclose(estimate.value, wanted, atol=1e-10)
        np.testing.assert_allclose(estimate.stderr, 0.0, atol=1e-10)
        np.testing.assert_allclose(estimate.low, wanted, atol=1e-10)
        np.testing.assert_allclose(estimate.high, wanted, atol=1e-10)
    scaled = kernel * x.std(axis=0)[:, None] / (x @ kernel).std(axis=0)
    np.testing.assert_allclose(report.standardized_mean, scaled, atol=1e-10)
    assert report.feature_names == ("x[0]", "x[1]", "x[2]")
    assert report.output_names == ("y[0]", "y[1]")


def test_report_of_a_two_output_model_is_that_of_central_differences():
    model, x = nonlinear_model(), inputs()
    d = central_differences(lambda x: np.concatenate(model(x), axis=1), x)
    report = sensitivity_report(model, x)
    assert report.mean.shape == (3, 3)
    assert_statistics(report, d, x, np.concatenate(model(x), axis=1), tolerance=1e-9)


def test_a_model_with_normalization_is_reported_per_raw_unit():
    x = inputs()
    first = keras.layers.Normalization(dtype="float64")
    first.adapt(x)
    model = keras.Sequential([keras.Input([3], dtype="float64"), first, dense(4, "tanh"), dense(1)])
    d = central_differences(lambda x: model(x).numpy(), x)
    assert_statistics(sensitivity_report(model, x), d, x, model(x).numpy(), tolerance=1e-9)


def test_batches_of_seven_equal_one_batch():
    model, x = nonlinear_model(), inputs()
    whole, parts = (sensitivity_report(model, x, batch_size=size) for size in (50, 7))
    assert_same(parts, whole, rtol=1e-9)
    assert parts.examples == whole.examples == 50


class Stored(keras.utils.PyDataset):
    """A PyDataset of (x, y) in batches of 8."""

    def __init__(self, x, count=-1):
        super().__init__()
        self.x, self.count = x, len(x) // 8 + 1 if count == -1 else count

    @property
    def num_batches(self):
        return self.count

    def __getitem__(self, index):
        x = self.x[8 * index : 8 * index + 8]
        return x, x[:, :1]


X = inputs()
FORMS = {
    "array": X,
    "tensor": tf.constant(X),
    "x_only": (X,),
    "x_y": (X, X[:, :1]),
    "x_y_w": (X, X[:, :1], X[:, 0]),
    "dataset_x": tf.data.Dataset.from_tensor_slices(X).batch(8),
    "dataset_x_y": tf.data.Dataset.from_tensor_slices((X, X[:, :1])).batch(8),
    "dataset_x_y_w": tf.data.Dataset.from_tensor_slices((X, X[:, :1], X[:, 0])).batch(8),
    "py_dataset": Stored(X),
    "float32": X.astype("float32").astype("float64"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_gives_the_same_report(form):
    model = nonlinear_model()
    expected = sensitivity_report(model, X)
    report = sensitivity_report(model, FORMS[form])
    np.testing.assert_allclose(report.rms, expected.rms, rtol=1e-5)
    assert report.examples == 50


@pytest.mark.parametrize("form", ["array", "dataset_x_y", "py_dataset"])
def test_max_examples_draws_them_at_random_alike_from_every_form(form):
    model = nonlinear_model()
    report = sensitivity_report(model, FORMS[form], max_examples=21, batch_size=10)
    assert report.examples == 21
    assert_same(report, sensitivity_report(model, X, max_examples=21), rtol=1e-9)
    other = sensitivity_report(model, FORMS[form], max_examples=21, seed=1)
    assert np.abs(other.rms - report.rms).max() > 1e-6
    assert len({tuple(row) for row in report.sample.features} & {tuple(row) for row in X}) == 21
    assert not np.array_equal(report.sample.features, X[:21])
    assert_same(
        sensitivity_report(model, FORMS[form], max_examples=1000),
        sensitivity_report(model, X),
        rtol=1e-9,
    )


def test_max_examples_of_endless_data_are_the_first_ones():
    model = nonlinear_model()
    report = sensitivity_report(model, ENDLESS, max_examples=21)
    assert_same(report, sensitivity_report(model, X[:21]), rtol=1e-9)


def test_dict_model_has_a_row_for_each_component_and_switches_of_integers():
    model, data = mixed_model(), mixed_inputs()
    report = sensitivity_report(model, {**data, "unused": np.zeros(11)}, batch_size=4)
    names = ("left[0,0]", "left[0,1]", "left[1,0]", "left[1,1]", "right")
    assert report.feature_names[:5] == names
    assert set(report.kinds[5:]) == {"switch"} and report.feature_names[5].startswith("city: ")
    assert report.output_names == ("high[0]", "high[1]", "low")
    assert any("city" in note for note in report.notes)

    def of(flat):
        parts = {"left": flat[:, :4].reshape(-1, 2, 2), "right": flat[:, 4:], "city": data["city"]}
        outputs = model(parts)
        return np.concatenate([outputs["high"], outputs["low"]], axis=1)

    flat = np.concatenate([data["left"].reshape(11, 4), data["right"]], axis=1)
    pick = [0, 1, 2, 3, 4]
    d = central_differences(of, flat)
    np.testing.assert_allclose(report.mean[pick], d.mean(0), atol=1e-9)
    np.testing.assert_allclose(report.rms[pick], np.sqrt((d**2).mean(0)), atol=1e-9)


def test_list_model_takes_its_inputs_by_place_or_by_name():
    a, b = (keras.Input([2], dtype="float64", name=name) for name in ("b", "a"))
    model = keras.Model([a, b], dense(1)(keras.layers.Add(dtype="float64")([a, dense(2)(b)])))
    x, y = inputs(9, 2), inputs(9, 2) + 1
    listed, named = (sensitivity_report(model, data) for data in ([x, y], {"b": x, "a": y}))
    assert listed.feature_names == ("b[0]", "b[1]", "a[0]", "a[1]")
    assert named.feature_names == ("a[0]", "a[1]", "b[0]", "b[1]")
    np.testing.assert_allclose(listed.rms, named.rms[[2, 3, 0, 1]], rtol=1e-12)


def test_integer_columns_for_a_floating_point_input_are_differentiated():
    model = linear_model(np.array([[2.0], [3.0]]))
    report = sensitivity_report(model, np.arange(10).reshape(5, 2))
    np.testing.assert_allclose(report.mean, [[2.0], [3.0]])


def test_a_subclassed_model_is_reported():
    class Squares(keras.Model):
        def call(self, x):
            return tf.reduce_sum(x**2, axis=1, keepdims=True)

    model = Squares(dtype="float64")
    model(X)
    report = sensitivity_report(model, X)
    assert_statistics(report, 2 * X[:, :, None], X, model(X).numpy(), tolerance=1e-12)


@pytest.mark.slow
def test_a_recurrent_model_is_reported():
    layers = [keras.Input([3, 1], dtype="float64"), keras.layers.GRU(2, dtype="float64")]
    model = keras.Sequential(layers)
    d = central_differences(lambda x: model(x[:, :, None]).numpy(), X)
    report = sensitivity_report(model, X[:, :, None])
    assert report.feature_names == ("x[0,0]", "x[1,0]", "x[2,0]")
    assert_statistics(report, d, X, model(X[:, :, None]).numpy(), tolerance=1e-8)


def test_rows_that_are_not_finite_are_left_out_and_counted():
    model, x = nonlinear_model(), inputs()
    x[3, 1], x[20, 0] = np.nan, np.inf
    report = sensitivity_report(model, x, batch_size=8)
    clean = sensitivity_report(model, np.delete(x, [3, 20], axis=0))
    assert (report.examples, report.left_out) == (48, 2)
    assert any(note.startswith("2 of 50 examples were left out") for note in report.notes)
    assert "Cells that were NaN or infinite: x[1] (1), x[0] (1)." in report.notes
    for name in (*SIMPLE, "standardized_rms", "q25"):
        np.testing.assert_allclose(getattr(report, name), getattr(clean, name), rtol=1e-12)


def test_a_derivative_that_is_not_finite_leaves_its_row_out():
    model = keras.Sequential([keras.Input([1], dtype="float64"), keras.layers.Lambda(tf.sqrt)])
    report = sensitivity_report(model, np.array([[0.0], [1.0], [4.0]]))
    assert (report.examples, report.left_out) == (2, 1)
    np.testing.assert_allclose(report.mean, [[0.375]])


def test_a_constant_feature_has_standardized_zero_and_a_note():
    x = inputs()
    x[:, 1] = 0.1
    report = sensitivity_report(nonlinear_model(), x, ["age", "flat", "size"], batch_size=7)
    assert report.feature_std[1] == 0.0
    assert (report.standardized_rms[1] == 0.0).all()
    assert any("Constant" in note and "flat" in note for note in report.notes)
    assert "flat" in str(report)


def test_a_single_example_has_no_standard_errors():
    report = sensitivity_report(nonlinear_model(), X[:1])
    for name in ("mean", "rms", "q50", "positive", "total_index_bound"):
        assert np.isnan(report.measures[name].stderr).all()
        assert np.isnan(report.measures[name].low).all()
    assert np.isfinite(report.rms).all()
    assert any("single example" in note for note in report.notes)
    assert "–" in str(report)


def text_model():
    tokens = keras.Input([4], dtype="int32")
    return keras.Model(tokens, dense(1)(keras.layers.Embedding(5, 3, dtype="float64")(tokens)))


ENDLESS = tf.data.Dataset.from_tensor_slices(X).batch(8).repeat()
RAGGED = tf.data.Dataset.from_tensors(tf.ragged.constant([[1.0], [2.0, 3.0]]))
LENGTHS = tf.data.Dataset.from_generator(
    lambda: iter([np.ones((2, 3, 1)), np.ones((2, 4, 1))]),
    output_signature=tf.TensorSpec([None, None, 1], tf.float64),
)


def series_model():
    pool = keras.layers.GlobalAveragePooling1D(dtype="float64")
    return keras.Sequential([keras.Input([None, 1], dtype="float64"), pool, dense(1)])


BAD = {
    "feature_names": (nonlinear_model, {"feature_names": ["a", "b"]}, "`feature_names` must have"),
    "one_text": (nonlinear_model, {"feature_names": "abc"}, "Received: 1 names, abc"),
    "output_names": (nonlinear_model, {"output_names": list("abcd")}, "`output_names` must have 3"),
    "empty_array": (nonlinear_model, {"data": X[:0]}, "at least one example"),
    "empty_dataset": (nonlinear_model, {"data": ENDLESS.take(0)}, "at least one example"),
    "all_nan": (nonlinear_model, {"data": X * np.nan}, "50 examples, all with NaN"),
    "unbuilt": (lambda: keras.Sequential([dense(1)]), {}, "must be built"),
    "no_model": (lambda: tf.sin, {}, "must be a Keras model"),
    "one_value": (text_model, {"data": np.ones((3, 4), int)}, "at least two values"),
    "twice": (nonlinear_model, {"feature_names": ["a", "a", "b"]}, "must tell all apart"),
    "features": (nonlinear_model, {"features": ["x[0]", "y"]}, "Received: y."),
    "outputs": (nonlinear_model, {"outputs": "z"}, "`outputs` must be names of outputs"),
    "groups": (nonlinear_model, {"groups": {"g": ["q"]}}, "`groups` must be of features"),
    "discrete": (nonlinear_model, {"discrete": ["q"]}, "`discrete` and `one_hot` must name"),
    "one_hot": (nonlinear_model, {"one_hot": {"c": ["x[0]", "x[1]"]}}, "in every example one is 1"),
    "groups_list": (nonlinear_model, {"groups": ["a", "b"]}, "`groups` must be a dict"),
    "marginals_name": (nonlinear_model, {"marginals": {"z": "normal"}}, "`marginals` must be of"),
    "by_array": (nonlinear_model, {"by": np.arange(20)}, "must have a label for each example"),
    "confidence": (nonlinear_model, {"confidence": 1.0}, "between 0 and 1"),
    "marginals": (nonlinear_model, {"marginals": "gamma"}, "`marginals` must be"),
    "by_column": (nonlinear_model, {"by": "z"}, "`by` must be"),
    "by_target": (nonlinear_model, {"by": "target"}, "0 targets"),
    "by_short": (nonlinear_model, {"by": lambda x: x[:1, 0]}, "one label for each example"),
    "endless": (nonlinear_model, {"data": ENDLESS}, "never ends"),
    "endless_py": (nonlinear_model, {"data": Stored(X, None)}, "never ends"),
    "max_examples": (nonlinear_model, {"max_examples": 0}, "`max_examples` must be a whole"),
    "batch_size": (nonlinear_model, {"batch_size": 2.5}, "Received: batch_size=2.5"),
    "four": (nonlinear_model, {"data": (X, X, X, X)}, "a tuple of 4 entries"),
    "generator": (nonlinear_model, {"data": iter([X])}, "`data` must be an array"),
    "lists": (nonlinear_model, {"data": [[1.0, 2.0, 3.0]]}, "`data` must be an array"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_argument_is_named(case):
    build, arguments, message = BAD[case]
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        sensitivity_report(build(), **{"data": X, **arguments})


MISFITS = {
    "unbatched": (nonlinear_model, tf.data.Dataset.from_tensor_slices(X), "must be batched"),
    "scalars": (nonlinear_model, tf.data.Dataset.from_tensor_slices(X[:, 0]), "must be batched"),
    "too_many": (nonlinear_model, [X, X], "one array for each input of the model, 1 in all"),
    "columns": (nonlinear_model, X[:, :2], "the shape of the model's input"),
    "missing": (mixed_model, {"left": X}, "Missing: ['city', 'right']"),
    "lengths": (mixed_model, {**mixed_inputs(), "right": X}, "equally long"),
    "ragged": (nonlinear_model, RAGGED, "must be a dense tensor"),
    "varying": (series_model, LENGTHS, "same features in every example"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_data_that_do_not_fit_are_described(case):
    build, data, message = MISFITS[case]
    with pytest.raises(StructureError, match=re.escape(message)):
        sensitivity_report(build(), data)


def test_a_report_streams_without_growing(monkeypatch):
    """No array that is held between batches grows with their number, once the sample is full."""
    held = []
    update = Accumulator.update

    def watched(self, *arguments):
        update(self, *arguments)
        parts = [v for v in vars(self).values() if isinstance(v, Moments | GroupSums | Reservoir)]
        things = [thing for part in parts for thing in vars(part).values()]
        lists = [
            v
            for t in things
            for v in (t.values() if isinstance(t, dict) else t if isinstance(t, list) else [t])
        ]
        held.append(sum(a.size for a in lists if isinstance(a, np.ndarray)))

    monkeypatch.setattr(Accumulator, "update", watched)
    monkeypatch.setattr("keras_fwd.sensitivity._statistics.accumulator.SAMPLE", 20)
    sensitivity_report(nonlinear_model(), X, batch_size=5)
    assert len(held) == 10 and len(set(held[4:])) == 1


def test_moments_keep_their_digits_beside_a_large_mean():
    values = np.random.default_rng(0).normal(size=(100, 2)) + 1e9
    moments = Moments()
    for part in np.array_split(values, 13):
        moments.update(part)
    np.testing.assert_allclose(moments.variance, values.var(axis=0), rtol=1e-9)
    np.testing.assert_allclose(moments.mean, values.mean(axis=0), rtol=1e-15)


def named_report(features, outputs=("low", "mid", "high")) -> SensitivityReport:
    return sensitivity_report(nonlinear_model(), X, features, outputs)


def test_frame_has_one_row_for_each_feature_and_output():
    report = named_report(["a", "b", "c"])
    frame = report.to_frame()
    assert len(frame) == 9
    assert list(frame.feature[:4]) == ["a", "a", "a", "b"]
    row = frame[(frame.feature == "b") & (frame.output == "high")].iloc[0]
    assert row["mean"] == report.mean[1, 2]
    assert row["rms_stderr"] == report.measures["rms"].stderr[1, 2]
    assert row["standardized_mean_abs_high"] == report.measures["standardized_mean_abs"].high[1, 2]
    assert row["kind"] == "derivative"
    assert row["feature_std"] == report.feature_std[1]


@pytest.mark.parametrize(("module", "call"), [("pandas", "to_frame"), ("jinja2", "to_html")])
def test_a_missing_extra_is_named(monkeypatch, tmp_path, module, call):
    report = named_report(list("abc"))
    monkeypatch.setitem(sys.modules, module, None)
    arguments = [tmp_path / "report.html"] if call == "to_html" else []
    with pytest.raises(ImportError, match=f"pip install {module}"):
        getattr(report, call)(*arguments)


def test_page_is_the_same_every_time_and_replaces_a_file(tmp_path):
    report = named_report(list("abc"))
    path = tmp_path / "report.html"
    path.write_text("old")
    first = report.to_html(path).read_bytes()
    assert report.to_html(str(path)).read_bytes() == first
    assert first != b"old"


@pytest.mark.parametrize("place", ["missing/report.html", "folder"])
def test_a_path_that_cannot_be_written_is_named(tmp_path, place):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match="`path` must be a file that can be written"):
        named_report(list("abc")).to_html(tmp_path / place)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_features_computes_only_those_and_gets_the_same_numbers():
    model = nonlinear_model()
    whole = sensitivity_report(model, X, ["a", "b", "c"])
    part = sensitivity_report(model, X, ["a", "b", "c"], features=["c", "a"])
    assert part.feature_names == ("a", "c")
    for name in MEASURES:
        np.testing.assert_allclose(getattr(part, name), getattr(whole, name)[[0, 2]], rtol=1e-10)


def test_outputs_computes_only_those():
    model = nonlinear_model()
    whole = sensitivity_report(model, X, output_names=["p", "q", "r"])
    part = sensitivity_report(model, X, output_names=["p", "q", "r"], outputs="r")
    assert part.output_names == ("r",)
    np.testing.assert_allclose(part.rms, whole.rms[:, 2:], rtol=1e-10)


@pytest.mark.parametrize(("features", "forward"), [(["x[1]"], True), (None, False)])
def test_the_direction_is_chosen_by_cost(monkeypatch, features, forward):
    from keras_fwd.sensitivity._measuring import flat_model

    used = []
    for name in ("_pushforwards", "_pullbacks"):
        original = getattr(flat_model, name)
        monkeypatch.setattr(
            flat_model, name, lambda *a, n=name, f=original: (used.append(n), f(*a))[1]
        )
    model = keras.Sequential([keras.Input([3], dtype="float64"), dense(4, "tanh"), dense(2)])
    sensitivity_report(model, X, features=features)
    assert used == ["_pushforwards" if forward else "_pullbacks"]


def test_an_analysis_is_traced_once_for_all_lengths_of_batches():
    traces = []

    class Counting(keras.layers.Layer):
        def call(self, x):
            traces.append(1)
            return tf.tanh(x)

    model = keras.Sequential([keras.Input([3], dtype="float64"), Counting(dtype="float64")])
    analysis = Analysis("call", model)
    analysis.report(X)
    before = len(traces)
    for count in (50, 7, 1, 33):
        analysis.report(X[:count])
    assert len(traces) == before


def test_slices_equal_reports_on_their_examples_alone():
    model, y = nonlinear_model(), (X[:, 0] > 1).astype(int)
    report = sensitivity_report(model, (X, y), by="target", batch_size=7)
    assert list(report.slices) == ["target = 0", "target = 1"]
    for label, part in report.slices.items():
        alone = sensitivity_report(model, X[y == int(label[-1])])
        assert part.examples == alone.examples
        for name in (*SIMPLE, "standardized_rms", "dgsm", "total_index_bound", "positive"):
            np.testing.assert_allclose(getattr(part, name), getattr(alone, name), rtol=1e-9)
        stderr = part.measures["rms"].stderr / alone.measures["rms"].stderr
        assert (np.abs(stderr - 1) < 0.3).all()


BY = {
    "column": ("b", ["b ≤ ", " < b ≤ ", " < b ≤ ", "b > "]),
    "function": (lambda x: np.where(x[:, 0] > 0, "up", "down"), ["down", "up"]),
    "function_of_targets": (lambda x, y: y[:, 0] > 0, ["False", "True"]),
    "array": (np.arange(50) % 3, ["0", "1", "2"]),
}


@pytest.mark.parametrize("form", BY)
def test_slices_by(form):
    by, labels = BY[form]
    report = sensitivity_report(nonlinear_model(), (X, X[:, :1]), list("abc"), by=by)
    assert len(report.slices) == len(labels)
    assert all(label in found for label, found in zip(labels, report.slices, strict=True))
    assert sum(part.examples for part in report.slices.values()) == 50


def test_slices_by_array_keep_to_their_examples_in_a_random_part():
    report = sensitivity_report(nonlinear_model(), X, by=X[:, 0] > 1, max_examples=30)
    for label, part in report.slices.items():
        assert ((part.sample.features[:, 0] > 1) == (label == "True")).all()


def test_groups_are_the_norm_of_the_gradient_by_their_features():
    model = nonlinear_model()
    report = sensitivity_report(model, X, list("abc"), groups={"ac": ["a", "c"], "b": ["b"]})
    wanted = np.sqrt((report.standardized_rms[[0, 2]] ** 2).sum(0))
    found = report.groups.measures
    np.testing.assert_allclose(found["standardized_rms"].value[0], wanted, rtol=1e-10)
    np.testing.assert_allclose(
        found["standardized_rms"].low[1], report.measures["standardized_rms"].low[1], rtol=1e-9
    )
    np.testing.assert_allclose(
        found["total_index_bound"].value[0], report.total_index_bound[[0, 2]].sum(0), rtol=1e-10
    )


def exact_lambda(function):
    return keras.layers.Lambda(function, dtype="float64")


def product_model():
    """y = x₀ x₁ + 0.1 x₂ x₃² and its double."""

    def call(x):
        y = x[:, 0] * x[:, 1] + 0.1 * x[:, 2] * x[:, 3] ** 2
        return tf.stack([y, 2 * y], axis=1)

    return keras.Sequential([keras.Input([5], dtype="float64"), exact_lambda(call)])


def wide_product_model(width=60):
    """Only two of many features act together."""

    def call(x):
        return (x[:, 7] * x[:, 41])[:, None] + tf.reduce_sum(x**2, axis=1, keepdims=True)

    return keras.Sequential([keras.Input([width], dtype="float64"), exact_lambda(call)])


def test_interactions_are_the_second_derivatives():
    x = inputs(40, 5)
    report = sensitivity_report(product_model(), x, list("abcde"), interactions=3, batch_size=16)
    pairs = report.interactions
    names = [{report.feature_names[i] for i in pair} for pair in pairs.pairs]
    assert names[:2] == [{"a", "b"}, {"c", "d"}]
    rms = np.sqrt(np.mean((0.2 * x[:, 3]) ** 2))
    wanted = np.array([[1.0, 2.0], [rms, 2 * rms], [0.0, 0.0]])
    np.testing.assert_allclose(pairs.measures["rms"].value, wanted, atol=1e-12)
    y = product_model()(x).numpy().std(0)
    scaled = wanted[1] * x[:, 2].std() * x[:, 3].std() / y
    np.testing.assert_allclose(pairs.measures["standardized_rms"].value[1], scaled, rtol=1e-10)
    assert (pairs.measures["rms"].low[1] < wanted[1]).all()
    assert (wanted[1] < pairs.measures["rms"].high[1]).all()


def test_interactions_of_many_features_are_found_by_screening():
    report = sensitivity_report(wide_product_model(), inputs(30, 60), interactions=2)
    assert set(report.interactions.pairs[0]) == {7, 41}
    np.testing.assert_allclose(
        report.interactions.measures["rms"].value[:, 0], [1.0, 0.0], atol=1e-12
    )


def test_interactions_of_a_piecewise_linear_model_are_said_to_be_zero():
    model = keras.Sequential([keras.Input([3], dtype="float64"), dense(5, "relu"), dense(1)])
    report = sensitivity_report(model, X, interactions=1)
    assert any(note.startswith("All interactions are 0") for note in report.notes)


def test_columns_that_look_like_codes_are_noted():
    x = inputs()
    x[:, 1] = np.arange(50) % 3
    report = sensitivity_report(nonlinear_model(), x, list("abc"))
    assert any("taken as continuous: b." in note for note in report.notes)
    report = sensitivity_report(nonlinear_model(), x, list("abc"), discrete="b")
    assert not any("taken as continuous" in note for note in report.notes)


@pytest.mark.slow
def test_an_interrupted_report_is_that_of_what_was_done(capsys):
    class Stopping(Stored):
        def __getitem__(self, index):
            if index == 3:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    report = sensitivity_report(nonlinear_model(), Stopping(X), batch_size=8)
    assert report.interrupted and report.examples == 24
    assert report.notes[0].startswith("Interrupted: only the first 24 examples")

    class AtOnce(Stored):
        def __getitem__(self, index):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sensitivity_report(nonlinear_model(), AtOnce(X))


def test_an_error_in_the_background_is_raised_by_the_next_call_or_at_the_end():
    def fail():
        raise ValueError("in the background")

    done = []
    with pytest.raises(ValueError, match="in the background"), Background() as background:
        background(done.append, 1)
        background(fail)
        background(done.append, 2)
    assert done == [1]
    with pytest.raises(ValueError, match="in the background"), Background() as background:
        background(fail)


def test_a_frame_names_its_columns_and_need_not_be_cut_to_numbers():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["age", "size", "weight"])
    model = nonlinear_model()
    report = sensitivity_report(model, (frame, frame["age"]), by="size")
    assert report.feature_names == ("age", "size", "weight")
    np.testing.assert_allclose(report.rms, sensitivity_report(model, X).rms, rtol=1e-12)
    with pytest.raises(ConfigurationError, match="4 columns"):
        sensitivity_report(model, frame.assign(target=1.0))
    with pytest.raises(ConfigurationError, match="others, \\['size'\\]"):
        sensitivity_report(model, frame.assign(size="much"))


def test_a_progress_bar_goes_to_the_error_stream_and_away(capsys):
    sensitivity_report(nonlinear_model(), X, progress=True)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_json_and_back_is_the_same_report(tmp_path):
    report = sensitivity_report(nonlinear_model(), X, interactions=1, by=lambda x: x[:, 0] > 0)
    path = tmp_path / "report.json"
    report.to_json(path)
    again = SensitivityReport.from_json(path)
    assert_same(again, report, rtol=0)
    assert (
        again.to_dict()
        == report.to_dict()
        == SensitivityReport.from_json(report.to_json()).to_dict()
    )


def test_comparing_with_itself_finds_nothing_and_a_retrained_model_is_paired():
    def of(model, x=X):
        return sensitivity_report(model, x, output_names=["p", "q", "r"])

    model = nonlinear_model()
    before, after = of(model), of(nonlinear_model())
    assert not any(change.significant.any() for change in before.compare(before).changes.values())
    assert before.resampling_key == after.resampling_key != of(model, X + 1).resampling_key
    assert before.compare(after).paired
    assert not SensitivityReport.from_json(before.to_json()).compare(after).paired


@pytest.mark.slow
def test_many_features_are_reported_in_bounded_memory():
    width = 100_000
    model = keras.Sequential([keras.Input([width]), keras.layers.Dense(1, use_bias=False)])
    x = np.random.default_rng(0).normal(size=(6, width)).astype("float32")
    tracemalloc.start()  # of NumPy's arrays
    try:
        report = sensitivity_report(model, x)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3e9
    np.testing.assert_allclose(report.mean, model.layers[0].kernel.numpy(), rtol=1e-6)
    assert any("resampled in 20 groups" in note or "groups" in note for note in report.notes)
    assert len(str(report).splitlines()) < 80
