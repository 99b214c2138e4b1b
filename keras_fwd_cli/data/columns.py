"""Which column of a table feeds which input of a model."""

import collections
import dataclasses
import difflib
import re

from keras_fwd_cli.data.inputs import FLOAT, TEXT
from keras_fwd_cli.failures import UsageError


@dataclasses.dataclass(frozen=True)
class Choice:
    """What the command line says about the columns.

    Attributes:
        target: Column to leave out of the inputs, or None.
        by: Column to slice by, or None.
        columns: Those that feed the model, in this order; empty for all.
        ignore: Those that do not.
    """

    target: str | None = None
    by: str | None = None
    columns: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def options(self):
        """The columns that are named, each with the option that names it."""
        named = [("--target", self.target), ("--by", self.by)]
        named += [("--columns", name) for name in self.columns]
        named += [("--ignore", name) for name in self.ignore]
        return [(option, name) for option, name in named if name is not None]


@dataclasses.dataclass(frozen=True)
class Block:
    """Columns that become one array.

    Attributes:
        key: Name of the array.
        columns: Their indices in the table.
        kind: Of the values.
        dtype: Of the array.
        shape: Of one example.
    """

    key: str
    columns: tuple[int, ...]
    kind: str
    dtype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a table is read.

    Attributes:
        blocks: One for each input of the model, and one for `by` if no input holds it.
        features: Names of the columns of a single input of numbers; None for several inputs.
        ignored: Names of columns that nothing reads.
    """

    blocks: tuple[Block, ...]
    features: tuple[str, ...] | None
    ignored: tuple[str, ...]


def plan(names, inputs, choice, where):
    """Finds the columns of each input.

    Args:
        names: The columns of the table.
        inputs: List of `Input`.
        choice: `Choice`.
        where: Name of the table, for messages.

    Returns:
        `Plan`.

    Raises:
        UsageError: Columns are missing, there are too many, or a name stands for two of them.
    """
    check_names(names, choice, where)
    out = {choice.target, *choice.ignore}
    free = list(choice.columns) or [name for name in names if name not in out]
    if len(inputs) == 1:
        found, features = [_single(free, inputs[0], choice, where)], None
        if inputs[0].kind == FLOAT:
            features = tuple(found[0])
    else:
        found, features = _several(free, inputs, where), None
    index = {name: i for i, name in enumerate(names)}
    blocks = [
        Block(i.name, tuple(index[name] for name in columns), i.kind, i.dtype, _shape(i, columns))
        for i, columns in zip(inputs, found, strict=True)
    ]
    read = {name for columns in found for name in columns}
    if choice.by is not None:
        blocks.append(Block("", (index[choice.by],), TEXT, "object", ()))
    known = read | out | {choice.by}
    return Plan(tuple(blocks), features, tuple(name for name in names if name not in known))


def check_names(names, choice, where):
    """Whether the table names its columns, each once, and has those of the command line.

    Raises:
        UsageError: It does not.
    """
    if twice := [name for name, count in collections.Counter(names).items() if count > 1]:
        places = [str(i + 1) for i, name in enumerate(names) if name == twice[0]]
        raise UsageError(f"{where}: two columns are named {twice[0]!r}: {' and '.join(places)}.")
    for option, name in choice.options():
        if name not in names:
            raise UsageError(
                f"{where}: {option} {name!r} is no column{near(name, names)}. "
                f"Columns: {listed(names)}."
            )


def near(name, names):
    """A remark about names that look alike, or nothing.

    >>> near("wieght", ["weight", "year"])
    ' (did you mean "weight"?)'
    """
    lower = {str(n).lower(): n for n in names}
    found = difflib.get_close_matches(name.lower(), lower, n=1)
    return f' (did you mean "{lower[found[0]]}"?)' if found else ""


def listed(names, limit=12):
    """Names in a sentence, only the first of many.

    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(map(str, names[:limit])) + more) or "none"


def _single(free, wanted, choice, where):
    """The columns of the only input: the one of its name, or all, in the order of the table."""
    if wanted.width == 1 and wanted.name in free:
        return [wanted.name]
    if wanted.width is None or len(free) == wanted.width:
        if not free:
            raise UsageError(f"{where}: no column is left for the model's input.")
        return free
    if not choice.columns and choice.by in free and len(free) == wanted.width + 1:
        return [name for name in free if name != choice.by]
    few = len(free) < wanted.width
    way_out = "Are there more in another file?" if few else "Leave out: --target COL, --ignore COL."
    raise UsageError(
        f"{where}: the model reads {_count(wanted.width)}, and there are {len(free)}"
        f"{'' if choice.target is None else ' besides the target'}: {listed(free)}. {way_out}"
    )


def _several(free, inputs, where):
    """For each input its columns, by name: `age`, or `pixel[0]`, `pixel[1]`, … for a wider one."""
    found = [_of(free, wanted) for wanted in inputs]
    if all(found):
        return found
    widths = [wanted.width for wanted in inputs]
    unnamed = not any(wanted.named for wanted in inputs)
    if unnamed and None not in widths and sum(widths) == len(free):
        starts = [sum(widths[:i]) for i in range(len(widths))]
        return [free[a : a + n] for a, n in zip(starts, widths, strict=True)]
    missing = [wanted for wanted, columns in zip(inputs, found, strict=True) if not columns]
    used = {name for columns in found for name in columns}
    extra = [name for name in free if name not in used]
    shown = [
        f"{w.name}{near(w.name, extra)}" if w.width == 1 else f"{w.name} ({_wide(w)})"
        for w in missing
    ]
    raise UsageError(
        f"{where}: columns that the model reads are missing: {listed(shown)}. "
        f"Columns that it does not read: {listed(extra)}."
    )


def _of(free, wanted):
    if wanted.width == 1 and wanted.name in free:
        return [wanted.name]
    form = re.compile(rf"{re.escape(wanted.name)}[\[_.]?(\d+)\]?")
    numbered = {int(m[1]): name for name in free if (m := form.fullmatch(name))}
    complete = len(numbered) == (wanted.width or len(numbered))
    return [numbered[i] for i in sorted(numbered)] if complete else []


def _wide(wanted):
    if wanted.width is None:
        return f"{wanted.name}[0], {wanted.name}[1], …"
    return f"{_count(wanted.width)}, {wanted.name}[0] … {wanted.name}[{wanted.width - 1}]"


def _shape(wanted, columns):
    """Of one example: declared, or what the number of columns leaves for an open length."""
    if wanted.shape is None:
        return (len(columns),)
    if None not in wanted.shape:
        return wanted.shape
    known = 1
    for size in wanted.shape:
        known *= size or 1
    if wanted.shape.count(None) > 1 or len(columns) % known:
        raise UsageError(
            f"the model's input {wanted} has an open shape, which {len(columns)} columns do not "
            "fill: give the data as .npz, with an array of that shape."
        )
    return tuple(len(columns) // known if size is None else size for size in wanted.shape)


def _count(n):
    return "1 column" if n == 1 else f"{n} columns"
