"""`sensitivity_report`: from a model and data to a `SensitivityReport`."""

from collections.abc import Sequence
from typing import Literal, Unpack

import keras
import tensorflow as tf

from keras_fwd._checks import check_count, check_number
from keras_fwd.errors import ConfigurationError
from keras_fwd.sensitivity._measuring.plan import Plan
from keras_fwd.sensitivity._measuring.run import Run
from keras_fwd.sensitivity._measuring.slices import Slices
from keras_fwd.sensitivity._measuring.stream import Stream
from keras_fwd.sensitivity._statistics import poincare
from keras_fwd.sensitivity._statistics.resampling import RESAMPLES
from keras_fwd.sensitivity.report import SensitivityReport
from keras_fwd.typing import Data, ReportOptions


def sensitivity_report(
    model: keras.layers.Layer,
    data: Data,
    feature_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    *,
    max_examples: int | None = None,
    progress: bool | Literal["auto"] = "auto",
    **options: Unpack[ReportOptions],
) -> SensitivityReport:
    """How strongly each output of a model reacts to each input feature, over a data set.

    Statistics of ∂output/∂feature over the examples, each with a standard error and a confidence
    interval; `keras_fwd.sensitivity.measures` defines them. Discrete inputs have no derivative:
    for them the report holds the exact effect of switching from the most frequent value to each
    other one.

    Args:
        model: Keras model (or layer), built; called with `training=False`.
        data: The inputs, in a form that `fit` takes: array, list or dict of arrays, `(x, y)`,
            batched `tf.data.Dataset` or `keras.utils.PyDataset`; or a pandas data frame. Targets
            and sample weights are passed over, unless `by` reads them. Read batch by batch: the
            memory does not grow with the data.
        feature_names: One text for each component of the floating-point inputs, inputs in the
            order of `data` (keys of a dict sorted). Default: `name[3]`, or the columns of a frame.
        output_names: The same for the outputs.
        max_examples: Use so many examples, drawn at random with `seed`; default None, all. Of
            data that never end, the first ones.
        progress: Whether a bar shows how far it got; default `"auto"`: on a terminal.
        features: Names of the features to report on, derivatives or discrete ones; default None,
            all. Only these are computed.
        outputs: Names of the outputs to report on; default None, all.
        by: What parts the examples into slices, each with a report of its own: `"target"`, the
            name of a column (numbers are cut at their quartiles), a function of `x` or `(x, y)`
            that gives a label for each example, or an array of labels. Default None, no slices.
        discrete: Names of floating-point columns that are codes; default none. Integer and text
            inputs are discrete in any case, and so are those that go into an Embedding or a lookup.
        one_hot: Dict from a name to the columns that are its one-hot code; default None.
        groups: Dict from a name to features whose effect is reported together; default None.
        marginals: Distribution of the features for the Poincaré bounds: `"empirical"` (default),
            `"uniform"` over their range, `"normal"`, `("uniform", low, high)`, `("normal", std)`;
            or a dict of these by features.
        interactions: How many of the strongest pairs of features to report; default 0, none.
        seed: Whole number for every random draw; default 0.
        confidence: Of the intervals, between 0 and 1; default 0.95.
        batch_size: Examples at a time, where `data` does not come in batches; default None: 1024
            of few features, down to 32 of many (images).
        resamples: Of the bootstrap that makes the errors; default 1000. 0: from a jackknife over 25
            groups of examples, rougher and much cheaper where there are many features.
        **options: Those from `features` on, by name alone.

    Returns:
        `SensitivityReport`. Examples with a value or derivative that is not finite are left out
        and counted. Interrupted (Ctrl-C), it is that of the examples done, and says so.

    Raises:
        ConfigurationError: A model that is not built or has no input to vary; data without a usable
            example, or in no known form; names of the wrong number; an option without meaning.
        StructureError: Data that do not fit the model, or outputs without a batch axis.
        LeakError: TensorFlow would get a derivative wrong.

    Cost: For each batch one forward pass and `min(features, outputs)` products, at once; one
        forward pass for each value of a discrete feature.

    Example:

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
    >>> model.set_weights([np.array([[3.0], [-0.5]]), np.zeros(1)])
    >>> report = sensitivity_report(model, np.array([[1.0, 2.0], [3.0, 9.0]]), ["age", "size"])
    >>> report.mean[:, 0]
    array([ 3. , -0.5])
    """
    names = {"feature_names": feature_names, "output_names": output_names}
    analysis = Analysis("sensitivity_report", model, **names, **options)
    return analysis.report(data, max_examples, progress)


class Analysis:
    """A sensitivity analysis that may be repeated: its graphs are traced once.

    Args:
        call: Name of the public call, for messages; the others as in `sensitivity_report`.
    """

    def __init__(
        self,
        call,
        model,
        feature_names=None,
        output_names=None,
        features=None,
        outputs=None,
        by=None,
        discrete=(),
        one_hot=None,
        groups=None,
        marginals="empirical",
        interactions=0,
        seed=0,
        confidence=0.95,
        batch_size=None,
        resamples=RESAMPLES,
    ):
        _check(call, model, batch_size, interactions, seed, confidence)
        poincare.check(call, marginals)
        self.call, self.model = call, model
        self.feature_names, self.output_names = feature_names, output_names
        self.features = _listed(call, "features", features)
        self.outputs = _listed(call, "outputs", outputs)
        self.by, self.marginals = by, marginals
        self.discrete, self.one_hot = _listed(call, "discrete", discrete) or [], one_hot or {}
        _check_dict(call, "groups", groups)
        _check_dict(call, "one_hot", one_hot)
        self.groups = {name: _listed(call, "groups", who) for name, who in (groups or {}).items()}
        self.interactions, self.seed, self.confidence = interactions, seed, confidence
        check_count(call, "resamples", resamples, least=0)
        self.batch_size, self.resamples = batch_size, resamples
        self._plan = self._plan_key = None

    def report(self, data, max_examples=None, progress=False):
        """The `SensitivityReport` of a data set; arguments as in `sensitivity_report`."""
        check_count(self.call, "max_examples", max_examples, none="all")
        slices = None if self.by is None else Slices(self.call, self.by)
        stream = Stream(
            self.call,
            self.model,
            data,
            self.batch_size,
            max_examples,
            self.seed,
            targets=slices is not None and slices.needs_targets,
        )
        return Run(self, stream, slices).report(progress)

    def plan(self, batch, frame_columns):
        """What is computed of the model for data like this batch: a `Plan`, made once."""
        key = tf.nest.map_structure(lambda leaf: (leaf.shape[1:], leaf.dtype), batch.x)
        # Examples of another shape need other graphs.
        if key != self._plan_key:
            self._plan = Plan(self, batch.x, frame_columns)
            self._plan_key = key
        return self._plan


def _listed(call, argument, names):
    """Names as a list; a single text is one name."""
    if names is None:
        return None
    names = [names] if isinstance(names, str) else list(names)
    if not all(isinstance(name, str) for name in names):
        raise ConfigurationError(
            f"{call}: `{argument}` must be names. Received: {argument}={names!r}."
        )
    return names


def _check_dict(call, argument, value):
    if value is not None and not isinstance(value, dict):
        raise ConfigurationError(
            f"{call}: `{argument}` must be a dict from a name to features. "
            f"Received: {argument}={value!r}."
        )


def _check(call, model, batch_size, interactions, seed, confidence):
    if not isinstance(model, keras.Layer):
        raise ConfigurationError(
            f"{call}: `model` must be a Keras model or layer. Received: {model!r}."
        )
    if not model.built:
        raise ConfigurationError(
            f"{call}: `model` must be built and trained: call it on a batch, or give it a "
            f"keras.Input. Received: {model!r}."
        )
    check_count(call, "batch_size", batch_size, none="one that fits the size of an example")
    check_count(call, "interactions", interactions, least=0)
    check_count(call, "seed", seed, least=0)
    check_number(call, "confidence", confidence, above=True)
    if confidence >= 1:
        raise ConfigurationError(
            f"{call}: `confidence` must lie between 0 and 1. Received: confidence={confidence!r}."
        )
