"""Peak memory of a step of KFAC and of Adam, MLP with five layers of 2048, batch 64, in weights.

Each side runs in a process of its own, and is what it holds (the weights, the state) and the peak
of a step, over what the process held before: resident memory (Linux). The factors, averages and
inverses, are four times the weights of a square layer, and counted apart. Goal: at most four times
the weights, beside the factors.

    python benchmarks/kfac_memory.py [--width 2048] [--layers 5] [--batch 64]
"""

import os

import peak_memory
import record

# The number of the step decides what it does, once the periods have grown to what they stay at.
LATE = 2**20
SIDES = {
    "Adam": ("adam", LATE),
    "KFAC, most steps": ("kfac", LATE + 3),
    "KFAC, factors updated": ("kfac", LATE + 8 * 3),
    "KFAC, first step": ("kfac", 0),
}


def compiled(name, width, layers, batch):
    """A model and its training step."""
    import keras
    import tensorflow as tf

    import keras_fwd

    hidden = [keras.layers.Dense(width, "tanh") for _ in range(layers)]
    model = keras.Sequential([keras.Input((width,)), *hidden])
    model.compile({"adam": keras.optimizers.Adam, "kfac": keras_fwd.KFAC}[name](), "mse")
    x = tf.random.normal((batch, width), seed=0)
    return model, tf.function(lambda: model.train_step((x, x))["loss"])


def measure(side, options):
    """Bytes at the peak of a step, and of the weights and of the factors."""
    name, number = SIDES[side]
    _, small = compiled(name, 64, options.layers, options.batch)
    small()  # what TensorFlow sets up once
    before = peak_memory.resident("VmRSS")
    model, step = compiled(name, options.width, options.layers, options.batch)
    concrete = step.get_concrete_function()
    model.optimizer.iterations.assign(number)
    peak_memory.forget()
    concrete().numpy()
    peak = peak_memory.resident("VmHWM") - before

    def size(variables):
        return 4 * sum(int(variable.value.shape.num_elements()) for variable in variables)

    factors = [v for v in model.optimizer._variables if "block_" in v.name]
    return peak, size(model.trainable_variables), size(factors)


def main():
    sizes = {"width": 2048, "layers": 5, "batch": 64}
    options, sides = peak_memory.of_sides(__file__, __doc__, SIDES, measure, **sizes)
    found = record.Record()
    net = f"MLP with {options.layers} layers of {options.width}, batch {options.batch}"
    columns = [(name, ".1f") for name in ("all", "of these, factors", "the rest")]
    table = found.table(f"Peak memory of a step, in weights, {net}", "", *columns)
    rest = {}
    for side, (peak, weights, factors) in sides.items():
        rest[side] = (peak - factors) / weights
        table.add(side, peak / weights, factors / weights, rest[side])
    most = max(value for side, value in rest.items() if side != "Adam")
    found.goal("KFAC beside its factors, in weights", most, at_most=4.0, form=".1f")
    found.finish(options)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
