"""NIST's nonlinear regression problems (StRD) with plain `compile` and `fit`, beside scipy.

Each problem is a Keras layer with scalar weights in float64, all of the data one batch, and
`GaussNewton()` with its defaults, from both of NIST's starts. A digit is the smallest log relative
error over the parameters, at most 11, against the certified values, which serve for nothing else.
Goals: 6 digits from every start, 9 in the mean. The data files are NIST's own (public domain), 18
of its 27 problems in `benchmarks/nist/`; `--data` for a directory with more of them.

    python benchmarks/nist.py [--data DIR] [--problems NAME …]
"""

import os
import pathlib
import re

import keras
import numpy as np
import record
import scipy.optimize
import tensorflow as tf

import keras_fwd

PI = 3.141592653589793238462643383279
EPOCHS, STEPS = 30, 100


def gauss(x, a, b, c, d, e, f, g, h):
    peaks = c * tf.exp(-((x - d) ** 2) / e**2) + f * tf.exp(-((x - g) ** 2) / h**2)
    return a * tf.exp(-b * x) + peaks


def lanczos(x, a, b, c, d, e, f):
    return a * tf.exp(-b * x) + c * tf.exp(-d * x) + e * tf.exp(-f * x)


def seasons(x, a, b, c, d, e, f, g, h, i):
    known = a + b * tf.cos(2 * PI * x / 12) + c * tf.sin(2 * PI * x / 12)
    first = e * tf.cos(2 * PI * x / d) + f * tf.sin(2 * PI * x / d)
    return known + first + h * tf.cos(2 * PI * x / g) + i * tf.sin(2 * PI * x / g)


def cubics(x, a, b, c, d, e, f, g):
    return (a + b * x + c * x**2 + d * x**3) / (1 + e * x + f * x**2 + g * x**3)


def decay(x, a, b, c):
    return tf.exp(-a * x) / (b + c * x)


def rise(x, a, b):
    return a * (1 - tf.exp(-b * x))


MODELS = {
    "Bennett5": lambda x, a, b, c: a * (b + x) ** (-1 / c),
    "BoxBOD": rise,
    "Chwirut1": decay,
    "Chwirut2": decay,
    "DanWood": lambda x, a, b: a * x**b,
    "ENSO": seasons,
    "Eckerle4": lambda x, a, b, c: a / b * tf.exp(-0.5 * ((x - c) / b) ** 2),
    "Gauss1": gauss,
    "Gauss2": gauss,
    "Gauss3": gauss,
    "Hahn1": cubics,
    "Kirby2": lambda x, a, b, c, d, e: (a + b * x + c * x**2) / (1 + d * x + e * x**2),
    "Lanczos1": lanczos,
    "Lanczos2": lanczos,
    "Lanczos3": lanczos,
    "MGH09": lambda x, a, b, c, d: a * (x**2 + x * b) / (x**2 + x * c + d),
    "MGH10": lambda x, a, b, c: a * tf.exp(b / (x + c)),
    "MGH17": lambda x, a, b, c, d, e: a + b * tf.exp(-x * d) + c * tf.exp(-x * e),
    "Misra1a": rise,
    "Misra1b": lambda x, a, b: a * (1 - (1 + b * x / 2) ** -2),
    "Misra1c": lambda x, a, b: a * (1 - (1 + 2 * b * x) ** -0.5),
    "Misra1d": lambda x, a, b: a * b * x / (1 + b * x),
    # The logarithm of its response is what is fitted.
    "Nelson": lambda x, a, b, c: a - b * x[:, :1] * tf.exp(-c * x[:, 1:]),
    "Rat42": lambda x, a, b, c: a / (1 + tf.exp(b - c * x)),
    "Rat43": lambda x, a, b, c, d: a / (1 + tf.exp(b - c * x)) ** (1 / d),
    "Roszman1": lambda x, a, b, c, d: a - b * x - tf.atan(c / (x - d)) / PI,
    "Thurber": cubics,
}


def read(path):
    """Starts `[2, n]`, certified parameters `[n]`, predictors `[m, k]` and responses `[m, 1]`."""
    lines = path.read_text().splitlines()
    rows = [re.match(r"\s*b\d+\s*=\s*(\S+)\s+(\S+)\s+(\S+)", line) for line in lines]
    parameters = np.array([[float(value) for value in row.groups()] for row in rows if row])
    first = max(i for i, line in enumerate(lines) if line.startswith("Data:")) + 1
    data = np.array([line.split() for line in lines[first:] if line.strip()], "float64")
    y = np.log(data[:, :1]) if path.stem == "Nelson" else data[:, :1]
    return parameters[:, :2].T, parameters[:, 2], data[:, 1:], y


class Curve(keras.layers.Layer):
    """A curve with scalar weights."""

    def __init__(self, function, start):
        super().__init__()
        self.function = function
        self.start = start

    def build(self, shape):
        del shape
        constant = keras.initializers.Constant
        self.parameters = [
            self.add_weight(shape=(), initializer=constant(b), name=f"b{i}")
            for i, b in enumerate(self.start, 1)
        ]

    def call(self, x):
        return self.function(x, *self.parameters)


class Settled(keras.callbacks.Callback):
    """Stops when the steps of an epoch changed no more than the last digits."""

    def on_train_begin(self, logs=None):
        self.before = np.nan

    def on_epoch_end(self, epoch, logs=None):
        weights = np.array(self.model.get_weights())
        self.model.stop_training = np.allclose(weights, self.before, rtol=1e-12, atol=0)
        self.before = weights


def fit(function, start, x, y):
    """Parameters, and the number of steps."""
    model = keras.Sequential([keras.Input((x.shape[1],)), Curve(function, start)])
    optimizer = keras_fwd.GaussNewton()
    model.compile(optimizer, "mse", steps_per_execution=STEPS)
    batch = tf.data.Dataset.from_tensors((x, y)).repeat()
    options = {"shuffle": False, "verbose": 0, "callbacks": [Settled()]}
    model.fit(batch, epochs=EPOCHS, steps_per_epoch=STEPS, **options)
    return np.array([float(b) for b in model.get_weights()]), int(optimizer.iterations)


def by_scipy(function, start, x, y, method):
    """Parameters of `scipy.optimize.least_squares` with the exact Jacobian."""

    @tf.function
    def curve(values):
        return function(tf.constant(x), *tf.unstack(values))[:, 0]

    @tf.function
    def jacobian(values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            curved = curve(values)
        return tape.jacobian(curved, values)

    with np.errstate(all="ignore"):
        result = scipy.optimize.least_squares(
            lambda b: curve(tf.constant(b)).numpy() - y[:, 0],
            start,
            jac=lambda b: jacobian(tf.constant(b)).numpy(),
            method=method,
            x_scale="jac",
            ftol=1e-15,
            xtol=1e-15,
            gtol=1e-15,
            max_nfev=3000,
        )
    return result.x


def digits(parameters, certified):
    """Right digits of the worst parameter: log relative error, 0 to 11."""
    with np.errstate(divide="ignore"):
        right = -np.log10(np.abs(parameters - certified) / np.abs(certified))
    return float(np.clip(np.nan_to_num(right, nan=0.0, posinf=11.0), 0.0, 11.0).min())


COLUMNS = "GaussNewton()", "scipy lm", "scipy trf"


def solved(path):
    """Digits of each side from both starts, `[sides][starts]`, and the steps of GaussNewton."""
    starts, certified, x, y = read(path)
    function, sides, steps = MODELS[path.stem], [[] for _ in COLUMNS], []
    for start in starts:
        own, taken = fit(function, start, x, y)
        steps.append(taken)
        peers = [by_scipy(function, start, x, y, method) for method in ("lm", "trf")]
        for side, parameters in zip(sides, (own, *peers), strict=True):
            side.append(digits(parameters, certified))
    return sides, steps


def main():
    parser = record.parser(__doc__)
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(__file__).parent / "nist")
    parser.add_argument("--problems", nargs="*", choices=list(MODELS), default=list(MODELS))
    options = parser.parse_args()
    keras.backend.set_floatx("float64")
    found = record.Record()
    title = "Right digits of the worst parameter, from starts 1 and 2"
    table = found.table(title, "problem", *COLUMNS, "steps")
    every = {column: [] for column in COLUMNS}
    for path in sorted(options.data.glob("*.dat")):
        if path.stem in options.problems:
            sides, steps = solved(path)
            for column, side in zip(COLUMNS, sides, strict=True):
                every[column] += side
            pairs = [", ".join(f"{d:.1f}" for d in side) for side in sides]
            table.add(path.stem, *pairs, ", ".join(map(str, steps)))
    columns = ("least", ".1f"), ("at least 6, of all", "d"), ("all", "d"), ("mean", ".2f")
    table = found.table(
        "Right digits over all problems and starts, at most 11 counted", "", *columns
    )
    for column, side in every.items():
        table.add(column, min(side), sum(d >= 6 for d in side), len(side), np.mean(side))
    ours = every[COLUMNS[0]]
    found.goal("right digits from every start", min(ours), at_least=6.0, form=".1f")
    found.goal("right digits, mean", np.mean(ours), at_least=9.0, form=".1f")
    found.finish(options)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
