"""Names for the types of the public interface, for annotations of your own.

TensorFlow ships no types, so what is a tensor to it is `Any` to a type checker, and the name says
what is meant. Options are `Literal`s, so that an editor offers them and a typo is found.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

__all__ = [
    "Data",
    "Every",
    "Feature",
    "Fisher",
    "Function",
    "Inverse",
    "JacobianMode",
    "LearningRate",
    "Logs",
    "Nest",
    "PathLike",
    "PlotKind",
    "Quantity",
    "ReportOptions",
    "Shared",
    "Strength",
    "Tensor",
    "TensorLike",
    "Variable",
    "WithRespectTo",
]

#: A `tf.Tensor`, or a Keras tensor while a functional model is put together.
Tensor: TypeAlias = Any
#: What `tf.convert_to_tensor` takes: tensors, arrays, numbers, lists of these.
TensorLike: TypeAlias = Any
#: A tensor, or lists, tuples and dicts of tensors, nested in any way.
Nest: TypeAlias = Any
#: A `tf.Variable` or `keras.Variable`.
Variable: TypeAlias = Any
#: Data in a form that `fit` takes: arrays, nests of them, a `tf.data.Dataset`, a `PyDataset`.
Data: TypeAlias = Any
#: A function of tensors, a Keras layer or a Keras model.
Function: TypeAlias = Callable[..., Any]

#: What a derivative is taken by.
WithRespectTo: TypeAlias = Literal["inputs", "weights"] | list[Any] | tuple[Any, ...]
#: How a Jacobian is computed: column by column, row by row, or whichever takes fewer products.
JacobianMode: TypeAlias = Literal["auto", "forward", "reverse"]
#: When a callback measures: at the end of each epoch, or after every n-th batch.
Every: TypeAlias = Literal["epoch"] | int
#: The logs that Keras hands to a callback.
Logs: TypeAlias = dict[str, Any]
#: Where a file is.
PathLike: TypeAlias = str | os.PathLike[str]
#: A number, a schedule of the training step, or a callable that gives a number.
LearningRate: TypeAlias = float | Callable[..., Any]
#: A number of at least 0, a schedule of the training step, or a scalar `keras.Variable`.
Strength: TypeAlias = Any
#: What a figure of a report shows.
PlotKind: TypeAlias = Literal["bar", "beeswarm", "heatmap", "interactions", "evolution"]
#: What `CurvatureCallback` logs.
Quantity: TypeAlias = Literal["top_eigenvalues", "trace", "gradient_noise"]
#: Features by name (`"age"`, `"name[3]"`) or by place in the last axis.
Feature: TypeAlias = str | int

#: How K-FAC measures the Fisher information; see `KFAC`.
Fisher: TypeAlias = Literal["monte-carlo", "type-2", "empirical"]
#: How K-FAC adds damping to Kronecker factors.
Inverse: TypeAlias = Literal["cholesky", "eigen"]
#: What K-FAC takes for an example where a weight is used at many positions.
Shared: TypeAlias = Literal["expand", "reduce"]


class ReportOptions(TypedDict, total=False):
    """Options of `sensitivity_report`, which describes them, and of `SensitivityCallback`."""

    features: Sequence[str] | None
    outputs: Sequence[str] | None
    by: Any
    discrete: Sequence[str]
    one_hot: Mapping[str, Sequence[str]] | None
    groups: Mapping[str, Sequence[str]] | None
    marginals: Any
    interactions: int
    seed: int
    confidence: float
    batch_size: int | None
    resamples: int
