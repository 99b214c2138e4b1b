"""What `keras-fwd` reads from tables and arrays, and the one line about what it cannot read."""

import io
import zipfile

import numpy as np
import pandas
import pytest

from keras_fwd_cli.data import arrays, csv_table
from keras_fwd_cli.data.cells import BadCell, convert
from keras_fwd_cli.data.columns import Choice
from keras_fwd_cli.data.inputs import FLOAT, INTEGER, TEXT, Input
from keras_fwd_cli.data.reading import read_data
from keras_fwd_cli.failures import UsageError

THREE = [Input("input_layer", (3,), FLOAT, "float32")]
MIXED = [
    Input("age", (1,), FLOAT, "float32"),
    Input("kind", (), INTEGER, "int32"),
    Input("pos", (2,), FLOAT, "float64"),
    Input("city", (1,), TEXT, "object"),
]
MIXED_TABLE = {
    "city": ["x", "y"],
    "pos[1]": [2.0, 4.0],
    "pos[0]": [1.0, 3.0],
    "kind": [1, 0],
    "age": [30.5, np.nan],
    "id": [7, 8],
}


def saved(folder, data, name="data.csv"):
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def read(folder, text, inputs=THREE, name="data.csv", **choice):
    return read_data(saved(folder, text, name), inputs, Choice(**choice))


def said(folder, text, inputs=THREE, name="data.csv", **choice):
    """What is said about a file that cannot be read, without its folder."""
    with pytest.raises(UsageError) as caught:
        read(folder, text, inputs, name, **choice)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{folder}/", "")


# Tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "a,b,c,y\n1,2,3,0\n4,5,6,0\n",
        "a;b;c;y\n1;2;3;0\n4;5;6;0",
        "a\tb\tc\ty\n1\t2\t3\t0\n\n4\t5\t6\t0\n\n",
        "\ufeffa,b,c,y\r\n1,2,3,0\r\n4,5,6,0\r\n",
        '"a",b,"c",y\n"1"," 2 ",3,0\n4,+5,6.0e0,\n',
        "y,a,b,c\n0,1,2,3\n0,4,5,6\n",
    ],
)
def test_a_table_is_read_whatever_its_separators_and_quotes(tmp_path, text):
    data = read(tmp_path, text, target="y")
    (array,) = data.arrays.values()
    assert array.dtype == np.float32 and data.features == ("a", "b", "c") and not data.notes
    np.testing.assert_array_equal(array, [[1, 2, 3], [4, 5, 6]])


def test_missing_and_infinite_cells_are_read_as_such(tmp_path):
    (array,) = read(tmp_path, "a,b,c\n,NA,nan\n-inf,1e999,1e300\n n/a ,2,Null\n").arrays.values()
    expected = [[np.nan] * 3, [-np.inf, np.inf, np.inf], [np.nan, 2, np.nan]]
    np.testing.assert_array_equal(array, np.float32(expected))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,c\n1,2,3\n1,twelve,3\n", 'row 2 (line 3), column "b": "twelve" is no number.'),
        ('a,b,c\n"1\n",2,3\n1,x,y\n', 'row 2 (line 4), column "b": "x" is no number.'),
        ("a,b,c\n1,2,x\ny,2,3\n", 'row 1 (line 2), column "c": "x" is no number.'),
        ("a,b,c\n1,1_000,3\n", 'row 1 (line 2), column "b": "1_000" is no number.'),
        ("a;b;c\n1,5;2;3\n", 'column "a": "1,5" is no number: write a decimal point, not a comma.'),
        ("a,b,c\n1,2,3\n1,2\n", "row 2 (line 3): 2 cells, and line 1 names 3 columns."),
        ("a,b,c\n\n1,2,3,4\n", "row 1 (line 3): 4 cells, and line 1 names 3 columns."),
        ("a,b,c\n1,x,3\n1\n", 'row 1 (line 2), column "b": "x" is no number.'),
        ("a,b,c\n", "holds no examples."),
        ("", "is empty, or its first line names no column."),
        ("\n\n", "is empty, or its first line names no column."),
        ("a,b,a\n1,2,3\n", "two columns are named 'a': 1 and 3."),
        ("5.1,3.5,1.4\n4.9,3.0,1.4\n", "line 1 must name the columns. Received numbers: 5.1, 3.5"),
        ('a,b,c\n1,2,"3\n4,5,6\n', "line 2: unexpected end of data."),
        (b"a,b,c\n1,2,\xe9\n", "no UTF-8 text (byte 0xe9)."),
        ("a,b,c\n1,2,3\n".encode("utf-16"), "is UTF-16; save it as CSV UTF-8."),
        (b"PK\x03\x04\xff\xff", "is a zip archive or a spreadsheet; save it as CSV UTF-8."),
        ("a,b,c\n1,2,\x00\x1b[31m\n", 'column "c": "��[31m" is no number.'),
    ],
)
def test_what_is_wrong_with_a_table_has_its_place(tmp_path, text, message):
    assert message in said(tmp_path, text)


def test_of_bad_cells_the_uppermost_is_named(tmp_path):
    frame = pandas.DataFrame(MIXED_TABLE).astype(object)
    frame.loc[1, "age"] = frame.loc[0, "pos[1]"] = "bad"
    assert 'row 1 (line 2), column "pos[1]": "bad"' in said(tmp_path, frame.to_csv(), MIXED)


def test_places_are_right_where_a_file_is_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_table, "CELLS_AT_ONCE", 6)
    good = "a,b,c\n" + "1,2,3\n" * 5
    assert len(read(tmp_path, good).arrays["input_layer"]) == 5
    assert "row 6 (line 7), column" in said(tmp_path, good + "1,x,3\n")
    assert "row 7 (line 8): 1 cells" in said(tmp_path, good + "1,2,3\n1\n")


def test_large_columns_go_through_a_file_and_come_back_the_same(tmp_path, monkeypatch):
    values = np.random.default_rng(0).normal(size=(500, 3)).astype("float32")
    text = "a,b,c\n" + "\n".join(",".join(map(str, row)) for row in values)
    monkeypatch.setattr(csv_table, "CELLS_AT_ONCE", 60)
    monkeypatch.setattr(arrays, "MOST_IN_MEMORY", 1000)
    array = read(tmp_path, text).arrays["input_layer"]
    assert isinstance(array, np.memmap)
    np.testing.assert_array_equal(array, values)


def test_a_full_disk_is_said_and_what_to_do(tmp_path, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(arrays, "MOST_IN_MEMORY", 1)
    monkeypatch.setattr(arrays.tempfile, "TemporaryFile", full)
    assert "no room for the numbers of the table" in said(tmp_path, "a,b,c\n1,2,3\n")


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_columns_are_found_by_the_names_of_the_inputs(tmp_path, form):
    path = tmp_path / f"data.{form}"
    frame = pandas.DataFrame(MIXED_TABLE)
    getattr(frame, f"to_{form}")(path, index=False)
    data = read_data(path, MIXED, Choice(by="id"))
    np.testing.assert_array_equal(data.arrays["age"], np.float32([[30.5], [np.nan]]))
    np.testing.assert_array_equal(data.arrays["kind"], np.int32([1, 0]))
    np.testing.assert_array_equal(data.arrays["pos"], [[1.0, 2.0], [3.0, 4.0]])
    assert data.arrays["city"].tolist() == [["x"], ["y"]]
    assert {name: a.dtype.name for name, a in data.arrays.items()} == {
        "age": "float32", "kind": "int32", "pos": "float64", "city": "object",
    }  # fmt: skip
    assert data.labels.tolist() == [7, 8] and data.features is None and not data.notes


def test_columns_that_nothing_reads_are_named(tmp_path):
    text = pandas.DataFrame(MIXED_TABLE).to_csv(index=False)
    (note,) = read(tmp_path, text, MIXED).notes
    assert note.endswith("data.csv: columns that the model does not read: id.")


def test_missing_columns_are_named_with_those_that_look_alike(tmp_path):
    frame = pandas.DataFrame(MIXED_TABLE).rename(columns={"kind": "kinds", "pos[1]": "p"})
    assert said(tmp_path, frame.to_csv(index=False), MIXED) == (
        'data.csv: columns that the model reads are missing: kind (did you mean "kinds"?), '
        "pos (2 columns, pos[0] … pos[1]). Columns that it does not read: p, pos[0], kinds, id."
    )


def test_the_columns_of_one_input_must_be_as_many_as_it_has_components(tmp_path):
    text = "a,b,c,y\n1,2,3,0\n"
    assert said(tmp_path, text) == (
        "data.csv: the model reads 3 columns, and there are 4: a, b, c, y. "
        "Leave out: --target COL, --ignore COL."
    )
    assert "reads 3 columns, and there are 2 besides the target" in said(
        tmp_path, "a,b,y\n1,2,0\n", target="y"
    )


@pytest.mark.parametrize(
    ("choice", "features"),
    [
        ({"ignore": ("y",)}, ("a", "b", "c")),
        ({"columns": ("c", "a", "y")}, ("c", "a", "y")),
        ({"by": "y"}, ("a", "b", "c")),  # slices by a column that is no input …
        ({"by": "a", "target": "y"}, ("a", "b", "c")),  # … or by one that is
    ],
)
def test_columns_are_chosen_on_the_command_line(tmp_path, choice, features):
    data = read(tmp_path, "a,b,c,y\n1,2,3,0\n", **choice)
    assert data.features == features
    by = choice.get("by")
    assert (None if by is None else data.labels.tolist()) == {None: None, "y": [0], "a": [1]}[by]


def test_an_option_that_names_no_column_says_which_look_alike(tmp_path):
    assert said(tmp_path, "age,b,c,y\n1,2,3,0\n", target="Y ") == (
        "data.csv: --target 'Y ' is no column (did you mean \"y\"?). Columns: age, b, c, y."
    )


def test_columns_fill_inputs_of_any_shape(tmp_path):
    text = "a,b,c,d\n1,2,3,4\n"
    image = Input("image", (2, 2, 1), FLOAT, "float32")
    assert read(tmp_path, text, [image]).arrays["image"].shape == (1, 2, 2, 1)
    series = Input("series", (None, 2), FLOAT, "float32")
    assert read(tmp_path, text, [series]).arrays["series"].shape == (1, 2, 2)
    series = Input("series", (None, 3), FLOAT, "float32")
    assert "open shape, which 4 columns do not fill" in said(tmp_path, text, [series])
    anything = Input("inputs", None, FLOAT, "float32")
    assert read(tmp_path, text, [anything]).arrays["inputs"].shape == (1, 4)


def test_inputs_without_names_take_columns_in_their_order(tmp_path):
    inputs = [Input(f"keras_tensor_{i}", (i + 1,), FLOAT, "float32") for i in range(2)]
    data = read(tmp_path, "a,b,c\n1,2,3\n", inputs)
    assert [a.tolist() for a in data.arrays.values()] == [[[1]], [[2, 3]]]


def test_labels_are_numbers_only_if_all_are(tmp_path):
    def labels(*cells):
        text = "a,b,c,y\n" + "".join(f"1,2,3,{cell}\n" for cell in cells)
        return read(tmp_path, text, by="y").labels

    assert labels("1", "2").tolist() == [1, 2] and labels("1", "2").dtype.kind == "i"
    assert labels("1.5", "2").tolist() == [1.5, 2.0]
    assert labels("1", "x").tolist() == ["1", "x"]


def test_a_wide_table_is_read_in_a_time_that_grows_with_its_cells(tmp_path):
    wide = 100_000
    names = ",".join(f"f{i}" for i in range(wide))
    row = ",".join(["0.5"] * wide)
    inputs = [Input("x", (wide,), FLOAT, "float32")]
    data = read(tmp_path, f"{names}\n{row}\n{row}\n", inputs)
    assert data.arrays["x"].shape == (2, wide) and data.features[-1] == "f99999"


# Cells --------------------------------------------------------------------------------------


def test_integers_are_read_exactly():
    cells = ["3", "-4.0", " +5 ", "true", "1e3", "9007199254740993"]
    assert convert(cells, INTEGER, "int64") == [3, -4, 5, 1, 1000, 9007199254740993]


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("1.5", '"1.5" is no integer'),
        ("300", '"300" is out of the range of int8'),
        ("", "is empty, and an input of integers has no value for that"),
        ("inf", '"inf" is no integer'),
        ("x" * 99, f'"{"x" * 40}…" is no number'),
    ],
)
def test_what_is_no_integer_is_refused(cell, why):
    with pytest.raises(BadCell) as caught:
        convert(["1", cell], INTEGER, "int8")
    assert (caught.value.index, caught.value.why) == (1, why)


# Parquet ------------------------------------------------------------------------------------


def parquet(**columns):
    buffer = io.BytesIO()
    pandas.DataFrame(columns).to_parquet(buffer)
    return buffer.getvalue()


def test_parquet_is_read(tmp_path):
    table = parquet(a=[1, None], b=[True, False], c=pandas.Categorical([2.5, 3.5]))
    (array,) = read(tmp_path, table, name="data.parquet").arrays.values()
    np.testing.assert_array_equal(array, [[1, 1, 2.5], [np.nan, 0, 3.5]])


def test_the_row_labels_of_pandas_are_no_column(tmp_path):
    path = tmp_path / "data.parquet"
    pandas.DataFrame({"a": [1.0], "b": [2.0], "c": [3.0]}, index=[7]).to_parquet(path)
    assert read_data(path, THREE, Choice()).features == ("a", "b", "c")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (parquet(a=["1"], b=[2], c=[3]), 'column "a": large_string is no number.'),
        (parquet(a=[[1]], b=[2], c=[3]), 'column "a": list<element: int64> is no number.'),
        (parquet(a=[1]), "the model reads 3 columns, and there are 1: a."),
        (b"PAR1 and then nothing", "damaged, or no Parquet file: "),
        (parquet(a=[1], b=[2], c=[3])[:-40], "damaged, or no Parquet file: "),
    ],
)
def test_what_is_wrong_with_a_parquet_file_is_said(tmp_path, table, message):
    assert message in said(tmp_path, table, name="data.parquet")


def test_integers_in_parquet_have_a_row(tmp_path):
    inputs = [Input("kind", (), INTEGER, "int32")]
    table = parquet(kind=[1.0, 1.5])
    assert 'row 2, column "kind": 1.5 is no int32.' in said(tmp_path, table, inputs, "d.parquet")


# Arrays -------------------------------------------------------------------------------------


def npz(**named):
    buffer = io.BytesIO()
    np.savez(buffer, **named)
    return buffer.getvalue()


def npz_said(folder, contents, inputs=THREE, **choice):
    return said(folder, contents, inputs, "data.npz", **choice)


X = np.arange(6.0).reshape(2, 3)
Y = np.array([1, 2])


@pytest.mark.parametrize("named", [{"x": X, "y": Y}, {"X": X, "id": Y}, {"cars": X}])
def test_the_array_of_the_only_input_is_found(tmp_path, named):
    data = read(tmp_path, npz(**named), name="data.npz")
    np.testing.assert_array_equal(data.arrays["input_layer"], np.float32(X))
    assert data.features is None and bool(data.notes) == ("id" in named)


def test_arrays_are_found_by_the_names_of_the_inputs(tmp_path):
    named = {"age": np.array([1, 2]), "kind": np.array([1.0, 0.0]), "pos": X[:, :2], "id": Y}
    data = read(tmp_path, npz(**named, city=np.array(["x", "y"])), MIXED, "data.npz", by="id")
    assert [data.arrays[i.name].dtype for i in MIXED] == ["float32", "int32", "float64", "object"]
    assert data.arrays["age"].shape == (2, 1) and data.labels.tolist() == [1, 2]


def test_axes_of_length_one_are_added_and_dropped(tmp_path):
    image = [Input("image", (2, 2, 1), FLOAT, "float32")]
    data = read(tmp_path, npz(x=np.zeros([5, 2, 2])), image, "data.npz")
    assert data.arrays["image"].shape == (5, 2, 2, 1)
    message = npz_said(tmp_path, npz(x=np.zeros([5, 4])), image)
    assert "examples of shape (4,), and the model's input 'image' has (2, 2, 1)." in message


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (npz(x=np.array([{}, 1], dtype=object)), "'x' holds Python objects, which are never read"),
        (npz(a=X, b=X), "the model reads one array, and there are 2: a, b. Say which: --columns"),
        (npz(x=X.astype(str)), "array 'x' of <U32 does not fit the model's input"),
        (npz(x=X + 1j), "array 'x' of complex128 does not fit"),
        (npz(x=np.zeros([0, 3])), "holds no examples."),
        (npz(x=3.0), "array 'x' is a single value: axis 0 is the examples."),
        (npz(), "holds no arrays."),
        (npz(x=X)[:-30], "damaged, or no .npz file: File is not a zip file."),
        (b"", "damaged, or no .npz file: File is not a zip file."),
    ],
)
def test_what_is_wrong_with_an_npz_file_is_said(tmp_path, contents, message):
    assert message in npz_said(tmp_path, contents)


def test_arrays_must_be_equally_long(tmp_path):
    message = npz_said(tmp_path, npz(x=X, id=np.arange(5)), by="id")
    assert "equally many examples: x has 2, id has 5." in message


def test_missing_arrays_are_named(tmp_path):
    message = npz_said(tmp_path, npz(age=Y, kinds=Y), MIXED)
    assert 'missing: kind (did you mean "kinds"?), pos, city. Arrays that it does not' in message


def test_an_integer_in_an_array_has_its_row(tmp_path):
    inputs = [Input("kind", (), INTEGER, "int8")]
    for bad in (1.5, np.nan, 200):
        message = npz_said(tmp_path, npz(kind=np.array([1.0, bad])), inputs)
        assert f"array 'kind', row 2: {float(bad)} is no int8." in message


def test_an_array_shorter_than_its_header_says_is_not_allocated(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**14, 3)}
    )
    path = tmp_path / "huge.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    assert "'x' is not as long as it says" in npz_said(tmp_path, path.read_bytes())
