"""The search for a step: directions with rising damping, tried on their batch."""

import functools

import tensorflow as tf

from keras_fwd import nest
from keras_fwd.optimizers import damping as control
from keras_fwd.optimizers import replicas


class Search:
    """The trials of one batch; all of it tensors.

    What comes out is a dict: `trials`, `accepted`, the `values` of the weights, the `damping` and
    the `growth` that the optimizer goes on with, the `ratio` of the last trial, and `iterations` of
    the solver.

    Args:
        optimizer: A `CurvatureOptimizer`.
        model_pass: The `TrainingPass` of the batch.
        expansion: Its `Expansion`.
        system: What the optimizer's `linear_system` returned.
    """

    def __init__(self, optimizer, model_pass, expansion, system):
        self._optimizer = optimizer
        self._pass = model_pass
        self._expansion = expansion
        self._system = system

    def judged(self):
        """The first step that lowers the loss enough."""

        def needed(state):
            more = state["trials"] < self._optimizer.max_trials
            return more & self._expansion.finite & ~state["accepted"]

        if replicas.count() > 1:
            return self._judged_by_all(needed)

        def trial(state):
            proposal = self._propose(state["damping"])
            return (self._judge(state, proposal, proposal["after"]),)

        (final,) = tf.while_loop(needed, trial, (self._start(),))
        return final

    def _judged_by_all(self, needed):
        """As `judged`, in several replicas: no loop, for the loss of a trial is a sum over them."""
        function = tf.function(self._propose, autograph=False)  # traced once for all trials
        damping = self._optimizer.damping.value
        propose = function.get_concrete_function(tf.TensorSpec(damping.shape, damping.dtype))

        def trial(state):
            more = needed(state)
            proposal = tf.cond(more, lambda: propose(state["damping"]), self._nothing)
            shares = [proposal["after"], proposal["predicted"]]
            after, proposal["predicted"] = replicas.sums(shares)
            return tf.cond(more, lambda: self._judge(state, proposal, after), lambda: state)

        state = self._start()
        for _ in range(self._optimizer.max_trials):
            state = trial(state)
        return state

    def _nothing(self):
        """In the place of a proposal that is not needed."""
        values = self._expansion.values
        return {
            "values": values,
            "after": tf.zeros_like(self._expansion.loss),
            "beyond": tf.zeros_like(self._expansion.loss),
            "predicted": tf.zeros([], nest.accumulator_dtype(values)),
            "iterations": tf.constant(0),
        }

    def unjudged(self):
        """The step with the present damping, taken as it is."""
        optimizer, expansion = self._optimizer, self._expansion
        step = optimizer.step(expansion, self._system, self._system.solve(optimizer.damping.value))
        values = optimizer.moved(self._pass, expansion, step)
        good = expansion.finite & nest.all_finite(values)
        keep = functools.partial(tf.where, good)
        return {
            "accepted": good,
            "values": nest.map_live(keep, values, expansion.values),
            "growth": tf.identity(optimizer._growth.value),
        }

    def _start(self):
        damping = tf.identity(self._optimizer.damping.value)
        growth = tf.identity(self._optimizer._growth.value)
        raised, grown = control.adapt(damping, growth, -1.0, tf.constant(False))
        finite = self._expansion.finite
        return {
            "trials": tf.constant(0),
            "accepted": tf.constant(False),
            "values": self._expansion.values,
            # A batch without a finite loss is not tried at all: only the damping rises.
            "damping": tf.where(finite, damping, raised),
            "growth": tf.where(finite, growth, grown),
            "ratio": tf.constant(-float("inf")),
            "iterations": tf.constant(0),
        }

    def _propose(self, damping):
        """New weights; the loss there, and its predicted decrease: of this replica's share."""
        solution = self._system.solve(damping)
        step = self._optimizer.step(self._expansion, self._system, solution)
        values = self._optimizer.moved(self._pass, self._expansion, step)
        return {
            "values": values,
            "after": self._optimizer.trial_loss(self._pass, self._system, values),
            "beyond": self._optimizer.beyond_trial(self._expansion, self._system),
            "predicted": -self._optimizer.predicted_change(self._expansion, self._system, step),
            "iterations": solution.iterations,
        }

    def _judge(self, state, proposal, after):
        """The state after a trial, from the loss `after` it."""
        values = proposal["values"]
        after += proposal["beyond"]
        ratio = control.reduction_ratio(self._expansion.loss, after, proposal["predicted"])
        accepted = (ratio > control.ACCEPT) & nest.all_finite(values)
        damping, growth = control.adapt(state["damping"], state["growth"], ratio, accepted)
        keep = functools.partial(tf.where, accepted)
        return {
            "trials": state["trials"] + 1,
            "accepted": accepted,
            "values": nest.map_live(keep, values, self._expansion.values),
            "damping": damping,
            "growth": growth,
            "ratio": tf.cast(ratio, tf.float32),
            "iterations": state["iterations"] + proposal["iterations"],
        }
