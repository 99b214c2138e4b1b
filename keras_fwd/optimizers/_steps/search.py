"""The search for a step: directions with rising damping, tried on their batch until one is good."""

import functools

import tensorflow as tf

from keras_fwd._linear_algebra.solution import Status
from keras_fwd._spaces import nest
from keras_fwd.optimizers._steps import convergence, replicas
from keras_fwd.optimizers._steps import damping as control
from keras_fwd.optimizers._steps.expansion import Expansion
from keras_fwd.optimizers._steps.parts import Outcome, Parts, Progress, Values


class ByReduction:
    """A trial is good if the loss falls by enough of what was predicted.

    Args:
        expansion: The `Expansion` of the batch.
    """

    def __init__(self, expansion: Expansion) -> None:
        self._expansion = expansion

    def start(self) -> Progress | tuple[()]:
        """Nothing is measured beside the reduction."""
        return ()

    def slope(self, step: Values) -> tuple[tf.Tensor, ...]:
        """Not asked for."""
        del step
        return ()

    def ratio(
        self, after: tf.Tensor, predicted: tf.Tensor, first: tf.Tensor, bent: tf.Tensor
    ) -> tf.Tensor:
        """Actual over predicted reduction; at most 0 for a step that bends too much."""
        ratio = control.reduction_ratio(self._expansion.loss, after, predicted, first)
        return tf.where(bent, tf.minimum(ratio, 0), ratio)

    def measured(
        self,
        progress: Progress | tuple[()],
        after: tf.Tensor,
        ratio: tf.Tensor,
        slope: tuple[tf.Tensor, ...],
        predicted: tf.Tensor,
        values: Values,
    ) -> Progress | tuple[()]:
        """Still nothing."""
        del after, ratio, slope, predicted, values
        return progress

    def logs(self, outcome: Outcome) -> dict[str, tf.Tensor]:
        """The reduction ratio."""
        return {"reduction_ratio": outcome.ratio}


class ByConvergence(ByReduction):
    """The same, and each trial is measured for the tests of convergence."""

    def start(self) -> Progress | tuple[()]:
        """Before the first trial."""
        return Progress(*map(tf.constant, convergence.UNTRIED))

    def slope(self, step: Values) -> tuple[tf.Tensor, ...]:
        """`⟨g, s⟩`."""
        return (nest.dot(self._expansion.gradient, step),)

    def measured(
        self,
        progress: Progress | tuple[()],
        after: tf.Tensor,
        ratio: tf.Tensor,
        slope: tuple[tf.Tensor, ...],
        predicted: tf.Tensor,
        values: Values,
    ) -> Progress | tuple[()]:
        """The largest of what the trials measured."""
        losses = self._expansion.loss, after, ratio
        return convergence.after_trial(
            progress, *losses, slope[0], predicted, values, self._expansion.values
        )

    def logs(self, outcome: Outcome) -> dict[str, tf.Tensor]:
        """The reduction ratio, and how long it took to solve for the directions."""
        iterations = tf.cast(outcome.iterations, tf.float32)
        return {**super().logs(outcome), "solver_iterations": iterations}


class Unjudged(ByReduction):
    """Every step is taken."""

    def logs(self, outcome: Outcome) -> dict[str, tf.Tensor]:
        """Nothing: no step is judged."""
        del outcome
        return {}


class Search:
    """The trials of one batch; all of it tensors.

    Args:
        parts: The `Parts` of the step.
        max_trials: Bound on the trials; with 0 the first step is taken as it is.
    """

    def __init__(self, parts: Parts, max_trials: int) -> None:
        self._parts = parts
        self._max_trials = max_trials

    def outcome(self) -> Outcome:
        """The first step that is good enough, or none."""
        if self._max_trials == 0:
            return self._unjudged()
        if replicas.count() > 1:
            return self._judged_by_all()

        def trial(outcome):
            proposal = self._propose(outcome.control)
            return (self._judge(outcome, proposal, proposal["after"]),)

        (final,) = tf.while_loop(self._needed, trial, (self._start(),))
        return final

    def _needed(self, outcome):
        more = outcome.trials < self._max_trials
        return more & self._parts.expansion.finite & ~outcome.accepted

    def _judged_by_all(self):
        """As `outcome`, in several replicas: no loop, for a trial's loss is a sum over them."""
        function = tf.function(self._propose, autograph=False)  # traced once for all trials
        specs = {
            name: tf.TensorSpec(variable.shape, variable.dtype)
            for name, variable in self._parts.control.variables.items()
        }
        propose = function.get_concrete_function(specs)

        def trial(outcome):
            more = self._needed(outcome)
            proposal = tf.cond(more, lambda: propose(outcome.control), self._nothing)
            shares = [proposal["after"], proposal["predicted"]]
            after, proposal["predicted"] = replicas.sums(shares)
            # Equal but for rounding in all replicas; made equal, for decisions hang on them.
            proposal["facts"] = tuple(replicas.first(proposal["facts"]))
            return tf.cond(more, lambda: self._judge(outcome, proposal, after), lambda: outcome)

        outcome = self._start()
        for _ in range(self._max_trials):
            outcome = trial(outcome)
        return outcome

    def _nothing(self):
        """In the place of a proposal that is not needed."""
        expansion = self._parts.expansion
        return {
            "values": expansion.values,
            "after": tf.zeros_like(expansion.loss),
            "beyond": tf.zeros_like(expansion.loss),
            "predicted": tf.zeros([], nest.accumulator_dtype(expansion.values)),
            "bent": tf.constant(False),
            "iterations": tf.constant(0),
            "facts": self._parts.control.nothing(),
            "solved": tf.constant(True),
            "slope": self._parts.judgement.slope(expansion.values),
        }

    def _unjudged(self):
        """The step with the present damping, taken as it is."""
        parts, expansion = self._parts, self._parts.expansion
        solution = parts.system.solve(parts.control.variables["damping"].value)
        values = parts.trial.moved(parts.direction.step(solution))
        good = expansion.finite & nest.all_finite(values)
        keep = functools.partial(tf.where, good)
        kept = nest.map_live(keep, values, expansion.values)
        # No state of the control: nothing was tried that could change it.
        return self._start()._replace(accepted=good, solved=good, values=kept, control={})

    def _start(self):
        expansion = self._parts.expansion
        # A gradient that overflowed by its scale alone says nothing against the damping.
        sound = expansion.finite | expansion.overflowed
        return Outcome(
            trials=tf.constant(0),
            accepted=tf.constant(False),
            solved=tf.constant(True),
            values=expansion.values,
            loss=expansion.loss,
            ratio=tf.constant(-float("inf")),
            iterations=tf.constant(0),
            control=self._parts.control.start(sound),
            progress=self._parts.judgement.start(),
        )

    def _propose(self, state):
        """New weights; the loss there, and its predicted decrease: of this replica's share."""
        parts = self._parts
        solution, damping, facts = parts.control.solve(state)
        straight = parts.direction.step(solution)
        reached = parts.trial.moved(straight)
        step, bent = parts.direction.curved(straight, damping)
        values = reached if step is straight else parts.trial.moved(step)
        # The quadratic model knows nothing of a curve: it judges the straight step.
        step = parts.trial.taken(straight, reached)
        return {
            "values": values,
            "after": parts.trial.loss(values),
            "beyond": parts.trial.beyond(solution),
            "predicted": -parts.direction.predicted_change(step, solution),
            "bent": bent,
            "iterations": solution.iterations,
            "facts": facts,
            "solved": tf.not_equal(solution.status, int(Status.NOT_FINITE)),
            "slope": parts.judgement.slope(step),
        }

    def _judge(self, outcome, proposal, after):
        """The outcome after a trial, from the loss `after` it."""
        parts, expansion = self._parts, self._parts.expansion
        values, predicted = proposal["values"], proposal["predicted"]
        after += proposal["beyond"]
        first = tf.equal(outcome.trials, 0)
        ratio = parts.judgement.ratio(after, predicted, first, proposal["bent"])
        solved = proposal["solved"] & nest.all_finite(values)
        accepted = (ratio > control.ACCEPT) & solved
        keep = functools.partial(tf.where, accepted)
        return Outcome(
            trials=outcome.trials + 1,
            accepted=accepted,
            solved=solved,
            values=nest.map_live(keep, values, expansion.values),
            loss=keep(after, expansion.loss),
            ratio=tf.cast(ratio, tf.float32),
            iterations=outcome.iterations + proposal["iterations"],
            control=parts.control.next(
                outcome.control, proposal["facts"], ratio, accepted, expansion.loss, after
            ),
            progress=parts.judgement.measured(
                outcome.progress, after, ratio, proposal["slope"], predicted, values
            ),
        )
