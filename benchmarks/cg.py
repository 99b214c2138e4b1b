"""The cost of a CG iteration of GaussNewton in gradients, in the same run.

An MLP 784-1024-1024-1024-10 with softmax cross-entropy at batch 256. The solve is timed at two
numbers of iterations; the difference is the cost of the iterations between, without the forward
pass and set-up, which are outside the loop. Two solvers: the one that GaussNewton takes for a loss
of the outputs alone (`range_space_cg`), and the one it takes beside weight regularizers (`cg`).
Goal: at most 1.3 gradients.

    python benchmarks/cg.py [--repeats 7] [--batch 256] [--jit]
"""

import statistics

import jvp_cases
import keras
import record
import tensorflow as tf
import timing

import keras_fwd
from keras_fwd._curvature import loss_hessian
from keras_fwd._linear_algebra import conjugate_gradients
from keras_fwd._spaces import nest
from keras_fwd._spaces.linear_map import LinearMap, identity

NET = "MLP 784-1024-1024-1024-10"
SOLVERS = {
    "range_space_cg": "a loss of the outputs alone",
    "cg": "beside weight regularizers",
}


def build(batch):
    """The net, a batch, and the three functions to time."""
    keras.utils.set_random_seed(0)
    net, _ = jvp_cases.mlp()
    x = tf.random.stateless_normal([batch, 784], (0, 1))
    y = tf.random.stateless_uniform([batch], (0, 2), maxval=10, dtype=tf.int32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    weights = [v.value for v in net.trainable_variables]

    def gradient():
        with tf.GradientTape() as tape:
            value = loss(y, net(x, training=True))
        return nest.norm(tape.gradient(value, weights))

    def solve(method, iterations):
        def run():
            logits, J = keras_fwd.linearize(net, x, wrt="weights")
            on_list = loss_hessian.loss_hessian(lambda z: loss(y, z[0]), [logits])
            H = LinearMap(*[lambda u: on_list._mv([u])[0]] * 2, J.out_spec, J.out_spec)
            c = tf.nn.softmax(logits)
            if method == "range_space_cg":
                solution = conjugate_gradients.range_space_cg(J, H, c, 1e-3, 0.0, iterations)
            else:
                damped = J.T @ H @ J + 1e-3 * identity(J.in_spec)
                solution = conjugate_gradients.cg(damped, J.T(c), 0.0, iterations)
            return nest.norm(solution.value), solution.iterations

        return run

    return gradient, solve


def main():
    parser = record.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--jit", action="store_true", help="compile all of it with XLA")
    options = parser.parse_args()
    gradient, solve = build(options.batch)
    few, many = 2, 12
    functions = {"gradient": gradient}
    functions |= {(m, n): solve(m, n) for m in SOLVERS for n in (few, many)}
    sides = {
        name: timing.waiting(tf.function(f, jit_compile=options.jit, autograph=False))
        for name, f in functions.items()
    }
    times = timing.by_turns(sides, options.repeats)
    found = record.Record()
    columns = [(name, ".2f") for name in ("gradients, median", "lowest", "highest")]
    table = found.table(f"An iteration of CG, {NET}, batch {options.batch}", "", *columns)
    for method, what in SOLVERS.items():
        rounds = zip(times["gradient"], times[method, few], times[method, many], strict=True)
        ratios = [(slow - fast) / (many - few) / g for g, fast, slow in rounds]
        median = statistics.median(ratios)
        table.add(what, median, min(ratios), max(ratios))
        found.goal(f"an iteration in gradients, {what}", median, at_most=1.3)
    found.finish(options)


if __name__ == "__main__":
    main()
