"""Peak memory of a step of GaussNewton by conjugate gradients and of Adam, five million weights.

Each side runs in a process of its own, and is what it holds (the weights, the state) and the peak
of a step, over what the process held before: resident memory (Linux), in the size of the weights.
Goal: at most twice Adam's.

    python benchmarks/cg_memory.py [--width 1024] [--layers 5] [--batch 64]
"""

import os

import peak_memory
import record

SIDES = {
    "Adam": None,
    "GaussNewton, cg": {},
    "GaussNewton, cg, curvature_batch": {"curvature_batch": 32},
    "GaussNewton, cg, backtracking": {"backtracking": True},
    "GaussNewton, cg, warm_start": {"warm_start": True},
    'GaussNewton, cg, preconditioner="diagonal"': {"preconditioner": "diagonal"},
    "GaussNewton, cg, L2": {"l2": 1e-4},
    'GaussNewton, cg, preconditioner="kfac"': {"preconditioner": "kfac"},
}


def compiled(arguments, width, layers, batch):
    """A model and its training step."""
    import keras
    import tensorflow as tf

    import keras_fwd

    arguments = None if arguments is None else dict(arguments)
    l2 = None if arguments is None else arguments.pop("l2", None)
    regularizer = None if l2 is None else keras.regularizers.L2(l2)
    hidden = [
        keras.layers.Dense(width, "tanh", kernel_regularizer=regularizer) for _ in range(layers)
    ]
    model = keras.Sequential([keras.Input((width,)), *hidden])
    if arguments is None:
        optimizer = keras.optimizers.Adam()
    else:
        solver = keras_fwd.optimizers.CG(max_iterations=10, **arguments)
        optimizer = keras_fwd.GaussNewton(solver=solver, max_trials=2)
    model.compile(optimizer, "mse")
    x = tf.random.normal((batch, width), seed=0)
    return model, tf.function(lambda: model.train_step((x, x))["loss"])


def measure(side, options):
    """Bytes at the peak of a step, and of the weights."""
    _, small = compiled(SIDES[side], 64, options.layers, options.batch)
    small()  # what TensorFlow sets up once
    before = peak_memory.resident("VmRSS")
    model, step = compiled(SIDES[side], options.width, options.layers, options.batch)
    concrete = step.get_concrete_function()
    peak_memory.forget()
    concrete().numpy()
    concrete().numpy()
    weights = 4 * sum(int(v.value.shape.num_elements()) for v in model.trainable_variables)
    return peak_memory.resident("VmHWM") - before, weights


def main():
    sizes = {"width": 1024, "layers": 5, "batch": 64}
    options, sides = peak_memory.of_sides(__file__, __doc__, SIDES, measure, **sizes)
    found = record.Record()
    net = f"MLP with {options.layers} layers of {options.width}, batch {options.batch}"
    columns = ("in weights", ".1f"), ("in steps of Adam", ".2f")
    table = found.table(f"Peak memory of a step and what is held, {net}", "", *columns)
    adam = sides["Adam"][0]
    for side, (peak, weights) in sides.items():
        table.add(side, peak / weights, peak / adam)
    ours = sides["GaussNewton, cg"][0] / adam
    found.goal("GaussNewton, a loss of the outputs alone, in steps of Adam", ours, at_most=2.0)
    found.finish(options)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
