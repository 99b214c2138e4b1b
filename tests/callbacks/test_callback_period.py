"""`every`: one argument, with one meaning, in all callbacks that measure."""

import inspect
import re

import numpy as np
import pytest

import keras_fwd
from keras_fwd import (
    ConfigurationError,
    CurvatureCallback,
    JacobianNormCallback,
    SensitivityCallback,
)

X = np.ones((4, 2), "float32")
CALLBACKS = {
    JacobianNormCallback: X,
    CurvatureCallback: (X, X[:, :1]),
    SensitivityCallback: X,
}


@pytest.mark.parametrize("callback", CALLBACKS)
def test_every_is_an_epoch_or_a_number_of_batches(callback):
    assert inspect.signature(callback).parameters["every"].default == "epoch"
    assert callback(CALLBACKS[callback]).every is None
    assert callback(CALLBACKS[callback], every=3).every == 3
    assert inspect.getdoc(callback).count("every:") == 1


@pytest.mark.parametrize("callback", CALLBACKS)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("batch", '`every` must be "epoch" or a number of batches'),
        (None, '`every` must be "epoch" or a number of batches'),
        (0, "`every` must be a whole number of at least 1"),
        (True, "`every` must be a whole number of at least 1"),
        (2.5, "`every` must be a whole number of at least 1"),
    ],
)
def test_other_periods_are_refused_in_the_same_words(callback, value, message):
    with pytest.raises(ConfigurationError, match=re.escape(f"{callback.__name__}: {message}")):
        callback(CALLBACKS[callback], every=value)


def test_the_old_name_works_and_names_the_new_one():
    with pytest.warns(DeprecationWarning, match="`frequency` is deprecated.*use `every`") as seen:
        callback = JacobianNormCallback(X, frequency=5)
    assert callback.every == 5
    assert seen[0].filename == __file__


def test_the_third_argument_is_the_period_as_before():
    assert JacobianNormCallback(X, "spectral", 7).every == 7


def test_help_on_a_report_shows_its_options():
    shown = inspect.getdoc(keras_fwd.sensitivity_report)
    options = keras_fwd.typing.ReportOptions.__annotations__
    for name in options:
        assert re.search(rf"^ +{name}: .*", shown, re.M), name
