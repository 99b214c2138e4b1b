"""What every test runs under: quiet logs, full float32, one seed, plots without a screen."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is imported
os.environ.setdefault("MPLBACKEND", "Agg")

import keras
import pytest
import tensorflow as tf
from support import ids, records
from support.cases import float32, float64  # noqa: F401 - fixtures of all tests
from support.chromium import browser  # noqa: F401
from support.gradient_registry import dropped_afterwards

# On GPUs that have it, TF32 rounds float32 products to 10 bits: far above our tolerances.
tf.config.experimental.enable_tensor_float_32_execution(False)


def pytest_configure(config):
    config.pluginmanager.register(records.Records(config))


def pytest_make_parametrize_id(val):
    return ids.name_of(val)


def pytest_collection_modifyitems(items):
    if unnamed := list(ids.places(items)):
        raise pytest.UsageError("give these cases names (ids=…):\n" + "\n".join(unnamed))


def pytest_collection_finish():
    """TensorFlow itself is never garbage: collections need not walk through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def registry():
    """A module's graphs end with it."""
    with dropped_afterwards():
        yield


@pytest.fixture(autouse=True)
def seed():
    """The same random numbers for every test, whichever others run before it."""
    keras.utils.set_random_seed(0)
