"""A batch a few examples at a time: the model runs on blocks of it, the loss on all outputs."""

import re

import keras
import tensorflow as tf

from keras_fwd._derivatives import double_gradient, passes
from keras_fwd._models import model_losses
from keras_fwd._models.separable import first_unknown
from keras_fwd._models.training_pass import Recorder, TrainingPass
from keras_fwd._spaces import given, nest
from keras_fwd._spaces.linear_map import LinearMap
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers._steps import replicas
from keras_fwd.optimizers._steps.expansion import measured, values_of

# What makes a step in blocks differ from the step of the whole batch: refused, by name.

#: Ops that draw random numbers, with a state or without.
_RANDOM = re.compile("Random|TruncatedNormal|StandardNormal|Multinomial|StatefulUniform")


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


class MicroBatches(TrainingPass):
    """A `TrainingPass` that holds the activations of a few examples only.

    Blocks of equal size follow each other in a loop; of the last one, examples that are not there
    are stood in for by the last one that is, and left out of all that comes of it. The loss is that
    of all outputs together, so it need not be a mean or a sum over examples.

    Args:
        model: A compiled Keras model that treats each example by itself.
        size: Number of examples in a block.
    """

    def __init__(self, model, size):
        super().__init__(model)
        self.size = size

    @property
    def count(self):
        """Number of examples."""
        return tf.shape(nest.live(self.batch[0])[0])[0]

    @property
    def blocks(self):
        """Number of blocks."""
        return -(-self.count // self.size)

    def part(self, i, leaf):
        """What block `i` has of a tensor of all examples, zeros for those that are not there."""
        places = self._places(i)
        inside = tf.reshape(places < self.count, [-1, *[1] * (leaf.shape.rank - 1)])
        return tf.where(inside, self._rows(places, leaf), tf.zeros([], leaf.dtype))

    def placed(self, i, part):
        """Inverse of `part`, with zeros for the examples of other blocks."""
        empty = tf.zeros([self.blocks * self.size, *part.shape[1:]], part.dtype)
        whole = tf.tensor_scatter_nd_update(empty, self._places(i)[:, None], part)
        return self._trimmed(whole)

    def leaves_of_block(self, i, values):
        """The curvature leaves of block `i`, once the pass has been called."""
        outputs = nest.flatten(self._outputs_of_block(i, values))
        return list(map(model_losses.curvature_leaf, outputs, self.losses))

    def linearized(self, i, values):
        """The curvature leaves of block `i`, and their Jacobian in the weights."""
        forward, J = double_gradient.linearization(
            "GaussNewton", lambda v: self.leaves_of_block(i, v), values
        )
        return forward.outputs, J

    def _run(self):
        check_batch(self)
        values = [variable.value for variable in self.variables]  # those of the scope
        seen = {}

        def block(i):
            outputs = self._outputs_of_block(i, values)
            seen["outputs"] = outputs
            leaves = nest.flatten(outputs)
            return leaves, [y._keras_logits for y in leaves if hasattr(y, "_keras_logits")]

        # Traced once for its structure, which the loop must know before.
        traced = tf.function(block, autograph=False)
        traced = traced.get_concrete_function(tf.TensorSpec([], tf.int32))
        check_random(traced.graph)
        check_apart(self.model)
        leaves, logits = traced.structured_outputs
        structure = seen["outputs"]
        have_logits = [hasattr(y, "_keras_logits") for y in nest.flatten(structure)]
        spec = tf.nest.map_structure(lambda y: tf.TensorSpec(y.shape, y.dtype), (leaves, logits))
        stacked = self._mapped(block, spec)
        whole, logits = tf.nest.map_structure(self._joined, stacked)
        logits = iter(logits)
        for leaf, has in zip(whole, have_logits, strict=True):
            if has:
                leaf._keras_logits = next(logits)
        return nest.pack(structure, whole)

    def _mapped(self, function, spec):
        """`function(i)` of all blocks, stacked; one block is alive at a time."""
        indices = tf.range(self.blocks)
        return tf.map_fn(function, indices, fn_output_signature=spec, parallel_iterations=1)

    def _joined(self, stacked):
        """`[blocks, size, …]` as `[examples, …]`."""
        return self._trimmed(tf.reshape(stacked, [-1, *stacked.shape[2:]]))

    def _trimmed(self, whole):
        known = nest.live(self.batch[0])[0].shape[0]
        return tf.ensure_shape(whole[: self.count], [known, *whole.shape[1:]])

    def _places(self, i):
        return i * self.size + tf.range(self.size)

    def _rows(self, places, leaf):
        rows = tf.gather(leaf, tf.minimum(places, self.count - 1))
        return tf.ensure_shape(rows, [self.size, *leaf.shape[1:]])

    def _outputs_of_block(self, i, values):
        places = self._places(i)
        inputs = nest.map_live(lambda leaf: self._rows(places, leaf), self.batch[0])
        with Recorder(self.variables, values) as recorder:
            outputs = self.model(inputs, training=self.training)
            check_outputs(self, recorder, outputs)
        return outputs


def expand_blocks(model_pass, scale=None):
    """The `Expansion` of `MicroBatches`: each product runs the blocks anew.

    Args:
        model_pass: The `MicroBatches`.
        scale: As of `expand`.
    """
    values = values_of(model_pass)
    result = model_pass(values)
    J = _jacobian(model_pass, values, result)
    return measured(values, result, J._transpose_mv, J, scale)


def _jacobian(model_pass, values, result):
    """Of a pass, from the weights to `{"loss", "outputs"}`."""
    leaves = result["outputs"]
    _, slope = double_gradient.pullback(model_pass.loss_of_leaves, leaves, call="GaussNewton")
    outputs = model_pass.outputs

    def beside(values):
        """The loss as a function of weights that enter it beside the outputs: regularizers."""
        with Recorder(model_pass.variables, values):
            return model_pass._loss(outputs)

    def pull_beside(cotangent):
        if model_pass.loss_is_of_outputs:
            return None
        return passes.pull("GaussNewton", beside, values, [cotangent])

    def push(tangents):
        spec = [tf.TensorSpec([model_pass.size, *y.shape[1:]], y.dtype) for y in leaves]

        def block(i):
            return model_pass.linearized(i, values)[1]._mv(tangents)

        pushed = list(map(model_pass._joined, model_pass._mapped(block, spec)))
        one = tf.ones_like(result["loss"])
        loss = nest.dot(slope(one), pushed)
        own = pull_beside(one)
        loss = loss if own is None else loss + tf.cast(nest.dot(own, tangents), loss.dtype)
        return {"loss": tf.cast(loss, one.dtype), "outputs": pushed}

    def pull(cotangents):
        arriving, loss = cotangents["outputs"], cotangents["loss"]
        if loss is not None:
            pairs = zip(slope(loss), arriving, strict=True)
            arriving = [s if c is None else s + c for s, c in pairs]
        arriving = [
            tf.zeros_like(y) if c is None else c for y, c in zip(leaves, arriving, strict=True)
        ]

        def add(i, total):
            def of_block(v):
                return model_pass.leaves_of_block(i, v)

            _, pull_block = double_gradient.pullback(of_block, values, call="GaussNewton")
            parts = [model_pass.part(i, c) for c in arriving]
            return i + 1, nest.add(total, pull_block(parts))

        own = None if loss is None else pull_beside(loss)
        start = nest.zeros_like(values) if own is None else own
        _, total = tf.while_loop(
            lambda i, _: i < model_pass.blocks, add, (tf.constant(0), start), parallel_iterations=1
        )
        return total

    return LinearMap(push, pull, nest.spec(values), nest.spec(result))
