"""The peer that `jvp.py --jax` talks to: `jax.jvp` of the same Keras models, in its own process.

Reads a line at a time: the name of a case builds and compiles it, an empty line runs it once.
Answers with the seconds taken, or with the name of an error.
"""

import os
import sys
import time

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jvp_cases
import keras
import numpy as np


def compiled(name):
    """`jax.jvp` of a case, as a function without arguments that waits for its result."""
    keras.utils.set_random_seed(0)
    model, shape = jvp_cases.CASES[name]()
    x, u = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    x, u = jax.numpy.asarray(x), jax.numpy.asarray(u)
    weights = [v.value for v in model.trainable_variables]
    states = [v.value for v in model.non_trainable_variables]

    @jax.jit
    def push(weights, states, x, u):
        def fn(x):
            return model.stateless_call(weights, states, x, training=False)[0]

        return jax.jvp(fn, (x,), (u,))

    return lambda: jax.block_until_ready(push(weights, states, x, u))


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints must not answer
    run = None
    for line in sys.stdin:
        start = time.perf_counter()
        try:
            if line.strip():
                run = compiled(line.strip())
            run()
            answer = str(time.perf_counter() - start)
        except Exception as error:
            answer = type(error).__name__
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    main()
