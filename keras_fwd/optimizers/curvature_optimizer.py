"""`CurvatureOptimizer`: the training step that second-order optimizers share.

A direction from the curvature on the batch, a trial step on the same batch with the same dropout
mask, accepted or rejected by the reduction ratio; the damping follows. The model is only changed
once the step is accepted: until then it is called as a function of its weights.
"""

import functools
import weakref
from typing import Any, NoReturn

import keras
import tensorflow as tf

from keras_fwd._checks import check_count, check_number
from keras_fwd._models.training_pass import Recorder, TrainingPass, loss_tracker
from keras_fwd._spaces import nest
from keras_fwd.errors import ConfigurationError, NumericalError
from keras_fwd.optimizers._steps import keras_hooks, replicas
from keras_fwd.optimizers._steps import keras_hooks as loss_scale
from keras_fwd.optimizers._steps.convergence import LastStep
from keras_fwd.optimizers._steps.damping import Nielsen
from keras_fwd.optimizers._steps.expansion import Expansion
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

    A subclass gives `linear_system(model_pass, expansion)`: the object whose `solve(damping)`
    returns the direction for one batch.

    Args:
        learning_rate: Factor on the direction; a float, a schedule or a callable.
        damping: Initial damping `λ`; adapted after every step.
        max_trials: How often a rejected step is tried again on its batch, with more damping.
        name: Name of the optimizer.
        **kwargs: Of `keras.optimizers.Optimizer`.
    """

    #: Batches in a row without a finite loss, gradient and direction, after which training stops.
    patience = 20
    #: Whether the gradient may come from a loss that is scaled for half precision.
    takes_loss_scale = False
    #: The smallest `max_trials`.
    least_trials = 1
    #: Whether several replicas take the step that one would take with the whole batch.
    works_on_replicas = False
    #: Whether the trials of a step are measured for the tests of convergence.
    measures_progress = False

    def __init__(
        self, learning_rate: LearningRate, damping: float, max_trials: int, name: str, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        check_number(type(self).__name__, "damping", damping)
        check_count(type(self).__name__, "max_trials", max_trials, self.least_trials)
        self.initial_damping: float = float(damping)
        self.max_trials: int = int(max_trials)
        scalar = functools.partial(self.add_variable, shape=(), dtype="float32")
        constant = keras.initializers.Constant
        self.damping: Variable = scalar(name="damping", initializer=constant(self.initial_damping))
        self._growth = scalar(name="damping_growth", initializer=constant(2.0))
        self._watch = Watch(self)
        self._record = LastStep(self)
        self._passes = weakref.WeakKeyDictionary()
        keras_hooks.install(CurvatureOptimizer)

    @property
    def nonfinite_steps(self) -> int:
        """How many batches had no finite loss, gradient and direction, as a Python integer."""
        return int(self._watch.total.numpy())

    @property
    def status(self) -> StepReport:
        """How the step on the last batch ended: prints as a sentence, `status.code` is an enum."""
        return self._record.report()

    @property
    def tolerances(self) -> Variable:
        """Bounds of the tests of convergence that `status` tells of: a variable of `[3]`.

        Of the reduction, the step and the cosine; below zero for 8 machine epsilons.
        """
        return self._record.tolerances

    def linear_system(self, model_pass: Any, expansion: Any) -> Any:
        """The system to solve for the direction on this batch."""
        raise NotImplementedError

    def new_pass(self, model: keras.Model) -> Any:
        """The `TrainingPass` of a model."""
        return TrainingPass(model)

    def expansion(self, model_pass: Any) -> Any:
        """The loss of the batch to second order."""
        return Expansion(model_pass)

    def predicted_change(self, expansion: Any, system: Any, step: Any) -> Tensor:
        """Of the loss by the quadratic model, for the step that `system` solved for last.

        This replica's share of it.
        """
        del system
        return expansion.predicted_change(step)

    def step_from(self, expansion: Any, system: Any, solution: Any) -> Any:
        """The step for a solution of the linear system, a list like the weights."""
        del expansion, system
        return nest.scale(-tf.cast(self.learning_rate, tf.float32), solution.value)

    def curved(self, expansion: Any, system: Any, step: Any, damping: Tensor) -> Any:
        """The step as it is tried, from that of the quadratic model; and whether it is refused."""
        del expansion, system, damping
        return step, tf.constant(False)

    def trial_loss(self, model_pass: Any, system: Any, values: list[Tensor]) -> Tensor:
        """The loss at other values of the weights, on this replica's share or a part of it."""
        del system
        return model_pass(values)["loss"]

    def beyond_trial(self, expansion: Any, system: Any) -> Any:
        """What the trial's loss leaves out of the batch's, for the step solved for last."""
        del system
        return tf.zeros_like(expansion.loss)

    def control(self, system: Any) -> Any:
        """What governs the length of the steps on a batch."""
        return Nielsen(self.damping, self._growth, system)

    def next_damping(self, expansion: Any, search: Any) -> Tensor:
        """The damping of the next step, from how the trials of this one went."""
        del expansion
        return search["damping"]

    def take_step(self, model_pass: Any, expansion: Any, search: Any) -> None:
        """Give the weights their new values, which `search` holds."""
        del expansion
        for variable, value in zip(model_pass.variables, search["values"], strict=True):
            variable.assign(value)
        if self.use_ema:
            keras_hooks.follow_averages(self)

    def step_number(self) -> Tensor:
        """How many steps were taken, an int32 scalar."""
        return tf.cast(tf.convert_to_tensor(self.iterations), tf.int32)

    def moved(self, model_pass: Any, expansion: Any, step: Any) -> Any:
        """The weights after a step, inside their constraints."""
        pairs = zip(model_pass.variables, nest.add(expansion.values, step), strict=True)
        return [value if v.constraint is None else v.constraint(value) for v, value in pairs]

    def taken(self, model_pass: Any, expansion: Any, step: Any, values: Any) -> Any:
        """The step that the loss is predicted for, where constraints led to these values."""
        return step

    def step_logs(self, search: Any) -> dict[str, Tensor]:
        """What the logs tell of the step, besides the damping."""
        return {
            "reduction_ratio": search["ratio"],
            "solver_iterations": tf.cast(search["iterations"], tf.float32),
        }

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

    @tf.autograph.experimental.do_not_convert
    def train_step(self, model: keras.Model, data: Nest) -> dict[str, Tensor]:
        """One training step on a batch, for `fit` or for a `train_step` of one's own.

        Args:
            model: The compiled `keras.Model`.
            data: The batch as `fit` gives it: `x`, `(x, y)` or `(x, y, sample_weight)`.

        Returns:
            Dict of scalars for the logs: the model's metrics, `damping`, `reduction_ratio` (−inf
            when no trial gave a finite loss) and `solver_iterations`.
        """
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
        expansion, search = self.advance(model_pass)
        loss_scale.follow(scaler, expansion.finite)
        return self._logs(model_pass, expansion, search)

    def advance(self, model_pass: Any) -> Any:
        """One step on the batch of a pass: its `Expansion`, and what the `Search` found."""
        expansion = self.expansion(model_pass)
        outputs, recorder = model_pass.outputs, model_pass.recorder
        check_updates(self, model_pass.variables, recorder.updated)
        system = self.linear_system(model_pass, expansion)
        search = self._search(model_pass, expansion, system)
        model_pass.outputs, model_pass.recorder = outputs, recorder
        self.damping.assign(self.next_damping(expansion, search))
        self.take_step(model_pass, expansion, search)
        recorder.commit(search["accepted"])
        for name, variable in self.control(system).variables.items():
            if name in search and variable is not self.damping:
                variable.assign(search[name])
        unsolved = ~search["accepted"] & ~search.get("solved", search["accepted"])
        self._watch.update(model_pass, expansion, unsolved)
        self._record.update(expansion, search)
        self._iterations.assign_add(1)
        return expansion, search

    def _pass_of(self, model):
        """One object for a model, so that a function that was checked once is known again."""
        mine = self._passes.setdefault(model, {})  # one for each replica: they trace in turns
        known = mine.get(replicas.index())
        variables = list(model.trainable_variables)
        if known is None or [*map(id, known.variables)] != [*map(id, variables)]:
            known = mine[replicas.index()] = self.new_pass(model)
        return known

    def _search(self, model_pass, expansion, system):
        """Try directions with rising damping until one is accepted; see `Search`."""
        return Search(self, model_pass, expansion, system).judged()

    def _logs(self, model_pass, expansion, search):
        """The logs of this batch; its metrics are kept only if the step was."""
        measured, recorder = model_pass.metrics(expansion.loss)  # first: it may build metrics
        before = model_pass.model.get_metrics_result()
        tracker = loss_tracker(model_pass.model)
        if tracker is not None:  # nothing averaged yet: the batch's own loss is what there is
            empty = tf.equal(tracker.count.value, 0)
            mean = tf.convert_to_tensor(before["loss"])  # Keras 3.9 has floats in eager code
            before["loss"] = tf.where(empty, tf.cast(expansion.loss, mean.dtype), mean)
        recorder.commit(search["accepted"])
        keep = functools.partial(tf.where, expansion.finite)
        return {
            **tf.nest.map_structure(keep, measured, before),
            "damping": tf.identity(self.damping.value),
            **self.step_logs(search),
        }

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
