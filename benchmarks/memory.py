"""Peak memory of a 60-layer MLP: forward pass, one JVP, a gradient step, a held linearization.

Each side runs in a process of its own, in a `tf.function`; what is reported is the peak of its
first call over what the process held before: resident memory on a CPU (Linux), TensorFlow's own
account on a GPU. Goals: a JVP below 2.2 forward passes, a held linearization not above a gradient
step.

    python benchmarks/memory.py [--batch 8192] [--width 256] [--layers 60] [--repeats 3]
"""

import peak_memory
import record

SIDES = {
    "forward": "forward pass",
    "jvp": "jvp",
    "gradient": "gradient step",
    "held": "linearize by weights, one pullback",
    "products": "linearize by inputs, J and J.T",
}


def sides(model, variables, tangent):
    """The functions to measure, by name."""
    import tensorflow as tf

    import keras_fwd

    def gradient(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x) ** 2)
        return tape.gradient(loss, variables)

    def held(x):
        outputs, J = keras_fwd.linearize(model, x, wrt="weights")
        return J.T(2.0 * outputs)

    def products(x):
        _, J = keras_fwd.linearize(model, x)
        pushed = J(tangent)
        return pushed, J.T(pushed)

    functions = {"forward": model, "gradient": gradient, "held": held, "products": products}
    return {**functions, "jvp": lambda x: keras_fwd.jvp(model, x, tangent)}


def measure(side, options):
    """Bytes that the first call of one side takes at its peak."""
    import keras
    import numpy as np
    import tensorflow as tf

    hidden = [keras.layers.Dense(options.width, "tanh") for _ in range(options.layers)]
    model = keras.Sequential([keras.Input((options.width,)), *hidden])
    shape = (2, options.batch, options.width)
    x, u = tf.constant(np.random.default_rng(0).normal(size=shape), tf.float32)
    variables = [variable.value for variable in model.trainable_variables]
    function = tf.function(sides(model, variables, u)[side], autograph=False)
    concrete = function.get_concrete_function(x)
    if tf.config.list_physical_devices("GPU"):
        concrete(x)
        before = tf.config.experimental.get_memory_info("GPU:0")["current"]
        tf.config.experimental.reset_memory_stats("GPU:0")
        tf.nest.map_structure(lambda y: y.numpy(), concrete(x))
        return [tf.config.experimental.get_memory_info("GPU:0")["peak"] - before]
    peak_memory.forget()
    before = peak_memory.resident("VmRSS")
    results = concrete(x)
    tf.nest.map_structure(lambda y: y.numpy(), results)
    return [peak_memory.resident("VmHWM") - before]


def main():
    sizes = {"batch": 8192, "width": 256, "layers": 60}
    options, sides = peak_memory.of_sides(__file__, __doc__, SIDES, measure, repeats=3, **sizes)
    peaks = {side: peak for side, (peak,) in sides.items()}
    found = record.Record()
    net = f"{options.layers}-layer MLP, width {options.width}, batch {options.batch}"
    columns = ("MiB", ".0f"), ("forward passes", ".2f"), ("gradient steps", ".2f")
    table = found.table(f"Peak memory, {net}", "", *columns)
    for side, name in SIDES.items():
        if side in peaks:
            ratios = [peaks[side] / peaks[to] for to in ("forward", "gradient")]
            table.add(name, peaks[side] / 2**20, *ratios)
    found.goal("a JVP, in forward passes", peaks["jvp"] / peaks["forward"], at_most=2.2)
    held = peaks["held"] / peaks["gradient"]
    found.goal("a linearization by weights, in gradient steps", held, at_most=1.0)
    found.finish(options)


if __name__ == "__main__":
    main()
