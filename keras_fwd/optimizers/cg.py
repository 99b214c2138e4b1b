"""`CG`: how `GaussNewton` solves for its direction without a matrix."""

import dataclasses
from typing import Any, Literal, Self

from keras_fwd._checks import check_count, check_flag, check_number
from keras_fwd._models.serializable import serializable
from keras_fwd.errors import ConfigurationError

PRECONDITIONERS = ("kfac", "diagonal")


@serializable
@dataclasses.dataclass(frozen=True)
class CG:
    """Conjugate gradients for the direction of `GaussNewton`: `GaussNewton(solver=CG(…))`.

    They solve `(Jᵀ H J + λ I) d = g` by products with the Jacobian alone, so that any number of
    weights fits. `solver="cg"` stands for `CG()`. Under a `tf.distribute` strategy the graph of a
    step grows with `max_iterations`: give it a low bound there.

    Args:
        max_iterations: Bound on the iterations. Default 50.
        tolerance: Relative residual at which they stop. Default 1e-3.
        preconditioner: Renewed in every step. `"kfac"`: the Kronecker factors of the batch as in
            `KFAC`; a deep autoencoder with little damping needs two fifths of the iterations to a
            tolerance of 1e-3, a tenth to 1e-1, and each takes up to twice the time. `"diagonal"`:
            the diagonal of the curvature from random probes, to the power 0.75: fewer iterations
            on a badly scaled net. None (default) for none. On one device.
        progress_tolerance: They also stop when the quadratic model falls by less than this share of
            itself an iteration; Martens takes 5e-4. None (default) for no such test.
        warm_start: Whether to start from the last step, at its best length. Default False.
        backtracking: Whether to take, of the iterates at growing distances, the one with the best
            loss: from the last back as long as it falls. Default False.
        curvature_batch: How many examples of a batch the curvature is taken from, at even
            distances; None (default) for all. The gradient is that of the whole batch, and so is
            the loss that a step is judged by: one that only fits the part is rejected, or raises
            the damping. All examples are used where a part would not do: a loss that is no mean
            over examples, a fixed batch size, stateful layers.

    Raises:
        ConfigurationError: an argument out of range.

    Cost: About one gradient an iteration, of the `curvature_batch`. `preconditioner="kfac"`: a
        pullback and the factors a step, their inverses a trial, cubic in the width of a layer, and
        two products of each matrix of weights with them an iteration; `"diagonal"`: four pullbacks
        a step. `warm_start`: a vector of weights in the state. `backtracking`: two forward passes
        or more a trial, and the iterates, 14 of 50.

    References:
        Martens, Deep learning via Hessian-free optimization, ICML (2010); Schraudolph, Neural
        Computation 14 (2002).

    Example:

    >>> from keras_fwd import GaussNewton
    >>> optimizer = GaussNewton(solver=CG(max_iterations=20, preconditioner="diagonal"))
    >>> optimizer.solver.max_iterations
    20
    """

    max_iterations: int = 50
    tolerance: float = 1e-3
    preconditioner: Literal["kfac", "diagonal"] | None = None
    progress_tolerance: float | None = None
    warm_start: bool = False
    backtracking: bool = False
    curvature_batch: int | None = None

    def __post_init__(self) -> None:
        check_count("CG", "max_iterations", self.max_iterations)
        check_number("CG", "tolerance", self.tolerance)
        if self.preconditioner is not None and self.preconditioner not in PRECONDITIONERS:
            raise ConfigurationError(
                f"CG: `preconditioner` must be one of {', '.join(map(repr, PRECONDITIONERS))}, or "
                f"None for none. Received: preconditioner={self.preconditioner!r}."
            )
        if self.progress_tolerance is not None:
            check_number("CG", "progress_tolerance", self.progress_tolerance)
        check_flag("CG", "warm_start", self.warm_start)
        check_flag("CG", "backtracking", self.backtracking)
        check_count("CG", "curvature_batch", self.curvature_batch, none="all examples")
        plain: dict[str, Any] = {  # NumPy's numbers would not go into a file
            "max_iterations": int(self.max_iterations),
            "tolerance": float(self.tolerance),
            "warm_start": bool(self.warm_start),
            "backtracking": bool(self.backtracking),
        }
        if self.progress_tolerance is not None:
            plain["progress_tolerance"] = float(self.progress_tolerance)
        if self.curvature_batch is not None:
            plain["curvature_batch"] = int(self.curvature_batch)
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Inverse of `get_config`."""
        return cls(**config)
