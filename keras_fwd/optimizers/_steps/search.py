"""The search for a step: directions with rising damping, tried on their batch."""

import functools

import tensorflow as tf

from keras_fwd._linear_algebra.solution import Status
from keras_fwd._spaces import nest
from keras_fwd.optimizers._steps import convergence, replicas
from keras_fwd.optimizers._steps import damping as control


class Search:
    """The trials of one batch; all of it tensors.

    What comes out is a dict: `trials`, `accepted`, the `values` of the weights, the `loss` there,
    the `ratio` of the last trial, `iterations` of the solver, whether the last trial's solution was
    finite (`solved`), and the state of the optimizer's control (the `damping`, for one) that it
    goes on with. If the optimizer `measures_progress`, also the `Progress` of the trials.

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
        self._control = optimizer.control(system)

    def judged(self):
        """The first step that lowers the loss enough."""

        def needed(state):
            more = state["trials"] < self._optimizer.max_trials
            return more & self._expansion.finite & ~state["accepted"]

        if replicas.count() > 1:
            return self._judged_by_all(needed)

        def trial(state):
            proposal = self._propose(self._control_of(state))
            return (self._judge(state, proposal, proposal["after"]),)

        (final,) = tf.while_loop(needed, trial, (self._start(),))
        return final

    def _judged_by_all(self, needed):
        """As `judged`, in several replicas: no loop, for the loss of a trial is a sum over them."""
        function = tf.function(self._propose, autograph=False)  # traced once for all trials
        specs = {
            name: tf.TensorSpec(variable.shape, variable.dtype)
            for name, variable in self._control.variables.items()
        }
        propose = function.get_concrete_function(specs)

        def trial(state):
            more = needed(state)
            held = self._control_of(state)
            proposal = tf.cond(more, lambda: propose(held), self._nothing)
            shares = [proposal["after"], proposal["predicted"]]
            after, proposal["predicted"] = replicas.sums(shares)
            # Equal but for rounding in all replicas; made equal, for decisions hang on them.
            proposal["facts"] = tuple(replicas.first(proposal["facts"]))
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
            "bent": tf.constant(False),
            "iterations": tf.constant(0),
            "facts": self._control.nothing(),
            "solved": tf.constant(True),
            **self._slope(values),
        }

    def unjudged(self):
        """The step with the present damping, taken as it is."""
        optimizer, expansion = self._optimizer, self._expansion
        step = optimizer.step_from(
            expansion, self._system, self._system.solve(optimizer.damping.value)
        )
        values = optimizer.moved(self._pass, expansion, step)
        good = expansion.finite & nest.all_finite(values)
        keep = functools.partial(tf.where, good)
        return {
            "accepted": good,
            "values": nest.map_live(keep, values, expansion.values),
        }

    def _start(self):
        measured = {}
        if self._optimizer.measures_progress:
            measured["progress"] = convergence.Progress(*map(tf.constant, convergence.UNTRIED))
        sound = self._expansion.finite | self._expansion.overflowed
        return {
            **measured,
            "trials": tf.constant(0),
            "accepted": tf.constant(False),
            "solved": tf.constant(True),
            "values": self._expansion.values,
            "loss": self._expansion.loss,
            "ratio": tf.constant(-float("inf")),
            "iterations": tf.constant(0),
            **self._control.start(sound),
        }

    def _control_of(self, state):
        return {name: state[name] for name in self._control.variables}

    def _propose(self, control):
        """New weights; the loss there, and its predicted decrease: of this replica's share."""
        solution, damping, facts = self._control.solve(control)
        straight = self._optimizer.step_from(self._expansion, self._system, solution)
        reached = self._optimizer.moved(self._pass, self._expansion, straight)
        step, bent = self._optimizer.curved(self._expansion, self._system, straight, damping)
        values = reached
        if step is not straight:
            values = self._optimizer.moved(self._pass, self._expansion, step)
        # The quadratic model knows nothing of a curve: it judges the straight step.
        step = self._optimizer.taken(self._pass, self._expansion, straight, reached)
        return {
            "values": values,
            "after": self._optimizer.trial_loss(self._pass, self._system, values),
            "beyond": self._optimizer.beyond_trial(self._expansion, self._system),
            "predicted": -self._optimizer.predicted_change(self._expansion, self._system, step),
            "bent": bent,
            "iterations": solution.iterations,
            "facts": facts,
            "solved": tf.not_equal(solution.status, int(Status.NOT_FINITE)),
            **self._slope(step),
        }

    def _slope(self, step):
        """Of the loss along a step, if it is asked for."""
        if not self._optimizer.measures_progress:
            return {}
        return {"slope": nest.dot(self._expansion.gradient, step)}

    def _judge(self, state, proposal, after):
        """The state after a trial, from the loss `after` it."""
        values = proposal["values"]
        after += proposal["beyond"]
        first = tf.equal(state["trials"], 0)
        ratio = control.reduction_ratio(self._expansion.loss, after, proposal["predicted"], first)
        ratio = tf.where(proposal["bent"], tf.minimum(ratio, 0), ratio)
        solved = proposal["solved"] & nest.all_finite(values)
        accepted = (ratio > control.ACCEPT) & solved
        before = self._expansion.loss
        following = self._control.next(state, proposal["facts"], ratio, accepted, before, after)
        keep = functools.partial(tf.where, accepted)
        return {
            **self._progress(state, proposal, after, ratio),
            "trials": state["trials"] + 1,
            "accepted": accepted,
            "solved": solved,
            "values": nest.map_live(keep, values, self._expansion.values),
            "loss": keep(after, self._expansion.loss),
            **following,
            "ratio": tf.cast(ratio, tf.float32),
            "iterations": state["iterations"] + proposal["iterations"],
        }

    def _progress(self, state, proposal, after, ratio):
        """What this trial adds to the `Progress` of the step, if it is asked for."""
        if not self._optimizer.measures_progress:
            return {}
        expansion = self._expansion
        slope, predicted, values = (proposal[key] for key in ("slope", "predicted", "values"))
        losses = expansion.loss, after, ratio
        measured = convergence.after_trial(
            state["progress"], *losses, slope, predicted, values, expansion.values
        )
        return {"progress": measured}
