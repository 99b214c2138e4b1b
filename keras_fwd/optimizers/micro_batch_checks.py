"""What makes a step in blocks differ from the step of the whole batch: refused, by name."""

import re

import keras

from keras_fwd._models.separable import first_unknown
from keras_fwd._spaces import given, nest
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers._steps import replicas

#: Ops that draw random numbers, with a state or without.
_RANDOM = re.compile("Random|TruncatedNormal|StandardNormal|Multinomial|StatefulUniform")


def check_blocks(optimizer, micro_batch):
    """Raise `ConfigurationError` for arguments of `GaussNewton` that need the batch as a whole."""
    if micro_batch is None:
        return
    for argument, needed in (
        ("solver", optimizer.solver if optimizer.solver == "dual" else None),
        ("preconditioner", optimizer.preconditioner),
        ("curvature_batch", optimizer.curvature_batch),
    ):
        if needed is not None:
            raise ConfigurationError(
                f"GaussNewton: `micro_batch` does not go with {argument}={needed!r}, which needs "
                f"the batch as a whole. Received: micro_batch={micro_batch!r}, "
                f"{argument}={needed!r}. Leave one of them out."
            )


def check_batch(model_pass):
    """Raise `ConfigurationError` for a model that does not take a part of a batch."""
    fn = model_pass.model
    if replicas.count() > 1:
        _refuse("replicas have a share of the batch each already", f"{replicas.count()} replicas")
    if type(fn).compute_loss is not keras.Model.compute_loss:
        _refuse("a `compute_loss` of one's own may use more than the outputs", f"{type(fn)!r}")
    if any(spec.shape[0] is not None for spec in getattr(fn, "inputs", None) or []):
        _refuse("a fixed batch size is that of the whole batch", f"{fn.name!r}, which has one")


def check_random(graph):
    """Raise `ConfigurationError` for random numbers: each block would draw others."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    drawn = sorted({node.op for node in nodes if _RANDOM.search(node.op)})
    if drawn:
        _refuse("random numbers of the batch would be others in blocks", ", ".join(drawn))


def check_apart(fn):
    """Raise `ConfigurationError` for a layer that may mix the examples of a block."""
    unknown = first_unknown(fn)
    if unknown is not None:
        _refuse(
            "of this layer, model or operation it is not known that it treats each example by "
            "itself (if it does, set `keeps_examples_apart = True` on it)",
            f"{unknown.name!r}, a {type(unknown).__name__}",
        )


def check_outputs(model_pass, recorder, outputs):
    """Raise `ConfigurationError` where blocks would not come to the same as the batch."""
    updated = [variable.path for variable in recorder.updated]
    if updated:
        _refuse(
            "layers that keep a state or draw random numbers, such as BatchNormalization and "
            "Dropout in training, would see another one in each block",
            f"updates of {', '.join(map(repr, updated))}",
        )
    ruled = sum(variable.regularizer is not None for variable in model_pass.variables)
    if len(model_pass.model.losses) > ruled:
        _refuse("terms of `add_loss` and regularizers of activities are of a whole batch", "such")
    for y in nest.flatten(outputs):
        if not y.shape.rank or y.shape[0] != model_pass.size:
            _refuse("the first axis of an output must be that of the examples", given.describe(y))
    if any(getattr(y, "_keras_mask", None) is not None for y in nest.flatten(outputs)):
        _refuse("masks of outputs would be lost between blocks", "a mask")


def _refuse(reason, received):
    raise ConfigurationError(
        f"GaussNewton: `micro_batch` must not change the step, and {reason}. Received: {received}. "
        "Leave `micro_batch` out, or what it does not allow."
    )
