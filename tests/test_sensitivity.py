"""Sensitivity reports: against coefficients, central differences and plain NumPy statistics."""

import html.parser
import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_fwd.errors import ConfigurationError, StructureError
from keras_fwd.sensitivity import SensitivityReport, presentation, sensitivity_report
from keras_fwd.sensitivity.measures import Accumulator, Moments

MEASURES = ("mean", "mean_abs", "rms")
EVERY = [*MEASURES, *(f"{name}_stderr" for name in MEASURES)]


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


def assert_statistics(report, d, x, tolerance):
    """The report against the definitions, written down a second time."""
    n = len(d)
    expected = {
        "mean": d.mean(0),
        "mean_abs": np.abs(d).mean(0),
        "rms": np.sqrt((d**2).mean(0)),
        "mean_stderr": d.std(0, ddof=1) / np.sqrt(n),
        "mean_abs_stderr": np.abs(d).std(0, ddof=1) / np.sqrt(n),
        "rms_stderr": (d**2).std(0, ddof=1) / np.sqrt(n) / (2 * np.sqrt((d**2).mean(0))),
    }
    np.testing.assert_allclose(report.feature_std, x.std(0), rtol=1e-12)
    for name, wanted in expected.items():
        got, scaled = getattr(report, name), getattr(report.standardized, name)
        np.testing.assert_allclose(got, wanted, atol=tolerance, err_msg=name)
        np.testing.assert_allclose(scaled, wanted * x.std(0)[:, None], atol=10 * tolerance)


def test_report_of_a_linear_model_is_its_coefficients():
    kernel = np.array([[2.0, -1.0], [0.0, 3.0], [-0.25, 1e-3]])
    x = inputs()
    report = sensitivity_report(linear_model(kernel), x, batch_size=7)
    for name, wanted in zip(MEASURES, (kernel, np.abs(kernel), np.abs(kernel)), strict=True):
        np.testing.assert_allclose(getattr(report, name), wanted, atol=1e-10)
        np.testing.assert_allclose(getattr(report, f"{name}_stderr"), 0.0, atol=1e-10)
    scaled = kernel * x.std(axis=0)[:, None]
    np.testing.assert_allclose(report.standardized.mean, scaled, atol=1e-10)
    assert report.feature_names == ("x[0]", "x[1]", "x[2]")
    assert report.output_names == ("y[0]", "y[1]")


def test_report_of_a_two_output_model_is_that_of_central_differences():
    model, x = nonlinear_model(), inputs()
    d = central_differences(lambda x: np.concatenate(model(x), axis=1), x)
    report = sensitivity_report(model, x)
    assert report.mean.shape == (3, 3)
    assert_statistics(report, d, x, tolerance=1e-9)


def test_a_model_with_normalization_is_reported_per_raw_unit():
    x = inputs()
    first = keras.layers.Normalization(dtype="float64")
    first.adapt(x)
    model = keras.Sequential([keras.Input([3], dtype="float64"), first, dense(4, "tanh"), dense(1)])
    d = central_differences(lambda x: model(x).numpy(), x)
    assert_statistics(sensitivity_report(model, x), d, x, tolerance=1e-9)


def test_batches_of_seven_equal_one_batch():
    model, x = nonlinear_model(), inputs()
    whole, parts = (sensitivity_report(model, x, batch_size=size) for size in (50, 7))
    for name in EVERY:
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12)
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
def test_max_examples_takes_the_first_ones(form):
    model = nonlinear_model()
    expected = sensitivity_report(model, X[:21])
    report = sensitivity_report(model, FORMS[form], max_examples=21, batch_size=10)
    assert report.examples == 21
    np.testing.assert_allclose(report.rms, expected.rms, rtol=1e-12)


def test_dict_model_has_a_row_for_each_component_and_a_note_on_integers():
    model, data = mixed_model(), mixed_inputs()
    report = sensitivity_report(model, {**data, "unused": np.zeros(11)}, batch_size=4)
    names = ("left[0,0]", "left[0,1]", "left[1,0]", "left[1,1]", "right")
    assert report.feature_names == names
    assert report.output_names == ("high[0]", "high[1]", "low")
    assert any("city" in note for note in report.notes)

    def of(flat):
        parts = {"left": flat[:, :4].reshape(-1, 2, 2), "right": flat[:, 4:], "city": data["city"]}
        outputs = model(parts)
        return np.concatenate([outputs["high"], outputs["low"]], axis=1)

    flat = np.concatenate([data["left"].reshape(11, 4), data["right"]], axis=1)
    assert_statistics(report, central_differences(of, flat), flat, tolerance=1e-9)


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
    assert_statistics(report, 2 * X[:, :, None], X, tolerance=1e-12)


def test_a_recurrent_model_is_reported():
    layers = [keras.Input([3, 1], dtype="float64"), keras.layers.GRU(2, dtype="float64")]
    model = keras.Sequential(layers)
    d = central_differences(lambda x: model(x[:, :, None]).numpy(), X)
    report = sensitivity_report(model, X[:, :, None])
    assert report.feature_names == ("x[0,0]", "x[1,0]", "x[2,0]")
    assert_statistics(report, d, X, tolerance=1e-8)


def test_rows_that_are_not_finite_are_left_out_and_counted():
    model, x = nonlinear_model(), inputs()
    x[3, 1], x[20, 0] = np.nan, np.inf
    report = sensitivity_report(model, x, batch_size=8)
    clean = sensitivity_report(model, np.delete(x, [3, 20], axis=0))
    assert (report.examples, report.left_out) == (48, 2)
    assert any(note.startswith("2 of 50 examples were left out") for note in report.notes)
    for name in EVERY:
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
    assert (report.standardized.rms[1] == 0.0).all()
    assert any("Constant" in note and "flat" in note for note in report.notes)
    assert "flat" in str(report)


def test_a_single_example_has_no_standard_errors():
    report = sensitivity_report(nonlinear_model(), X[:1])
    assert np.isnan(report.mean_stderr).all() and np.isnan(report.rms_stderr).all()
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
    "integers_only": (text_model, {"data": np.ones((3, 4), int)}, "floating-point input"),
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


def test_a_wide_model_streams_without_growing(monkeypatch):
    """No array that is held between batches grows with their number."""
    held = []
    update = Accumulator.update

    def watched(self, *arguments):
        update(self, *arguments)
        moments = [value for value in vars(self).values() if isinstance(value, Moments)]
        arrays = [a for m in moments for a in vars(m).values() if isinstance(a, np.ndarray)]
        held.append(sum(a.size for a in arrays))

    monkeypatch.setattr(Accumulator, "update", watched)
    sensitivity_report(nonlinear_model(), X, batch_size=5)
    assert len(held) == 10 and len(set(held)) == 1


def test_moments_keep_their_digits_beside_a_large_mean():
    values = np.random.default_rng(0).normal(size=(100, 2)) + 1e9
    moments = Moments()
    for part in np.array_split(values, 13):
        moments.update(part)
    np.testing.assert_allclose(moments.variance, values.var(axis=0), rtol=1e-9)
    np.testing.assert_allclose(moments.mean, values.mean(axis=0), rtol=1e-15)


def named_report(features, outputs=("low", "mid", "high")) -> SensitivityReport:
    return sensitivity_report(nonlinear_model(), X, features, outputs)


def test_print_sorts_by_standardized_rms_within_80_columns():
    kernel = np.array([[1.0], [5.0], [-3.0]])
    report = sensitivity_report(linear_model(kernel), X, ["weak", "strong", "middle"], ["price"])
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= 80
    order = [
        line.split()[0]
        for line in lines
        if line.split()[:1] and line.split()[0] in ("weak", "strong", "middle")
    ]
    assert order == ["strong", "middle", "weak"]
    assert "1 output to 3 features, 50 examples" in lines[0]
    assert "-3.00" in str(report) and "per unit of the" in str(report)
    assert repr(report) == "<SensitivityReport: Sensitivity of 1 output to 3 features, 50 examples>"


def test_print_of_long_names_and_many_features_stays_readable():
    report = named_report(["a" * 200, "[bold]b[/bold]", "c"])
    assert max(map(len, str(report).splitlines())) <= 80
    assert "[bold]b[/bold]" in str(report)
    wide = sensitivity_report(linear_model(np.ones((100, 1))), np.ones((4, 100)))
    assert "… and 60 features more" in str(wide)
    assert len(str(wide).splitlines()) < 60


def test_frame_has_one_row_for_each_feature_and_output():
    report = named_report(["a", "b", "c"])
    frame = report.to_frame()
    assert len(frame) == 9
    assert list(frame.feature[:4]) == ["a", "a", "a", "b"]
    row = frame[(frame.feature == "b") & (frame.output == "high")].iloc[0]
    assert row["mean"] == report.mean[1, 2]
    assert row["rms_stderr"] == report.rms_stderr[1, 2]
    assert row["standardized_mean_abs"] == report.standardized.mean_abs[1, 2]
    assert row["feature_std"] == report.feature_std[1]


@pytest.mark.parametrize(("module", "call"), [("pandas", "to_frame"), ("jinja2", "to_html")])
def test_a_missing_extra_is_named(monkeypatch, tmp_path, module, call):
    report = named_report(list("abc"))
    monkeypatch.setitem(sys.modules, module, None)
    arguments = [tmp_path / "report.html"] if call == "to_html" else []
    with pytest.raises(ImportError, match=re.escape("pip install 'keras-fwd[report]'")):
        getattr(report, call)(*arguments)


class Page(html.parser.HTMLParser):
    """The text of a page, its tags, and every attribute that may load something."""

    def __init__(self, source):
        super().__init__()
        self.text, self.tags, self.loads, self.open = [], set(), [], []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.loads += [value for key, value in attrs if key in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_page_is_self_contained_and_escapes_names(tmp_path):
    evil = ['<script>alert("x")</script>', "quo\"te' & co", "</style><b>"]
    report = named_report(evil, ["<img src=x>", "mid", "high"])
    path = report.to_html(tmp_path / "report.html", title="A <i>title</i>")
    source = path.read_text(encoding="utf-8")
    page = Page(source)
    text = "".join(page.text)
    for name in [*evil, "<img src=x>", "A <i>title</i>"]:
        assert name in text
    assert not page.tags & {"script", "img", "link", "iframe", "object"}
    assert not page.open and not page.loads
    assert not re.search(r"https?://|@import|url\(", source)
    assert list(tmp_path.iterdir()) == [path]


def test_page_holds_every_number_and_the_counts(tmp_path):
    x = inputs()
    x[0, 0] = np.nan
    report = sensitivity_report(nonlinear_model(), x, list("abc"), ["low", "mid", "high"])
    text = "".join(Page(report.to_html(tmp_path / "r.html").read_text(encoding="utf-8")).text)
    assert "49 examples used, 1 left out" in text
    for values, errors in ((report.rms, report.rms_stderr), (report.mean, report.mean_stderr)):
        for pair in zip(values.ravel(), errors.ravel(), strict=True):
            value, error = (part.replace("-", "−") for part in presentation.plus_minus(*pair))
            assert f"{value} ± {error}" in text


def test_page_draws_the_strongest_features_of_each_output(tmp_path):
    kernel = np.diag([1.0, 2.0, 3.0]) + 0.1
    report = sensitivity_report(linear_model(kernel), X, list("abc"), ["p", "q", "r"])
    source = report.to_html(tmp_path / "r.html").read_text(encoding="utf-8")
    drawn = re.findall(r'<span class="name">(.)</span>', source)
    assert [drawn[0], drawn[3], drawn[6]] == ["a", "b", "c"]
    assert len(drawn) == 9


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


def test_page_of_a_single_example_and_of_no_effect_is_written(tmp_path):
    report = sensitivity_report(linear_model(np.zeros((3, 1))), X[:1])
    text = "".join(Page(report.to_html(tmp_path / "r.html").read_text(encoding="utf-8")).text)
    assert "no effect" in text and "1 example used" in text
