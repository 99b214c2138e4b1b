"""Which weights of a model share a block of curvature, as a table."""

import dataclasses
from typing import Any, Self

import keras
import tensorflow as tf

from keras_fwd._curvature.blocks import blocks
from keras_fwd._derivatives import double_gradient
from keras_fwd._models.training_pass import Recorder
from keras_fwd._spaces import nest
from keras_fwd._tables import Rows, text_table
from keras_fwd.errors import ConfigurationError
from keras_fwd.typing import Nest, Shared

COLUMNS = ("weights", "block", "left", "right", "why")


@dataclasses.dataclass(frozen=True)
class BlockRow:
    """One block.

    Attributes:
        weights: Paths of its weights.
        block: `"Kronecker"`, `"scale and shift"` or `"diagonal"`.
        left: Shape of the left factor; of the diagonal.
        right: Shape of the right factor, or None.
        why: How the weights are used.
    """

    weights: str
    block: str
    left: tuple[int, ...]
    right: tuple[int, ...] | None
    why: str


class BlockReport(Rows[BlockRow]):
    """The blocks of a model, a sequence of `BlockRow` that prints as a table.

    Attributes:
        rows: List of `BlockRow`.

    Example:

    >>> from keras_fwd import KFAC
    >>> net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> [(row.block, row.left, row.right) for row in KFAC().blocks(net)]
    [('Kronecker', (1, 4, 4), (1, 2, 2))]
    """

    @classmethod
    def of(cls, model: Any, inputs: Nest, shared: Shared) -> Self:
        """The blocks of a model; see `KFAC.blocks`."""
        variables = list(model.trainable_variables)
        specs = _specs(model, inputs)
        found = []

        def trace(x):
            def outputs(values):
                with Recorder(variables, values):
                    leaves = nest.flatten(model(x, training=True))
                return [leaf for leaf in leaves if nest.is_differentiable(leaf.dtype)]

            values = [tf.identity(variable.value) for variable in variables]
            forward = double_gradient.forward_pass("blocks", outputs, values)
            found[:] = blocks.of_forward_pass(forward, forward.outputs, shared)

        tf.function(trace, autograph=False).get_concrete_function(specs)
        return cls([_row(block, variables) for block in found])

    def __str__(self) -> str:
        cells = [[getattr(row, name) for name in COLUMNS] for row in self.rows]
        return text_table(COLUMNS, cells, wide=("why",))


def _row(block, variables):
    paths = ", ".join(variables[place].path for place in block.places)
    if block.kind == "Kronecker":
        left, right = map(tuple, block.state)
    else:
        left, right = block.shape, None
    return BlockRow(paths, block.kind, left, right, block.why)


def _specs(model, inputs):
    if inputs is not None:
        tensors = tf.nest.map_structure(tf.convert_to_tensor, inputs)
        return tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), tensors)
    known = _known(model) if model.built else None
    if known is None:
        raise ConfigurationError(
            "blocks: the model must be built and know the shape of its inputs; pass a batch as "
            f"`inputs`. Received: {model.name!r}, "
            f"{'a model without an input shape' if model.built else 'not built'}."
        )
    return tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), known)


def _known(model):
    """The symbolic inputs of a model, or None; a Sequential has a list of one."""
    alone = getattr(model, "inputs", None) if isinstance(model, keras.Sequential) else None
    return alone[0] if alone else getattr(model, "input", None)
