"""Reading the arrays of an `.npz` file, none of which may hold Python objects."""

import math
import zipfile

from keras_fwd_cli.data.columns import check_names, listed, near
from keras_fwd_cli.data.inputs import FLOAT, TEXT
from keras_fwd_cli.failures import UsageError, one_line

TARGETS = ("y", "Y", "target", "targets", "label", "labels", "sample_weight")


def read_npz(path, inputs, choice):
    """The arrays that a model reads.

    Args:
        path: `pathlib.Path`.
        inputs: List of `Input`.
        choice: `Choice`; its columns are the names of arrays here.

    Returns:
        `(arrays, labels, ignored)`: dict of arrays by input, the array to slice by or None, and
        the names of arrays that nothing reads.

    Raises:
        UsageError: The file is damaged, or its arrays are not those of the model.
    """
    headers = _headers(path)
    check_names(list(headers), choice, str(path))
    sources = _sources(headers, inputs, choice, path)
    wanted = [*sources.values(), *([] if choice.by is None else [choice.by])]
    _check_lengths({name: headers[name] for name in wanted}, path)
    loaded = _load(path, set(wanted))
    arrays = {i.name: _conform(loaded[sources[i.name]], i, sources[i.name], path) for i in inputs}
    labels = None if choice.by is None else loaded[choice.by].reshape(len(loaded[choice.by]), -1)
    if labels is not None and labels.shape[1] != 1:
        raise UsageError(f"{path}: --by {choice.by!r} must hold one value for each example.")
    known = {*wanted, *TARGETS, choice.target, *choice.ignore}
    return arrays, labels, [name for name in headers if name not in known]


def _headers(path):
    """Name -> (shape, dtype), without reading the arrays; what they claim must be there."""
    from numpy.lib import format as npy

    headers = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as file:
                    version = npy.read_magic(file)
                    read = npy.read_array_header_1_0 if version == (1, 0) else None
                    read = npy.read_array_header_2_0 if version == (2, 0) else read
                    if read is None:
                        raise ValueError(f"version {version} of the format is not known")
                    shape, _, dtype = read(file)
                    left = member.file_size - file.tell()
                name = member.filename.removesuffix(".npy")
                if not dtype.hasobject and math.prod(shape) * dtype.itemsize != left:
                    raise ValueError(f"the array {name!r} is not as long as it says")
                headers[name] = shape, dtype
    except UsageError:
        raise
    except Exception as error:  # zlib's, struct's, numpy's own: whatever the bytes provoke
        why = one_line(error, 120).rstrip(".")
        raise UsageError(f"{path}: damaged, or no .npz file: {why}.") from error
    if not headers:
        raise UsageError(f"{path}: holds no arrays.")
    return headers


def _sources(headers, inputs, choice, path):
    """Input -> name of its array."""
    out = {choice.target, *choice.ignore}
    free = list(choice.columns) or [name for name in headers if name not in out]
    if len(inputs) == 1:
        left = [name for name in free if name not in (*TARGETS, choice.by)]
        likely = [name for name in (inputs[0].name, "x", "X") if name in free]
        if likely or len(left) == 1:
            return {inputs[0].name: likely[0] if likely else left[0]}
        raise UsageError(
            f"{path}: the model reads one array, and there are {len(left)}: {listed(left)}. "
            "Say which: --columns NAME."
        )
    if missing := [i for i in inputs if i.name not in free]:
        extra = [name for name in free if name not in {i.name for i in inputs}]
        shown = [f"{i.name}{near(i.name, extra)}" for i in missing]
        raise UsageError(
            f"{path}: arrays that the model reads are missing: {listed(shown)}. "
            f"Arrays that it does not read: {listed(extra)}."
        )
    return {i.name: i.name for i in inputs}


def _check_lengths(headers, path):
    for name, (shape, dtype) in headers.items():
        if dtype.hasobject:
            raise UsageError(
                f"{path}: array {name!r} holds Python objects, which are never read: they could "
                "run code. Save numbers, or text as an array of str."
            )
        if not shape:
            raise UsageError(f"{path}: array {name!r} is a single value: axis 0 is the examples.")
    lengths = {name: shape[0] for name, (shape, _) in headers.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise UsageError(f"{path}: the arrays must have equally many examples: {shown}.")


def _load(path, names):
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except MemoryError:
        raise
    except Exception as error:
        why = one_line(error, 120).rstrip(".")
        raise UsageError(f"{path}: damaged: {why}.") from error


def _conform(array, wanted, name, path):
    """The array with the dtype and the shape that the model declares."""
    array = _shaped(array, wanted, name, path)
    kinds = {FLOAT: "fiub", TEXT: "US"}.get(wanted.kind, "iubf")
    if array.dtype.kind not in kinds:
        raise UsageError(
            f"{path}: array {name!r} of {array.dtype} does not fit the model's input {wanted}."
        )
    if wanted.kind == TEXT:
        return _text(array, name, path)
    if wanted.kind == FLOAT:
        import numpy as np

        with np.errstate(over="ignore"):
            return array.astype(wanted.dtype, copy=False)
    return _integers(array, wanted, name, path)


def _shaped(array, wanted, name, path):
    """With the declared shape, from which only axes of length one may differ."""
    if wanted.shape is None:
        return array
    given, declared = array.shape[1:], wanted.shape
    bare = [[n for n in shape if n != 1] for shape in (given, declared)]
    fits = len(bare[0]) == len(bare[1]) and all(
        want in (None, have) for have, want in zip(*bare, strict=True)
    )
    if not fits and None in declared and len(given) == len(declared):
        fits = all(want in (None, have) for have, want in zip(given, declared, strict=True))
        bare[0] = list(given)
    if not fits:
        raise UsageError(
            f"{path}: array {name!r} has examples of shape {given}, and the model's input "
            f"{wanted.name!r} has {declared}."
        )
    if len(given) == len(declared):
        return array
    sizes = iter(bare[0])
    return array.reshape(len(array), *(1 if size == 1 else next(sizes) for size in declared))


def _text(array, name, path):
    if array.dtype.kind == "U":
        return array.astype(object)
    try:
        import numpy as np

        return np.char.decode(array, "utf-8").astype(object)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: array {name!r}: no UTF-8 text.") from error


def _integers(array, wanted, name, path):
    import numpy as np

    limits = np.iinfo(wanted.dtype)
    with np.errstate(invalid="ignore"):
        bad = ~((array == np.floor(array)) & (array >= limits.min) & (array <= limits.max))
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        raise UsageError(
            f"{path}: array {name!r}, row {index[0] + 1}: {array[index]} is no {wanted.dtype}."
        )
    return array.astype(wanted.dtype)
