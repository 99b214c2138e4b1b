"""What `GaussNewton` is told of its solver, checked, and which of them fits a batch."""

import dataclasses
import math
from typing import Any, Self

from keras_fwd._checks import check_count, check_flag
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers._steps import replicas
from keras_fwd.optimizers.cg import CG

SOLVERS = ("auto", "dense", "dual", "cg")
#: Up to this many weights a dense factorization is cheap beside the model's own work.
DENSE_WEIGHTS = 1000
#: The same for the residuals (batch size times outputs) of the dual system.
DUAL_RESIDUALS = 512


@dataclasses.dataclass(frozen=True)
class SolverOptions:
    """How the damped system of a batch is solved.

    Attributes:
        name: `"auto"`, `"dense"`, `"dual"` or `"cg"`.
        cg: The options of conjugate gradients, where these are chosen.
        geodesic: Whether steps are bent by their acceleration.
        micro_batch: How many examples the model holds at once, or None for all.
    """

    name: str
    cg: CG
    geodesic: bool
    micro_batch: int | None

    @classmethod
    def of(cls, solver: Any, geodesic: Any, micro_batch: Any) -> Self:
        """From the arguments of `GaussNewton`.

        Raises:
            ConfigurationError: One of them has no meaning, or two do not go together.
        """
        cg = solver if isinstance(solver, CG) else CG()
        name = "cg" if isinstance(solver, CG) else solver
        if name not in SOLVERS:
            raise ConfigurationError(
                f"GaussNewton: `solver` must be one of {', '.join(map(repr, SOLVERS))}, or "
                f"`keras_fwd.optimizers.CG(…)` with its options. Received: solver={solver!r}."
            )
        check_flag("GaussNewton", "geodesic", geodesic)
        check_count("GaussNewton", "micro_batch", micro_batch, none="all examples")
        found = cls(name, cg, bool(geodesic), None if micro_batch is None else int(micro_batch))
        found._check_blocks()
        return found

    @property
    def needs_graph(self) -> bool:
        """Whether a step must be a graph: K-FAC's factors are read from one, blocks loop in one."""
        return self.cg.preconditioner == "kfac" or self.micro_batch is not None

    @property
    def for_models_only(self) -> dict[str, Any]:
        """Options that are on and have no meaning for residuals without a model."""
        options = {
            "preconditioner": self.cg.preconditioner,
            "curvature_batch": self.cg.curvature_batch,
            "micro_batch": self.micro_batch,
        }
        return {name: value for name, value in options.items() if value is not None}

    def of_replicas(self) -> CG:
        """The options of conjugate gradients over several replicas.

        Raises:
            ConfigurationError: One of them is for a single device.
        """
        for name in ("preconditioner", "progress_tolerance", "warm_start", "backtracking"):
            value = getattr(self.cg, name)
            if value is not None and value is not False:
                raise ConfigurationError(
                    f"CG: `{name}` is for one device; with several replicas leave it out. "
                    f"Received: {name}={value!r}, {replicas.count()} replicas."
                )
        return self.cg

    def may_be_dense(self, variables: Any) -> bool:
        """Whether a batch of a model with these weights is solved by the dense solver."""
        return self.name == "dense" or (self.name == "auto" and few_weights(variables))

    def chosen(self, J: Any, kinds: Any) -> str:
        """The solver for a batch: that is asked for, or the first that fits.

        Args:
            J: The Jacobian, a `LinearMap`.
            kinds: What is known of the loss of each leaf.
        """
        residuals, weights = J.shape
        if self.name == "dual" and "general" in kinds:
            raise ConfigurationError(
                'GaussNewton: solver="dual" needs mse, a robust loss or a cross-entropy (with its '
                "softmax or sigmoid as the last activation, or from_logits=True). Use "
                'solver="cg" or solver="dense". Received: another loss.'
            )
        if self.name != "auto":
            return self.name
        if weights <= DENSE_WEIGHTS:
            return "dense"
        few = residuals is not None and residuals * replicas.count() <= DUAL_RESIDUALS
        few = few and self.micro_batch is None
        return "dual" if few and "general" not in kinds else "cg"

    def _check_blocks(self) -> None:
        if self.micro_batch is None:
            return
        for argument, needed in (
            ("solver", self.name if self.name == "dual" else None),
            ("preconditioner", self.cg.preconditioner),
            ("curvature_batch", self.cg.curvature_batch),
        ):
            if needed is not None:
                raise ConfigurationError(
                    f"GaussNewton: `micro_batch` does not go with {argument}={needed!r}, which "
                    f"needs the batch as a whole. Received: micro_batch={self.micro_batch!r}, "
                    f"{argument}={needed!r}. Leave one of them out."
                )


def few_weights(variables: Any) -> bool:
    """Whether they are few enough for a dense factorization."""
    return sum(math.prod(variable.shape) for variable in variables) <= DENSE_WEIGHTS
