"""`CurvatureOptimizer`: the training step that second-order optimizers share.

A direction from the curvature on the batch, a trial step on the same batch with the same dropout
mask, accepted or rejected by the reduction ratio; the damping follows. The model is only changed
once the step is accepted: until then it is called as a function of its weights.
"""

import functools
import weakref
from typing import Any, NoReturn, final

import keras
import tensorflow as tf

from keras_fwd._checks import check_count, check_number
from keras_fwd._models.training_pass import Recorder, TrainingPass, loss_tracker
from keras_fwd.errors import ConfigurationError, NumericalError
from keras_fwd.optimizers._steps import keras_hooks, replicas
from keras_fwd.optimizers._steps.convergence import LastStep
from keras_fwd.optimizers._steps.expansion import Expansion, expand
from keras_fwd.optimizers._steps.parts import Outcome, Parts, Pass, Solved
from keras_fwd.optimizers._steps.search import Search
from keras_fwd.optimizers._steps.training_checks import (
    check_replicas,
    check_training,
    check_updates,
)
from keras_fwd.optimizers._steps.watch import Watch
from keras_fwd.optimizers.step_report import StepReport
from keras_fwd.typing import Function, LearningRate, Nest, Tensor, Variable


class CurvatureOptimizer(keras.optimizers.Optimizer):
    """Base class of optimizers that use curvature and plug into stock `fit`.

    A step is *expansion → system → direction → control → trial → judgement*. A subclass chooses
    these parts for a batch in `parts(model_pass, expansion)`, and may also say how a model becomes
    a pass (`new_pass`), what is asked of the batch (`expand`), what is done with the outcome
    (`take`), and whether `works_on_replicas`: nothing else is there to override.

    Args:
        learning_rate: Factor on the direction; a float, a schedule or a callable.
        damping: Initial damping `λ`; adapted after every step.
        max_trials: How often a rejected step is tried again on its batch, with more damping; where
            0 is allowed, it stands for taking every step.
        name: Name of the optimizer.
        least_trials: The smallest `max_trials` that is allowed.
        **kwargs: Of `keras.optimizers.Optimizer`.
    """

    #: Whether several replicas take the step that one would take with the whole batch.
    works_on_replicas = False

    def __init__(
        self,
        learning_rate: LearningRate,
        damping: float,
        max_trials: int,
        name: str,
        least_trials: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        check_number(type(self).__name__, "damping", damping)
        check_count(type(self).__name__, "max_trials", max_trials, least_trials)
        #: Batches in a row without a finite loss, gradient and direction, that end training.
        self.patience: int = 20
        self.initial_damping: float = float(damping)
        self.max_trials: int = int(max_trials)
        scalar = functools.partial(self.add_variable, shape=(), dtype="float32")
        constant = keras.initializers.Constant
        self.damping: Variable = scalar(name="damping", initializer=constant(self.initial_damping))
        self._growth: Variable = scalar(name="damping_growth", initializer=constant(2.0))
        self._watch = Watch(self)
        self._record = LastStep(self)
        self._passes = weakref.WeakKeyDictionary()
        self._needs_graph = False  # whether a step in eager code is compiled by itself
        self._graph_step = keras_hooks.GraphStep(self._train_step)
        keras_hooks.install(CurvatureOptimizer)

    @property
    @final
    def nonfinite_steps(self) -> int:
        """How many batches had no finite loss, gradient and direction, as a Python integer."""
        return int(self._watch.total.numpy())

    @property
    @final
    def status(self) -> StepReport:
        """How the step on the last batch ended: prints as a sentence, `status.code` is an enum."""
        return self._record.report()

    @property
    @final
    def tolerances(self) -> Variable:
        """Bounds of the tests of convergence that `status` tells of: a variable of `[3]`.

        Of the reduction, the step and the cosine; below zero for 8 machine epsilons.
        """
        return self._record.tolerances

    def new_pass(self, model: keras.Model) -> TrainingPass:
        """A model as a function of its weights: a `TrainingPass`, made once for each model."""
        return TrainingPass(model)

    def expand(self, model_pass: Pass) -> Expansion:
        """The loss of the batch to second order."""
        return expand(model_pass, scale=model_pass.loss_scale)

    def parts(self, model_pass: Pass, expansion: Expansion) -> Parts[Solved]:
        """The parts of the step on a batch."""
        raise NotImplementedError

    def take(self, model_pass: Pass, parts: Parts[Solved], outcome: Outcome) -> None:
        """Give the weights their new values."""
        del parts
        for variable, value in zip(model_pass.variables, outcome.values, strict=True):
            variable.assign(value)
        if self.use_ema:
            keras_hooks.follow_averages(self)

    @final
    def step_number(self) -> Tensor:
        """How many steps were taken, an int32 scalar."""
        return tf.cast(tf.convert_to_tensor(self.iterations), tf.int32)

    def apply(self, grads: Any, trainable_variables: Any = None) -> NoReturn:
        """Refused: a gradient alone is not enough for a curvature optimizer.

        Raises:
            ConfigurationError: always; says which call to make instead.
        """
        raise ConfigurationError(
            f"{type(self).__name__} needs the batch and the model, not gradients: in a "
            "`train_step` of your own, replace the tape and `optimizer.apply_gradients(…)` by\n\n"
            "    return self.optimizer.train_step(self, data)\n\n"
            "or call `super().train_step(data)`. Received: a call of `apply_gradients`."
        )

    def apply_gradients(self, grads_and_vars: Any, **kwargs: Any) -> NoReturn:
        """Refused, as `apply`."""
        del kwargs
        self.apply(grads_and_vars)

    @final
    def train_step(self, model: keras.Model, data: Nest) -> dict[str, Tensor]:
        """One training step on a batch, for `fit` or for a `train_step` of one's own.

        Args:
            model: The compiled `keras.Model`.
            data: The batch as `fit` gives it: `x`, `(x, y)` or `(x, y, sample_weight)`.

        Returns:
            Dict of scalars for the logs: the model's metrics, `damping`, `reduction_ratio` (−inf
            when no trial gave a finite loss) and `solver_iterations`, where there are any.
        """
        if not self._needs_graph:
            return self._train_step(model, data)
        if tf.executing_eagerly():
            check_replicas(self, model)  # before a graph is made, where the answer would differ
        return self._graph_step(model, data)

    @tf.autograph.experimental.do_not_convert
    def _train_step(self, model, data):
        batch = tf.nest.map_structure(
            lambda leaf: leaf if leaf is None else tf.convert_to_tensor(leaf),
            keras.utils.unpack_x_y_sample_weight(data),
        )
        check_replicas(self, model)
        if not model.built:
            with Recorder([], []):  # makes the weights, and changes nothing else
                model(batch[0], training=False)
        check_training(self, model, batch)
        scaler = keras_hooks.scaler_of(model)
        if not self.built or (scaler and not scaler.built):
            replicas.once(lambda: (scaler or self).build(model.trainable_variables))
        model_pass = self._pass_of(model)
        model_pass.batch = batch
        model_pass.loss_scale = keras_hooks.scale_of(scaler)
        parts, outcome = self.advance(model_pass)
        keras_hooks.follow_scale(scaler, parts.expansion.finite)
        return self._logs(model_pass, parts, outcome)

    @final
    def advance(self, model_pass: Pass) -> tuple[Parts[Solved], Outcome]:
        """One step on the batch of a pass: its parts, and how the search among them ended."""
        expansion = self.expand(model_pass)
        # Trials call the pass again: what the batch itself came to is kept aside.
        outputs, recorder = model_pass.outputs, model_pass.recorder
        check_updates(self, model_pass.variables, recorder.updated)
        parts = self.parts(model_pass, expansion)
        outcome = Search(parts, self.max_trials).outcome()
        model_pass.outputs, model_pass.recorder = outputs, recorder
        settled = parts.control.settled(outcome)
        for name, variable in parts.control.variables.items():
            if name in settled:
                variable.assign(settled[name])
        self.take(model_pass, parts, outcome)
        recorder.commit(outcome.accepted)
        unsolved = tf.logical_not(outcome.accepted | outcome.solved)
        self._watch.update(model_pass, expansion, unsolved)
        self._record.update(expansion, outcome)
        # Last: seeds and schedules of this step are those of the number that it started with.
        self._iterations.assign_add(1)
        return parts, outcome

    def _pass_of(self, model):
        """One object for a model, so that a function that was checked once is known again."""
        mine = self._passes.setdefault(model, {})  # one for each replica: they trace in turns
        known = mine.get(replicas.index())
        variables = list(model.trainable_variables)
        if known is None or [*map(id, known.variables)] != [*map(id, variables)]:
            known = mine[replicas.index()] = self.new_pass(model)
        return known

    def _logs(self, model_pass, parts, outcome):
        """The logs of this batch; its metrics are kept only if the step was."""
        expansion = parts.expansion
        measured, recorder = model_pass.metrics(expansion.loss)  # first: it may build metrics
        before = model_pass.model.get_metrics_result()
        tracker = loss_tracker(model_pass.model)
        if tracker is not None:  # nothing averaged yet: the batch's own loss is what there is
            empty = tf.equal(tracker.count.value, 0)
            mean = tf.convert_to_tensor(before["loss"])  # Keras 3.9 has floats in eager code
            before["loss"] = tf.where(empty, tf.cast(expansion.loss, mean.dtype), mean)
        recorder.commit(outcome.accepted)
        keep = functools.partial(tf.where, expansion.finite)
        return {
            **tf.nest.map_structure(keep, measured, before),
            "damping": tf.identity(self.damping.value),
            **parts.judgement.logs(outcome),
        }

    @final
    def watched(self, train_function: Function) -> Function:
        """The compiled step of `fit`, which stops when too many batches in a row failed.

        An error cannot be raised from inside a compiled step; here, between two of them, it can.
        """

        @functools.wraps(train_function)
        def function(iterator):
            try:
                logs = train_function(iterator)
            except (StopIteration, tf.errors.OutOfRangeError):
                if not function.started:
                    raise ConfigurationError(
                        f"{type(self).__name__}: the training data must hold at least one example. "
                        "Received: data with none."
                    ) from None
                raise
            function.started = True
            self._watch.check(self.patience, type(self).__name__, NumericalError)
            failed = self.nonfinite_steps
            return {**logs, "nonfinite_steps": failed} if failed else logs

        function.started = False
        function.keras_fwd_watched = True
        return function

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = super().get_config()
        return {
            "name": config["name"],
            "learning_rate": config["learning_rate"],
            "damping": self.initial_damping,
            "max_trials": self.max_trials,
        }
