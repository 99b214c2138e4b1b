"""Wrote the files beside it, with version 0.1.0 before its modules got the places they have now.

What it saved then must load for ever: `tests/test_saved_files.py` reads it. It is kept as a record
of what the files hold; run with a later version it would only save what that version loads anyway.
"""

import json
import pathlib
import pickle
import sys

import keras
import numpy as np
import tensorflow as tf

import keras_fwd
from keras_fwd import layers, losses, optimizers, regularizers

OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__).resolve()
OUT = OUT if OUT.is_dir() else OUT.parent
X = np.linspace(-1, 1, 24).reshape(8, 3).astype("float32")
Y = np.sin(X.sum(1, keepdims=True))


@keras.saving.register_keras_serializable("saved_case")
def softplus(x):
    return tf.nn.softplus(x)


@keras.saving.register_keras_serializable("saved_case")
def softplus_rule(x, dx):
    return tf.nn.softplus(x), dx * tf.sigmoid(x)


@keras.saving.register_keras_serializable("saved_case")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(1, activation="softsign")

    def call(self, x):
        return self.dense(x)


def net(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)]
    )


def around(layer):
    inputs = keras.Input((3,))
    return keras.Model(inputs, layer(inputs))


def models():
    """Names and models; all take three numbers an example."""
    keras.utils.set_random_seed(0)
    yield "sealed", around(layers.Sealed(keras.layers.Dense(2, activation="softsign")))
    subclassed = Subclassed()
    subclassed(X)
    yield "sealed_model", keras_fwd.seal_leaks(subclassed)
    inputs = keras.Input((3,))
    pair = layers.Linearized(net())([inputs, inputs])
    yield "linearized", keras.Model(inputs, pair)
    yield "jacobian_layer", around(layers.JacobianLayer(net()))
    yield "laplacian", around(layers.Laplacian(net()))
    yield "input_gradient", around(layers.InputGradientLayer(net()))
    yield "custom_jvp", around(layers.CustomJVP(softplus, softplus_rule))
    penalty = layers.SensitivityPenalty(net(), regularizers.JacobianNorm(1e-3))
    yield "sensitivity_penalty", around(penalty)
    for regularizer in (
        regularizers.JacobianNorm(1e-2),
        regularizers.Contractive(1e-2),
        regularizers.Curvature(1e-2),
        regularizers.Directional(1e-2, np.eye(3, dtype="float32")),
        regularizers.GradientPenalty(1e-2),
        regularizers.InputGradient(1e-2),
        regularizers.LocalLinearity(1e-2),
        regularizers.Monotonic(1e-2, [0, 2], [1, -1]),
        regularizers.SpectralJacobian(1e-2),
        regularizers.Lipschitz(1e-2, 0.5),
    ):
        model = keras_fwd.regularize(net(), regularizer)
        model.compile("adam", losses.Cauchy(0.5))
        model.fit(X, Y, verbose=0)
        yield f"regularized_{type(regularizer).__name__}", model
    for optimizer in (
        keras_fwd.GaussNewton(),
        keras_fwd.GaussNewton(
            damping=1e-2,
            solver="cg",
            max_solver_iterations=7,
            solver_tolerance=1e-2,
            preconditioner="kfac",
            max_trials=3,
            progress_tolerance=5e-4,
            warm_start=True,
            backtracking=True,
            curvature_batch=4,
            name="cg",
        ),
        keras_fwd.GaussNewton(damping=1e-3, geodesic=True, solver="dense", name="geodesic"),
        keras_fwd.GaussNewton(micro_batch=3, name="micro"),
        keras_fwd.KFAC(),
        keras_fwd.KFAC(0.1, damping=1e-2, momentum=0.8, inverse="eigen", name="kfac_eigen"),
        optimizers.KFACPreconditioner(keras.optimizers.Adam(1e-2)),
    ):
        model = net()
        model.compile(optimizer, "mse")
        model.fit(X, Y, batch_size=4, epochs=2, verbose=0)
        yield f"trained_{optimizer.name}", model


def objects():
    """Names and objects that can be pickled."""
    model = net()
    data = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    report = keras_fwd.sensitivity_report(model, data, feature_names=["a", "b", "c"])
    yield "sensitivity_report", report
    other = keras_fwd.sensitivity_report(net(1), data, feature_names=["a", "b", "c"])
    yield "comparison", report.compare(other)
    softsign = around(keras.layers.Dense(2, activation="softsign"))
    yield "leak_report", keras_fwd.find_leaks(softsign, X)
    model.compile(keras_fwd.GaussNewton(), "mse")
    model.fit(X, Y, verbose=0)
    yield "step_report", model.optimizer.status
    yield "step_status", model.optimizer.status.code
    yield "block_report", keras_fwd.KFAC().blocks(model)
    v = tf.Variable([2.0, 3.0], dtype=tf.float64)
    yield "minimize_result", keras_fwd.GaussNewton().minimize(lambda: v**2 - 1.0, v)
    yield "leak_error", keras_fwd.LeakError("a leak")
    yield "regularizer", regularizers.JacobianNorm(1e-2)
    yield "cauchy", losses.Cauchy(0.5)
    yield "regularized_model", keras_fwd.regularize(net(), regularizers.JacobianNorm(1e-2))
    curved = keras_fwd.regularize(net(), regularizers.Curvature(1e-2))
    yield "loss_regularized_model", curved
    yield "sealed_layer", layers.Sealed(keras.layers.Dense(2, activation="softsign"))
    yield "trained_model", model
    yield "optimizer", keras_fwd.KFAC(0.1)


def main():
    known = {}
    for name, model in models():
        model.save(OUT / f"{name}.keras")
        found = [np.asarray(y) for y in keras.tree.flatten(model.predict(X, verbose=0))]
        known[name] = {
            "outputs": [y.tolist() for y in found],
            "state": [np.asarray(v).tolist() for v in getattr(model.optimizer, "variables", [])]
            if name.startswith("trained")
            else None,
        }
    (OUT / "known.json").write_text(json.dumps(known))
    for name, value in objects():
        try:
            (OUT / f"{name}.pickle").write_bytes(pickle.dumps(value))
        except Exception as error:
            print("not pickled:", name, repr(error)[:200])
        if hasattr(value, "to_json"):
            (OUT / f"{name}.json").write_text(value.to_json())


if __name__ == "__main__":
    main()
