"""`sensitivity_report` and what it returns."""

import dataclasses
import pathlib

import keras
import numpy as np

from keras_fwd import nest
from keras_fwd.checks import check_count
from keras_fwd.errors import ConfigurationError, StructureError
from keras_fwd.sensitivity import batches, columns, measures, presentation


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SensitivityReport(measures.Measures):
    """Mean, mean absolute and root mean square of ∂output/∂feature over a data set.

    `print(report)` shows a table with the strongest features first. The arrays of `Measures`
    (`mean`, `mean_abs`, `rms` and their standard errors, `[features, outputs]`, float64) are in
    units of the output per unit of the feature; `keras_fwd.sensitivity.measures` has the formulas.

    Attributes:
        feature_names: One name for each component of the floating-point inputs.
        output_names: One name for each component of the outputs.
        feature_std: Standard deviation of each feature over the examples, `[features]`.
        examples: Number of examples used.
        left_out: Number of examples not used: an input or a derivative was not finite.
        notes: What else to know, one sentence each.
    """

    feature_names: tuple[str, ...]
    output_names: tuple[str, ...]
    feature_std: np.ndarray
    examples: int
    left_out: int
    notes: tuple[str, ...]

    @property
    def standardized(self):
        """`Measures` of ∂output/∂feature times the feature's standard deviation.

        In units of the output per standard deviation of the feature.
        """
        return self.scaled(self.feature_std[:, None])

    def to_frame(self):
        """The report as a pandas DataFrame, one row for each feature and output.

        Returns:
            DataFrame with `feature`, `output`, the measures with `_stderr` each, the same with
            `standardized_` before, and `feature_std`; features in their own order.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise ImportError(
                "SensitivityReport.to_frame needs pandas: run `pip install 'keras-fwd[report]'`."
            ) from None
        features, outputs = len(self.feature_names), len(self.output_names)
        frame = {
            "feature": np.repeat(np.array(self.feature_names, object), outputs),
            "output": np.tile(np.array(self.output_names, object), features),
        }
        for prefix, values in (("", self), ("standardized_", self.standardized)):
            for name in ("mean", "mean_abs", "rms"):
                for key in (name, f"{name}_stderr"):
                    frame[prefix + key] = getattr(values, key).ravel()
        return pd.DataFrame({**frame, "feature_std": np.repeat(self.feature_std, outputs)})

    def to_html(self, path, title="Sensitivity report"):
        """Write the report as one self-contained HTML file.

        Args:
            path: Where to; a file there is replaced, at once and only when all is written.
            title: Heading of the page.

        Returns:
            The path as a `pathlib.Path`.

        Raises:
            ImportError: Jinja2 is not installed.
            ConfigurationError: `path` cannot be written.
        """
        page = presentation.html_page(self, title)
        path = pathlib.Path(path)
        aside = path.with_name(f".{path.name}.part")
        try:
            aside.write_text(page, encoding="utf-8")
            aside.replace(path)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise ConfigurationError(
                "SensitivityReport.to_html: `path` must be a file that can be written, in a folder "
                f"that exists. Received: path={str(path)!r} ({error.strerror})."
            ) from error
        return path

    def __str__(self):
        return presentation.text_table(self)

    def __repr__(self):
        return f"<SensitivityReport: {presentation.headline(self)}>"


def sensitivity_report(
    model, data, feature_names=None, output_names=None, max_examples=None, batch_size=256
):
    """How strongly each output of a model reacts to each input feature, over a data set.

    Args:
        model: Keras model (or layer), built; called with `training=False`.
        data: The inputs, in a form that `fit` takes: array, list or dict of arrays, `(x, y)`,
            batched `tf.data.Dataset` or `keras.utils.PyDataset`. Targets and sample weights are
            passed over. Read batch by batch: the memory does not grow with the data.
        feature_names: One text for each component of the floating-point inputs, inputs in the
            order of `data` (keys of a dict sorted). Default: `name[3]`.
        output_names: The same for the outputs.
        max_examples: Use only the first ones; default None, all.
        batch_size: Examples at a time, where `data` does not come in batches; default 256.

    Returns:
        `SensitivityReport`. Integer and text inputs have no derivative: a note names them.
        Examples with a value or derivative that is not finite are left out and counted.

    Raises:
        ConfigurationError: A model that is not built or has no floating-point input; data without
            a usable example, or in no known form; names of the wrong number.
        StructureError: Data that do not fit the model, or outputs without a batch axis.
        LeakError: TensorFlow would get a derivative wrong.

    Cost: For each batch one forward pass and `min(features, outputs)` products, at once.

    Example:

    >>> model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
    >>> model.set_weights([np.array([[3.0], [-0.5]]), np.zeros(1)])
    >>> report = sensitivity_report(model, np.array([[1.0, 2.0], [3.0, 9.0]]), ["age", "size"])
    >>> report.mean[:, 0]
    array([ 3. , -0.5])
    >>> report.standardized.mean[:, 0]
    array([ 3.  , -1.75])
    """
    call = "sensitivity_report"
    _check(call, model, max_examples, batch_size)
    jacobian, accumulator = columns.FlatJacobian(model), measures.Accumulator()
    features, others, shapes = None, [], None
    for raw in batches.raw_batches(call, data, batch_size, max_examples):
        x = batches.conform(call, model, raw)
        if features is None:
            default, others = columns.input_columns(model, x)
            features = _names("feature_names", feature_names, default)
        shapes = _check_shapes(call, x, shapes)
        accumulator.update(*jacobian(x))
        outputs = _names("output_names", output_names, jacobian.output_names)
    if not accumulator.examples:
        raise ConfigurationError(
            f"{call}: `data` must hold an example with finite inputs and derivatives. Received: "
            f"{accumulator.left_out} examples, all with NaN or infinity."
        )
    return SensitivityReport(
        **vars(accumulator.measures()),
        feature_names=features,
        output_names=outputs,
        feature_std=accumulator.feature_std,
        examples=accumulator.examples,
        left_out=accumulator.left_out,
        notes=tuple(_notes(accumulator, features, others)),
    )


def _check(call, model, max_examples, batch_size):
    if not isinstance(model, keras.Layer):
        raise ConfigurationError(
            f"{call}: `model` must be a Keras model or layer. Received: {model!r}."
        )
    if not model.built:
        raise ConfigurationError(
            f"{call}: `model` must be built and trained: call it on a batch, or give it a "
            f"keras.Input. Received: {model!r}."
        )
    check_count(call, "max_examples", max_examples, none="all")
    check_count(call, "batch_size", batch_size)


def _check_shapes(call, x, before):
    """The shapes of one example, which must be those of the batch before, if there is one."""
    shapes = [leaf.shape[1:] for leaf in nest.flatten(x)]
    if before not in (None, shapes):
        raise StructureError(
            f"{call}: `data` must have the same features in every example. Received: examples of "
            f"shapes {before} and {shapes}. Pad them to one length."
        )
    return shapes


def _names(argument, given, default):
    given = default if given is None else [given] if isinstance(given, str) else list(given)
    if len(given) != len(default):
        raise ConfigurationError(
            f"sensitivity_report: `{argument}` must have {len(default)} names, one for each of "
            f"{presentation.shortened(default)}. Received: {len(given)} names, "
            f"{presentation.shortened(given)}."
        )
    return tuple(map(str, given))


def _notes(accumulator, features, others):
    if others:
        yield (
            f"Without a derivative, because not floating-point: {presentation.shortened(others)}."
        )
    if accumulator.left_out:
        total = accumulator.examples + accumulator.left_out
        yield (
            f"{accumulator.left_out} of {total} examples were left out: an input or a derivative "
            "was NaN or infinite."
        )
    constant = [n for n, std in zip(features, accumulator.feature_std, strict=True) if std == 0]
    if constant and accumulator.examples > 1:
        yield (
            "Constant over these examples, so that their standardized values are 0: "
            f"{presentation.shortened(constant)}."
        )
    if accumulator.examples == 1:
        yield "A single example has no standard errors and no standard deviations."
