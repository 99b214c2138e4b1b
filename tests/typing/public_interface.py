# pyright: strict, reportMissingTypeStubs=false, reportUnnecessaryTypeIgnoreComment=true
"""The public interface as a user under pyright's strict rules calls it. Checked, never run.

Keras and TensorFlow ship no types, so models and tensors come in as arguments here.
"""

import pathlib
from collections.abc import Sequence
from typing import Any, assert_type

import keras
import numpy as np

import keras_fwd
from keras_fwd import (
    callbacks,
    layers,
    losses,
    optimizers,
    regularizers,
    sensitivity,
    spectrum,
    testing,
)
from keras_fwd.optimizers import BlockReport, MinimizeResult, StepReport, StepStatus
from keras_fwd.optimizers._kronecker.block_report import BlockRow
from keras_fwd.sensitivity import (
    SensitivityComparison,
    SensitivityReport,
    sensitivity_report,
)
from keras_fwd.typing import Function, Nest, Tensor


def derivatives(fn: Function, model: keras.Model, x: Nest, u: Nest) -> None:
    outputs, tangents = keras_fwd.jvp(fn, x, u)
    outputs, pulled = keras_fwd.vjp(model, x, outputs, wrt="weights")
    outputs, J = keras_fwd.linearize(model, x, wrt=[u])
    assert_type(J, keras_fwd.LinearMap)
    print(tangents, pulled, keras_fwd.jacobian(fn, x, mode="forward", per_example=True))
    H = keras_fwd.hessian(fn, x)
    G = keras_fwd.gauss_newton(model, "mse", x, u)
    F = keras_fwd.fisher(model, "mse", x, wrt="outputs", kind="empirical", targets=u)
    assert_type(F, keras_fwd.LinearMap)
    assert_type(H.T @ G, Any)
    assert_type(H + 2.0 * G - H.T, keras_fwd.LinearMap)
    assert_type(G.shape, tuple[int | None, int | None])
    dense: Tensor = G.to_dense(chunk_size=8)
    print(dense, G(u), G.mv(u), G.to_scipy(), -G)
    print(keras_fwd.fwd_gradients(u, x, assert_unused=True), keras_fwd.laplacian(fn, x))
    assert_type(keras_fwd.directional_derivatives(fn, x, u, order=2), list[Nest])


def rules(fn: Function, x: Nest) -> None:
    @keras_fwd.custom_jvp
    def square(primals: Nest) -> Nest:
        return primals

    @square.defjvp
    def rule(primals: Nest, tangents: Nest) -> tuple[Nest, Nest]:
        return square(primals), tangents

    print(rule(x, x), keras_fwd.jvp_from_vjp(fn, per_example=True)(x))
    assert_type(testing.check_jvp(square, x, order=2, jit_compile=True), float)
    assert_type(testing.check_adjoint(fn, x), float)
    assert_type(testing.check_linear_map(keras_fwd.hessian(fn, x)), float)


def leaks(model: keras.Model, x: Nest) -> keras.Model:
    report = keras_fwd.find_leaks(model, x, verify=True)
    assert_type(report, keras_fwd.LeakReport)
    for leak in report:
        assert_type(leak, keras_fwd.Leak)
        assert_type(leak.op, str)
    print(len(report), report[0].advice, report.costs, report.verification, report.to_frame())
    return keras_fwd.seal_leaks(model)


def eigenvalues(A: keras_fwd.LinearMap) -> None:
    found = spectrum.top_eigenvalues(A, 2, end="smallest")
    assert_type(found, spectrum.Eigenvalues)
    assert_type(spectrum.ritz_values(A, 20), spectrum.Eigenvalues)
    assert_type(spectrum.trace(A, probes=4), spectrum.Estimate)
    assert_type(spectrum.spectral_density(A), spectrum.Density)


def optimize(model: keras.Model, residual: Function, unknowns: Sequence[Any]) -> None:
    optimizer = keras_fwd.GaussNewton(
        solver=keras_fwd.optimizers.CG(preconditioner="kfac"), damping=0.1
    )
    result = optimizer.minimize(residual, unknowns, reduction="mean", ftol=1e-9, verbose=1)
    assert_type(result, MinimizeResult)
    assert_type(result.loss, float)
    assert_type(result.status, StepReport)
    assert_type(result.status.code, StepStatus)
    assert_type(optimizer.status.message, str)
    assert_type(optimizer.step(residual, model, jit_compile=True), dict[str, Tensor])
    kfac = keras_fwd.KFAC(fisher="type-2", inverse="eigen", shared="reduce", weight_decay=1e-4)
    table = kfac.blocks(model)
    assert_type(table, BlockReport)
    assert_type(table[0], BlockRow)
    assert_type(table.rows, list[BlockRow])
    inner = optimizers.KFACPreconditioner("sgd", kl_clip=1e-3)
    both: list[optimizers.CurvatureOptimizer] = [optimizer, kfac, inner]
    print([one.get_config() for one in both], [one.nonfinite_steps for one in both])
    assert_type(optimizer.status.code, optimizers.StepStatus)
    print(optimizers.CG(tolerance=0.1).get_config(), optimizers.StepReport, optimizers.BlockReport)
    print(optimizers.GaussNewton, optimizers.KFAC, optimizers.MinimizeResult)
    print(losses.Cauchy(2.0), losses.cauchy(1.0, 2.0))


def watch(x: Nest, y: Nest) -> None:
    watcher = keras_fwd.SensitivityCallback(x, every=10, features=["age"], log_dir="logs")
    assert_type(watcher.to_html("report.html", title="Cars"), pathlib.Path)
    everyone: list[keras.callbacks.Callback] = [
        watcher,
        keras_fwd.JacobianNormCallback(x, norm="spectral", every="epoch", max_overhead=0.1),
        keras_fwd.CurvatureCallback((x, y), ["trace"], matrix="ggn"),
        callbacks.LeastSquaresStop(ftol=1e-9, verbose=1),
        callbacks.CurvatureCallback((x, y)),
        callbacks.JacobianNormCallback(x),
        callbacks.SensitivityCallback(x),
    ]
    print(everyone)


def report(model: keras.Model, x: Nest) -> None:
    made = keras_fwd.sensitivity_report(
        model, x, ["age", "size"], interactions=3, groups={"both": ["age", "size"]}, seed=1
    )
    assert_type(made, keras_fwd.SensitivityReport)
    assert_type(sensitivity_report(model, x, progress=False), SensitivityReport)
    assert_type(made.mean, np.ndarray)
    assert_type(made.measures["rms"].low, np.ndarray)
    assert_type(made.to_html(pathlib.Path("report.html")), pathlib.Path)
    assert_type(made.to_json(), str)
    assert_type(made.ranking(), list[int])
    again = SensitivityReport.from_json("report.json")
    change = again.compare(made, measure="rms")
    assert_type(change, SensitivityComparison)
    assert_type(change.changes["rms"], sensitivity.Change)
    assert_type(made.measures["rms"], sensitivity.Estimate)
    parts: list[Any] = [made.groups, made.interactions, made.sample, made.inputs, made.evolution]
    kinds = [sensitivity.Groups, sensitivity.Interactions, sensitivity.Sample]
    print(parts, kinds, sensitivity.InputShape, sensitivity.Evolution)
    print(change.to_frame(), change.to_json(), change.plot(), change.paired, made.replicates("rms"))
    print(made.to_frame(), made.to_dict(), made.plot("beeswarm"), made.maps(), made.profiles())


def penalties(model: keras.Model, x: Nest, step: Tensor) -> keras.Model:
    every: list[regularizers.SensitivityRegularizer] = [
        regularizers.Contractive(0.1),
        regularizers.Curvature(0.1, step=0.5),
        regularizers.Directional(0.1, "rotation"),
        regularizers.GradientPenalty(10.0),
        regularizers.InputGradient(0.1),
        regularizers.JacobianNorm(0.1, num_projections="exact", features={"age": 2.0}),
        regularizers.Lipschitz(0.1, bound=2.0),
        regularizers.LocalLinearity(0.1),
        regularizers.Monotonic(1.0, ["age", 2], sign=[1, -1]),
        regularizers.SpectralJacobian(0.1),
    ]
    print([one(model, x, training=True) for one in every], every[0].factor(step))
    print(regularizers.GradientPenalty(1.0).between(model, x, x))
    batches: list[type[regularizers.Batch]] = [regularizers.Batch, regularizers.LossBatch]
    print(batches)
    return keras_fwd.regularize(model, every[0], seed=3)


def layer_zoo(layer: keras.layers.Layer, rule: Any) -> list[keras.layers.Layer]:
    return [
        layers.CustomJVP(layer, rule, name="mine"),
        layers.InputGradientLayer(layer, scale=-1.0),
        layers.JacobianLayer(layer, mode="reverse"),
        layers.Laplacian(layer, chunk_size=3),
        layers.Linearized(layer),
        layers.Sealed(layer),
        layers.SensitivityPenalty(layer, regularizers.JacobianNorm(0.1)),
    ]


def errors() -> list[type[keras_fwd.KerasFwdError]]:
    return [
        keras_fwd.ConfigurationError,
        keras_fwd.LeakError,
        keras_fwd.NumericalError,
        keras_fwd.StructureError,
    ]


def mistakes_that_are_found(fn: Function, model: keras.Model, x: Nest) -> None:
    """Each comment must be needed, which shows that the line is an error."""
    keras_fwd.jvp(fn, x, x, wrt="weigths")  # pyright: ignore[reportArgumentType]
    keras_fwd.jacobian(fn, x, mode="backward")  # pyright: ignore[reportArgumentType]
    keras_fwd.GaussNewton(solver="qr")  # pyright: ignore[reportArgumentType]
    keras_fwd.GaussNewton(curvature="all")  # pyright: ignore[reportCallIssue]
    keras_fwd.KFAC(fisher="exact")  # pyright: ignore[reportArgumentType]
    keras_fwd.sensitivity_report(model, x, resample=1)  # pyright: ignore[reportCallIssue]
    keras_fwd.jvp(fn, x)  # pyright: ignore[reportCallIssue]
    keras_fwd.JacobianNormCallback(x, norm="l2")  # pyright: ignore[reportArgumentType]
