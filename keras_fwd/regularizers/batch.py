"""`Batch` and `LossBatch`: what a penalty on derivatives is given."""

from typing import Any

import keras
import tensorflow as tf

from keras_fwd._derivatives import double_gradient, example_jacobians
from keras_fwd._models import model_losses
from keras_fwd._models.training_pass import Recorder
from keras_fwd._models.wrapping import check_floating, options
from keras_fwd._spaces import given, nest
from keras_fwd._spaces.linear_map import LinearMap
from keras_fwd.regularizers.examples import root, scale_examples, squared_norms
from keras_fwd.typing import Nest, Tensor, TensorLike, Variable


class Replay:
    """A layer as a function of its inputs, which can run again with the same random numbers.

    Attributes:
        outputs: What the layer returned in the last `run`, with the marks that Keras leaves on it.
    """

    def __init__(self, layer: keras.layers.Layer, training: bool, mask: Nest | None = None) -> None:
        self.layer = layer
        self.outputs: Any = None
        self._given = options(layer, training, mask)
        self._state = [v for v in layer.variables if not v.trainable]
        self._before = [tf.identity(v.value) for v in self._state]
        self._eager = tf.executing_eagerly()

    def run(self, inputs: Nest) -> Nest:
        """The outputs; statistics and seeds are updated."""
        if self._eager and not tf.executing_eagerly():
            return self.again(inputs)  # only looked through for leaks: nothing may stay of it
        self.outputs = self.layer(inputs, **self._given)
        return self.outputs

    def again(self, inputs: Nest) -> Nest:
        """The outputs from the state before the first run; nothing is updated."""
        with Recorder(self._state, self._before):
            return self.layer(inputs, **self._given)


class Batch:
    """One batch, what a layer returns for it, and its Jacobian there.

    Where a layer mixes examples (batch normalization in training), no example has a Jacobian of
    its own. Directions of different examples then get independent signs, so that what is measured
    is, in the mean over the signs, the derivatives of an example's outputs by the whole batch.

    Attributes:
        inputs: Nest of tensors.
        outputs: Nest of tensors.
        jacobian: The `LinearMap` from `inside` to `outside`, all examples at once.
        inside: The inputs, with None where there is no derivative.
        outside: The same for the outputs.
        replay: The layer, which can run again.
        memory: Dict of variables carried from step to step; empty outside of training.

    Example: `SensitivityRegularizer`.
    """

    def __init__(
        self,
        call: str,
        replay: Replay,
        inputs: Nest,
        seed: TensorLike,
        memory: dict[str, Variable] | None = None,
    ) -> None:
        self.call = call
        self.replay = replay
        self.inputs: Nest = _as_tensors(call, replay.layer, inputs)
        self.memory: dict[str, Variable] = memory or {}
        self._seed = seed
        self._differentiate()

    def _differentiate(self):
        self.jacobian: LinearMap
        outputs, self.jacobian = double_gradient.linearize(self.replay.run, self.inputs)
        self.outputs: Nest = self.replay.outputs
        self.inside: Nest = example_jacobians.carriers(self.inputs, self.jacobian.in_spec)
        self.outside: Nest = example_jacobians.carriers(outputs, self.jacobian.out_spec)
        example_jacobians.check_batch(self.inside, self.outside)

    @property
    def size(self) -> Tensor:
        """How many examples there are, a scalar tensor."""
        return tf.shape(nest.live(self.inside)[0])[0]

    @property
    def dtype(self) -> tf.DType:
        """That in which norms are taken: at least float32."""
        return nest.accumulator_dtype(self.inside)

    def seed(self, number: TensorLike) -> Tensor:
        """A pair of integers for stateless random numbers; another for each number."""
        return tf.stack([tf.cast(self._seed, tf.int64), tf.cast(number, tf.int64)])

    def from_smaller_side(self, scales: Nest | None = None) -> tuple[LinearMap, Nest]:
        """`(map, space)`: J or Jᵀ, whichever starts from fewer components for each example.

        Args:
            scales: Nest like `inside` of factors on the inputs' directions, or None.
        """
        J = self.jacobian
        if scales is not None:
            J = J @ _scaling(scales, J.in_spec)
        columns, rows = (
            example_jacobians.example_size(self.inside),
            example_jacobians.example_size(self.outside),
        )
        inside = rows is None or (columns is not None and columns <= rows)
        return (J, self.inside) if inside else (J.T, self.outside)

    def random(self, space: Nest, seed: Tensor) -> Nest:
        """For each example a vector u, uniform on a sphere, with E u uᵀ = I."""
        u = nest.random_like(space, seed)
        length = root(squared_norms(u))
        count = sum(
            tf.size(v) / tf.maximum(tf.shape(v)[0], 1) for v in nest.live(space)
        )  # int / int is float64
        return scale_examples(tf.sqrt(tf.cast(count, length.dtype)) / length, u)

    def basis(self, space: Nest, index: TensorLike, signs: Tensor) -> Nest:
        """The basis vector of that index for each example, times the example's sign."""
        width = example_jacobians.example_size(space)
        rows = tf.one_hot(index, width, dtype=signs.dtype) * signs[:, None]
        return example_jacobians.split(rows, space)

    def signs(self, space: Nest, seed: Tensor) -> Tensor:
        """±1 for each example, at random."""
        bits = tf.random.stateless_uniform([self.size], seed, 0, 2, tf.int32)
        return tf.cast(2 * bits - 1, nest.accumulator_dtype(space))


class LossBatch(Batch):
    """One batch and the derivative of each example's loss by its inputs.

    Attributes:
        gradient: Nest like `inside`, once `take_loss` was called.
        losses: The loss of each example, `[batch]`.

    Example: `SensitivityRegularizer`.
    """

    def _differentiate(self):
        self.gradient: Any = None
        self.losses: Any = None
        self._losses_of: Any = None
        self._model: Any = None
        _, self._pull = self._pullback(self.replay.run)
        self.outputs: Nest = self.replay.outputs
        self.inside: Nest = nest.map_live(
            lambda x: x if nest.is_differentiable(x.dtype) else None, self.inputs
        )

    def _pullback(self, run, inputs=None):
        """The outputs, and the pullback of cotangents of outputs and logits."""
        made = []

        def function(x):
            outputs = run(x)
            made.append(outputs)
            leaves = nest.flatten(outputs)
            # Both, for it is known only with the loss which of the two it is differentiated by.
            return leaves, [getattr(leaf, "_keras_logits", leaf) for leaf in leaves]

        inputs = self.inputs if inputs is None else inputs
        _, pull = double_gradient.pullback(function, inputs, call=self.call)
        return made[-1], pull

    def resolve_losses(self, model: keras.Model, targets: Nest) -> None:
        """Resolve what `compile` was given, as `fit` does in its first step; nothing is updated."""
        with Recorder([], []):
            keras.Model.compute_loss(model, self.inputs, targets, self.outputs)

    def take_loss(
        self, model: keras.Model, targets: Nest, sample_weight: Nest | None = None
    ) -> None:
        """Take the losses that a model was compiled with, and that are resolved."""

        def losses_of(outputs):
            return model_losses.example_losses(model, outputs, targets, sample_weight)

        self._model = model
        self._losses_of = losses_of
        self.losses, self.gradient = self._gradient(self.outputs, self._pull)

    def losses_at(self, inputs: Nest) -> Tensor:
        """The loss of each example at other inputs, with the same random numbers."""
        return self._losses_of(self.replay.again(inputs))

    def gradient_at(self, inputs: Nest) -> Nest:
        """The derivative of each example's loss at other inputs, with the same random numbers."""
        return self._gradient(*self._pullback(self.replay.again, inputs))[1]

    def _gradient(self, outputs, pull):
        """The losses, and their derivative by what `pull` pulls back to.

        Cross-entropies are differentiated by the logits, as Keras does: by the probabilities, what
        is clipped there would have no derivative.
        """
        leaves, kinds = nest.flatten(outputs), model_losses.leaf_losses(self._model, outputs)
        pairs = zip(kinds, leaves, strict=True)
        live = [kind is not None and nest.is_differentiable(y.dtype) for kind, y in pairs]
        starts = [model_losses.curvature_leaf(*pair) for pair in zip(leaves, kinds, strict=True)]

        def losses_of(moving):
            moving = iter(moving)
            now = [next(moving) if on else start for on, start in zip(live, starts, strict=True)]
            made = [model_losses.model_output(*t) for t in zip(now, leaves, kinds, strict=True)]
            return self._losses_of(nest.pack(outputs, made))

        moving = [start for on, start in zip(live, starts, strict=True) if on]
        values, slope = double_gradient.pullback(losses_of, moving, call=self.call)
        slopes = iter(slope(tf.ones_like(values)))
        by_outputs, by_logits = [], []
        for on, start, leaf in zip(live, starts, leaves, strict=True):
            cotangent = next(slopes) if on else None
            by_outputs.append(cotangent if start is leaf else None)
            by_logits.append(None if start is leaf else cotangent)
        return values, pull((by_outputs, by_logits))


def measure(call, layer, inputs, training, seed, of_the_loss=False):
    """The batch for one measurement, outside of training."""
    replay = Replay(layer, training)
    return (LossBatch if of_the_loss else Batch)(call, replay, inputs, seed)


def _as_tensors(call, layer, inputs):
    """The inputs as tensors, of which one at least is floating-point."""
    tensors = [
        given.to_tensor(call, f"inputs{path}", leaf)
        for path, leaf in zip(nest.paths(inputs), nest.flatten(inputs), strict=True)
    ]
    inputs = nest.pack(inputs, tensors)
    check_floating(call, inputs, layer, "SensitivityPenalty(layer, regularizer)")
    return inputs


def _scaling(scales, spec):
    """The diagonal map of the inputs' space with these factors."""

    def mv(x):
        return nest.map_live(lambda s, v: tf.cast(s, v.dtype) * v, scales, x)

    return LinearMap(mv, mv, spec, spec)
