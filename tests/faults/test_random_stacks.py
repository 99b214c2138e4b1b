"""Five hundred random models: every derivative and every step is right, or an error of ours.

Where nothing changed since they were all right, a share is taken. Two optimizers take five times as
long as all derivatives: `make faults` trains every stack, other runs one in `TRAINED`, in turns.
"""

import collections
import gc
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from support import records

import keras_fwd
from faults import random_stacks, stack_checks
from faults.stack_checks import EXACT, KINK, LEAK, OURS, Derivatives, Training, Wrong, outcome

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("float64"),
    # Of Keras, about masks that end at a layer which knows none.
    pytest.mark.filterwarnings(
        "ignore:Layer '.*' \\(of type .*\\) was passed an input with a mask"
    ),
]

STACKS, CHUNK = 500, 10
SMOOTH = 0  # a seed whose stack has no kinks
POINTS = 3  # at which a stack is tried before it counts as one with kinks everywhere


TRAINED = 1 if os.environ.get(records.WHOLE) else 10
#: Which of so many: by the commit, so that many runs train them all.
TURN = sum(map(ord, records.commit())) % TRAINED


def checks(seed):
    """What is checked of a stack, by name."""
    found = {
        "inputs": lambda stack: Derivatives(stack).check("inputs"),
        "weights": lambda stack: Derivatives(stack).check("weights"),
    }
    if seed % TRAINED == TURN:
        found["GaussNewton"] = lambda stack: Training(stack).gauss_newton()
        found["KFAC"] = lambda stack: Training(stack).kfac()
    return found


def away_from_kinks(seed, stack, check):
    """What came of a check, at another point where the first lies at a kink."""
    found = outcome(check, stack)
    for attempt in range(1, POINTS):
        if found != KINK:
            break
        found = outcome(check, random_stacks.stack(seed, attempt))
    return found


def examine(seed):
    """What came of each check of a stack."""
    stack = random_stacks.stack(seed)
    assert str(keras_fwd.find_leaks(stack.model))
    try:
        return {name: away_from_kinks(seed, stack, check) for name, check in checks(seed).items()}
    except Exception as error:
        raise AssertionError(f"stack {seed}, {stack.names}: {error!r}") from error


@pytest.mark.recorded("random stacks")
@pytest.mark.parametrize("chunk", range(STACKS // CHUNK))
def test_random_stacks_are_exact_or_refused(chunk, record_property):
    counts = collections.Counter()
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        counts.update(f"{name}: {found}" for name, found in examine(seed).items())
        keras.backend.clear_session()
        gc.collect()  # graphs hold themselves
    record_property("found", dict(counts))
    known = {EXACT, LEAK, OURS, KINK}
    assert {key.partition(": ")[2] for key in counts} <= known
    kinks = sum(count for key, count in counts.items() if key.endswith(KINK))
    assert kinks <= 2, counts


# --- the checks themselves ------------------------------------------------------------------------


@tf.custom_gradient
def off(y):
    return y, lambda dy: 1.001 * dy


def planted(seed):
    """A stack with a layer whose gradient is off by a thousandth."""
    stack = random_stacks.stack(seed)
    model = stack.model
    stack.model = keras.Model(model.inputs, keras.layers.Lambda(off)(model.outputs[0]))
    return stack


@pytest.mark.parametrize("wrt", ["inputs", "weights"])
def test_a_planted_wrong_derivative_is_found(wrt):
    with pytest.raises(Wrong, match="central differences"):
        Derivatives(planted(SMOOTH)).check(wrt)


def test_planted_zeros_are_found():
    def nothing(fn, points, wrt):
        outputs, J = keras_fwd.linearize(fn, points, wrt)
        return outputs, keras_fwd.LinearMap(lambda u: 0 * J(u), J.T.mv, J.in_spec, J.out_spec)

    stack = random_stacks.stack(SMOOTH)
    with pytest.raises(Wrong, match="adjoint gap"):
        Derivatives(stack, nothing).check("weights")


def test_a_planted_wrong_step_is_found():
    def longer(**options):
        return keras_fwd.GaussNewton(learning_rate=0.999, **options)

    with pytest.raises(Wrong, match="dense solution"):
        Training(random_stacks.stack(SMOOTH)).gauss_newton(longer)


def test_a_planted_step_upwards_is_found():
    class Upwards(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            super().update_step(-gradient, variable, learning_rate)

    with pytest.raises(Wrong, match="raised the loss"):
        Training(random_stacks.stack(SMOOTH)).kfac(lambda: Upwards(0.1))


def test_a_kink_is_no_error():
    def difference(x):
        return lambda h: np.array([(abs(x + h) - abs(x - h)) / (2 * h)])

    assert stack_checks.smooth(difference(0.5), 1e-5, 1e-6)
    assert not stack_checks.smooth(difference(1e-6), 1e-5, 1e-6)
