"""What a search for leaks found: rows, and a table of them that a person can read."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from keras_fwd._checks import needed
from keras_fwd._tables import Rows, text_table

COLUMNS = ("layer", "op", "kind", "order", "sealed", "cost", "advice")


@dataclasses.dataclass(frozen=True)
class Leak:
    """A place where TensorFlow's own derivatives of derivatives break.

    Attributes:
        layer: Path of the layer, or the name scope of the op.
        op: Type of the op, or name of the function.
        kind: `"missing"` (no gradient), `"severed"` (its branch would vanish), `"poisoned"` (not
            finite at a zero cotangent), `"dependent"` (the backward rule is not linear),
            `"second-order"` (only the first derivative is right), `"custom rule"` (a linear rule
            that is not the derivative), `"slow"`.
        order: The derivative at which it shows: 1 for `J u`, 2 for a derivative of it.
        sealed: Whether keras_fwd has a rule, so that its own derivatives are exact there.
        advice: What to do.
        cost: Time of a JVP of the layer in forward passes, where it was measured.

    Example: `LeakReport`.
    """

    layer: str
    op: str
    kind: str
    order: int
    sealed: bool
    advice: str
    cost: float | None = None


class LeakReport(Rows[Leak]):
    """The leaks of a function or model, a sequence of `Leak`; true if there are any.

    Attributes:
        rows: List of `Leak`.
        costs: Layer path -> time of its JVP in forward passes, if it was measured.
        verification: What the JVP was compared with -> relative difference, if it was verified;
            text where it could not be computed.

    Example:

    >>> import tensorflow as tf, keras_fwd
    >>> report = keras_fwd.find_leaks(tf.math.softsign, tf.constant([1.0]))
    >>> [row.op for row in report], bool(report)
    (['SoftsignGrad'], True)
    """

    def __init__(
        self,
        rows: Iterable[Leak],
        costs: Mapping[str, float] | None = None,
        verification: Mapping[str, float | str] | None = None,
    ) -> None:
        super().__init__(rows)
        self.costs: dict[str, float] = dict(costs or {})
        self.verification: dict[str, float | str] = dict(verification or {})

    def __str__(self) -> str:
        lines = [self._table() if self.rows else "no leaks"]
        if self.costs:
            lines.append("time of a JVP in forward passes:")
            lines += [f"  {path}: {cost:.1f}" for path, cost in self.costs.items()]
        if self.verification:
            lines.append("relative difference from central differences:")
            for name, value in self.verification.items():
                shown = value if isinstance(value, str) else f"{value:.1e}"
                lines.append(f"  {name}: {shown}")
        return "\n".join(lines)

    def to_frame(self) -> Any:
        """The rows as a pandas data frame.

        Raises:
            ImportError: pandas is not installed.
        """
        pd = needed("LeakReport.to_frame", "pandas")
        return pd.DataFrame([dataclasses.asdict(r) for r in self.rows], columns=list(COLUMNS))

    def _table(self):
        shown = [name for name in COLUMNS if name != "cost" or any(r.cost for r in self.rows)]
        cells = [[getattr(row, name) for name in shown] for row in self.rows]
        return text_table(shown, cells, wide=("advice",))
