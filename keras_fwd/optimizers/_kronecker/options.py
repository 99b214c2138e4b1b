"""How Kronecker factors are measured, averaged and inverted: what users may choose."""

import dataclasses
from typing import Any, Self

from keras_fwd._checks import check_count, check_number
from keras_fwd._curvature.blocks.blocks import SHARED
from keras_fwd._curvature.fisher import KINDS
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers._kronecker.factors import METHODS
from keras_fwd.typing import Fisher, Inverse, Shared


@dataclasses.dataclass(frozen=True)
class FactorOptions:
    """The options of Kronecker factors.

    Args:
        fisher: `"type-2"`, `"monte-carlo"` or `"empirical"`.
        inverse: `"cholesky"` or `"eigen"`.
        shared: `"expand"` or `"reduce"`.
        factor_decay: Of the averages, at each update.
        factor_every: Steps between updates of the factors, once training is under way.
        inverse_every: Steps between renewals of an inverse, likewise.
        seed: Of the random signs.
    """

    fisher: Fisher
    inverse: Inverse
    shared: Shared
    factor_decay: float
    factor_every: int
    inverse_every: int
    seed: int

    def checked(self, call: str) -> Self:
        """The same as plain Python numbers.

        Raises:
            ConfigurationError: An option has no meaning.
        """
        for argument, choices in (("fisher", KINDS), ("inverse", METHODS), ("shared", SHARED)):
            value = getattr(self, argument)
            if value not in choices:
                raise ConfigurationError(
                    f"{call}: `{argument}` must be one of {', '.join(map(repr, choices))}. "
                    f"Received: {argument}={value!r}."
                )
        check_number(call, "factor_decay", self.factor_decay)
        if self.factor_decay >= 1:
            raise ConfigurationError(
                f"{call}: `factor_decay` must be below 1, for the factors to change. "
                f"Received: factor_decay={self.factor_decay!r}."
            )
        check_count(call, "factor_every", self.factor_every)
        check_count(call, "inverse_every", self.inverse_every)
        check_count(call, "seed", self.seed, least=0, most=2**31 - 1)
        numbers: dict[str, Any] = {"factor_decay": float(self.factor_decay)}
        for name in ("factor_every", "inverse_every", "seed"):
            numbers[name] = int(getattr(self, name))
        return dataclasses.replace(self, **numbers)
