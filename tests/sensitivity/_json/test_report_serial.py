"""Sensitivity reports as JSON: exact both ways, strict, and no text brings a traceback."""

import copy
import dataclasses
import json

import numpy as np
import pytest
from support.report_cases import made_up_report

from keras_fwd import ConfigurationError
from keras_fwd.sensitivity._json import serial
from keras_fwd.sensitivity._page.page_data import page_data
from keras_fwd.sensitivity.report import SensitivityReport


@pytest.fixture
def report():
    kinds = ("switch", *["derivative"] * 4)
    report = made_up_report(
        5, 2, sample=4, slices=["a", "b: <1>"], inputs=[(2, 2), ()], evolution=3, kinds=kinds
    )
    report.measures["elasticity"].value[1, 0] = np.nan
    report.sample.features[0, 2] = np.nan
    report.feature_mean[0] = 0.1 + 0.2
    return report


def from_json(text):
    return serial.from_json(SensitivityReport, text)


def assert_same(one, other, path="report"):
    """Equal to the last bit, types included; NaN equals NaN."""
    assert type(one) is type(other), path
    if dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            same = getattr(one, field.name), getattr(other, field.name)
            assert_same(*same, f"{path}.{field.name}")
    elif isinstance(one, np.ndarray):
        assert one.shape == other.shape and one.dtype == other.dtype, path
        np.testing.assert_array_equal(one, other, err_msg=path)
    elif isinstance(one, dict):
        assert list(one) == list(other), path
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, tuple):
        assert len(one) == len(other), path
        for k, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{path}[{k}]")
    else:
        assert one == other, path


def test_json_brings_back_every_bit(report):
    assert_same(from_json(serial.to_json(report)), report)


@pytest.mark.parametrize(
    "fields",
    [
        {"groups": None},
        {"interactions": None},
        {"evolution": None},
        {"about": {}},
        {"notes": ()},
        {"interrupted": True},
        {"inputs": ()},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_json_brings_back_reports_without_a_part(report, fields):
    bare = dataclasses.replace(report, **fields)
    assert_same(from_json(serial.to_json(bare)), bare)


def test_json_brings_back_an_empty_sample():
    report = made_up_report(2, 1, sample=0)
    assert_same(from_json(serial.to_json(report)), report)


def test_json_is_strict_and_infinities_come_back_as_nan(report):
    report.measures["mean"].high[0, 0] = np.inf
    report.measures["mean"].low[0, 0] = -np.inf
    text = serial.to_json(report)
    data = json.loads(text, parse_constant=pytest.fail)
    assert text.isascii() and data["measures"]["mean"]["high"][0][0] is None
    again = from_json(text)
    assert np.isnan(again.measures["mean"].high[0, 0])
    assert np.isnan(again.measures["mean"].low[0, 0])


def test_names_of_any_characters_come_back():
    names = ('"', "<script>", "ключ\n\u2028")
    report = made_up_report(3, 1, feature_names=names)
    assert from_json(serial.to_json(report)).feature_names == names


def test_float32_arrays_and_numpy_integers_can_be_written(report):
    mixed = dataclasses.replace(
        report, feature_mean=np.float32([0.1] * 5), examples=np.int64(7), left_out=np.int32(0)
    )
    again = from_json(serial.to_json(mixed))
    assert again.examples == 7
    np.testing.assert_array_equal(again.feature_mean, np.float32(0.1))


def test_measures_of_a_later_minor_version_are_kept(report):
    data = serial.to_dict(report)
    data["measures"]["median"] = data["measures"]["mean"]
    again = serial.from_dict(SensitivityReport, data)
    np.testing.assert_array_equal(again.measures["median"].value, report.measures["mean"].value)


# What a text that is no report says ------------------------------------------------------------

TEXTS = [
    ("", "must be JSON, whole"),
    ("not JSON", "must be JSON, whole"),
    ('{"format": "keras_fwd.sens', "must be JSON, whole"),
    ("[" * 100_000, "nested too deeply"),
    ("9" * 10_000, "must be JSON"),
    (b"\xff\xfe{", "must be JSON"),
    (None, "must be JSON"),
    ("NaN", "NaN is no JSON"),
    ("[]", "`report` must be a dict"),
    ("{}", "`format` must be there. Received: no such field"),
    ('{"format": "other"}', '`format` must be "keras_fwd.sensitivity_report"'),
    ('{"format": "keras_fwd.sensitivity_report"}', "`version` must be there"),
    ('{"format": "keras_fwd.sensitivity_report", "version": 2}', "upgrade"),
    ('{"format": "keras_fwd.sensitivity_report", "version": true}', "`version` must be a whole"),
]


@pytest.mark.parametrize("text, message", TEXTS, ids=[m for _, m in TEXTS])
def test_text_that_is_no_report_says_why(text, message):
    with pytest.raises(ConfigurationError, match="from_json: ") as caught:
        from_json(text)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


FIELDS = [
    (("features",), [], "`features` must be a list of at least 1"),
    (("features", 1), 7, "`features[1]` must be a text. Received: 7"),
    (("features", 0), "\ud800", "`features[0]` must be a text without halves"),
    (("kinds",), ["switch"], "`kinds` must be a list of length 5. Received: length 1"),
    (("kinds", 0), "magic", '`kinds[0]` must be "derivative" or "switch"'),
    (("feature_mean", 4), "1.5", "`feature_mean[4]` must be a number or null. Received: '1.5'"),
    (("feature_mean", 4), True, "`feature_mean[4]` must be a number or null"),
    (("feature_mean", 4), 10**400, "`feature_mean` must be numbers that a float64 can hold"),
    (("feature_mean", 4), float("inf"), "`feature_mean` must be numbers that a float64 can"),
    (("interrupted",), 0, "`interrupted` must be true or false. Received: 0"),
    (("examples",), -1, "`examples` must be a whole number of at least 0. Received: -1"),
    (("confidence",), 95, "`confidence` must be a number above 0 and below 1. Received: 95"),
    (("measures", "mean", "low", 3), [1.0], "`measures.mean.low[3]` must be a list of length 2"),
    (("measures", "mean", "low", 3, 1), "x", "`measures.mean.low[3][1]` must be a number"),
    (("groups", "members", 0, 0), 5, "`groups.members[0][0]` must be a whole number of at least"),
    (("interactions", "pairs", 2), [0], "`interactions.pairs[2]` must be a list of length 2"),
    (("inputs", 0, "shape"), [6], "`inputs[0]` must be an input whose components are among the 5"),
    (("slices", "a", "slices"), {"b": {}}, "`slices.a.slices` must be {} in a slice"),
    (("slices", "a", "pooled"), {}, "`slices.a.pooled.positive` must be there"),
    (("evolution", "epochs"), [0], "`evolution.examples` must be a list of length 1"),
    (("about", "model"), None, "`about.model` must be a text. Received: None"),
]


@pytest.mark.parametrize("path, value, message", FIELDS, ids=[m for *_, m in FIELDS])
def test_misshapen_field_is_named(report, path, value, message):
    data = serial.to_dict(report)
    replace(data, path, value)
    with pytest.raises(ConfigurationError) as caught:
        serial.from_dict(SensitivityReport, data)
    assert f"SensitivityReport.from_json: {message}" in str(caught.value)


def replace(data, path, value):
    for key in path[:-1]:
        data = data[key]
    data[path[-1]] = value


def places(data, path=()):
    """The path of every value; below lists and measures only the first and last one's."""
    if path:
        yield path
    keys = list(data) if isinstance(data, dict) else []
    keys = range(len(data)) if isinstance(data, list) else keys
    for k, key in enumerate(keys):
        within = path[-1:] in (("measures",), ("pooled",)) and 0 < k < len(keys) - 1
        if within or (len(path) == 2 and path[0] == "slices"):
            yield (*path, key)
        elif isinstance(data, dict) or k in (0, len(data) - 1):
            yield from places(data[key], (*path, key))


WRONG = [None, True, -1, 2**70, 0.5, 10**400, "x", "", [], [[]], [None], {}, {"x": {}}]


@pytest.mark.slow
def test_no_change_of_any_field_brings_another_error():
    """Every field dropped, and replaced by values of every type: read, or refused by name."""
    report = made_up_report(
        2, 2, sample=2, slices=["a"], inputs=[(2,)], evolution=2, seed=1, notes=("a note",)
    )
    data = serial.to_dict(report)
    refused = read = 0
    for path in list(places(data)):
        for change in ["drop", *WRONG]:
            changed = changeable(data, path)
            if change == "drop":
                parent = changed
                for key in path[:-1]:
                    parent = parent[key]
                del parent[path[-1]]
            else:
                replace(changed, path, change)
            try:
                serial.from_dict(SensitivityReport, changed)
                read += 1
            except ConfigurationError as error:
                assert "must be" in str(error) and len(str(error)) < 500, (path, change)
                refused += 1
    assert refused > 5 * read > 0, (refused, read)


def changeable(data, path):
    """A copy in which all along `path` is new: what a change there needs."""
    if not path:
        return data
    copied = copy.copy(data)
    copied[path[0]] = changeable(data[path[0]], path[1:])
    return copied


def test_dropped_field_is_refused_by_name(report):
    data = serial.to_dict(report)
    for name in data:
        rest = {key: value for key, value in data.items() if key != name}
        with pytest.raises(ConfigurationError, match=f"`{name}` must be"):
            serial.from_dict(SensitivityReport, rest)


@pytest.mark.parametrize("share", np.linspace(0.0, 0.999, 23))
def test_cut_text_is_refused(report, share):
    text = serial.to_json(report)
    with pytest.raises(ConfigurationError, match="must be JSON, whole"):
        from_json(text[: int(share * len(text))])


# Files -----------------------------------------------------------------------------------------


def test_file_is_read_with_or_without_byte_order_mark(report, tmp_path):
    for encoding in ("utf-8", "utf-8-sig"):
        path = tmp_path / f"{encoding}.json"
        path.write_text(serial.to_json(report), encoding=encoding)
        assert_same(serial.read(SensitivityReport, path), report)
        assert_same(serial.read(SensitivityReport, str(path)), report)


@pytest.mark.parametrize("name, reason", [("missing.json", "No such file"), (".", "directory")])
def test_path_that_cannot_be_read_says_why_in_one_line(tmp_path, name, reason):
    with pytest.raises(ConfigurationError) as caught:
        serial.read(SensitivityReport, tmp_path / name)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_path_that_holds_no_text_says_so(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\x89PNG\xff")
    for path in (tmp_path / "a.json", "null\0byte"):
        with pytest.raises(ConfigurationError, match="`path` must be a file"):
            serial.read(SensitivityReport, path)


def test_text_and_path_are_told_apart(report, tmp_path):
    text = serial.to_json(report)
    (tmp_path / "a.json").write_text(text)
    for given in (text, f" \n{text}", tmp_path / "a.json", str(tmp_path / "a.json")):
        assert_same(serial.load(SensitivityReport, given), report)
    for given, message in [
        (text[:300], "must be JSON, whole"),
        (text[1:], "`path` must be a file that SensitivityReport.to_json wrote, or its text"),
        ("", "`path` must be a file"),
        (7, "`text_or_path` must be the text of SensitivityReport.to_json or the path"),
    ]:
        with pytest.raises(ConfigurationError, match=message) as caught:
            serial.load(SensitivityReport, given)
        assert len(str(caught.value)) < 400


def test_broken_file_is_named_with_the_field(report, tmp_path):
    data = serial.to_dict(report)
    del data["measures"]["rms"]
    (tmp_path / "a.json").write_text(json.dumps(data))
    with pytest.raises(ConfigurationError, match=r"a\.json: `measures\.rms` must be there"):
        serial.read(SensitivityReport, tmp_path / "a.json")


def test_measurements_within_epochs_keep_their_places():
    """Where a callback measured every few batches; in JSON, and rounded on the page."""
    report = made_up_report(3, 1, evolution=4)
    epochs = np.array([0.0, 1 / 3, 2 / 3, 1.0])
    report = dataclasses.replace(
        report, evolution=dataclasses.replace(report.evolution, epochs=epochs)
    )
    again = SensitivityReport.from_json(report.to_json())
    np.testing.assert_array_equal(again.evolution.epochs, epochs)
    assert page_data(again)["evolution"]["epochs"] == [0, 0.333, 0.667, 1]
