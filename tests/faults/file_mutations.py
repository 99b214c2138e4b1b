"""Files that somebody broke, or made to do harm, from a whole one and a random generator."""

import copy
import io
import pickle
import stat
import struct
import zipfile

import numpy as np

NOISE = [b",", b"\n", b'"', b"\0", b"\xff", b"nan", b"9" * 400, b"-1e999", b"\xe2\x88", b"[" * 99]


def mutated(random, contents):
    """The bytes with a few of them changed, a piece cut out, doubled, moved or the end cut off."""
    contents = bytearray(contents)
    for _ in range(random.integers(1, 4)):
        a, b = sorted(random.integers(0, len(contents) + 1, 2))
        b = min(b, a + random.integers(1, 64))
        kind = random.integers(6)
        if kind == 0 and contents:
            contents[min(a, len(contents) - 1)] = random.integers(256)
        elif kind == 1:
            del contents[a:b]
        elif kind == 2:
            contents[a:a] = contents[a:b]
        elif kind == 3:
            del contents[a:]
        elif kind == 4 and contents:
            contents[min(a, len(contents) - 1)] ^= 1 << int(random.integers(8))
        else:
            contents[a:a] = NOISE[random.integers(len(NOISE))]
    return bytes(contents)


def members(contents):
    """The members of an archive: name -> bytes."""
    with zipfile.ZipFile(io.BytesIO(contents)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive(parts, compression=zipfile.ZIP_STORED):
    """The bytes of an archive of pairs (name or `ZipInfo`, bytes); a name may come twice."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as new:
        for name, data in parts:
            new.writestr(name, data)
    return out.getvalue()


def rewritten(random, contents):
    """An archive whose members are changed inside, with check sums that are right again."""
    parts = members(contents)
    chosen = list(parts)[random.integers(len(parts))]
    parts[chosen] = mutated(random, parts[chosen])
    return archive(parts.items())


# --- values ---------------------------------------------------------------------------------------

ODD = [
    None,
    True,
    -1,
    0,
    1.5,
    -1e300,
    10**30,
    "",
    "é" * 1000,
    "\ud800",
    "../../etc/passwd",
    [],
    {},
    [None],
    [[1]],
    {"": ""},
    float("nan"),
]


def changed(random, document, odd=ODD):
    """A document of dicts and lists with a few of its values replaced, left out or doubled."""
    document = copy.deepcopy(document)
    for _ in range(random.integers(1, 4)):
        places = list(_places(document))
        if not places:
            break
        holder, key = places[random.integers(len(places))]
        kind = random.integers(8)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif kind == 2:
            other, place = places[random.integers(len(places))]
            holder[key] = copy.deepcopy(other[place])
        else:
            holder[key] = copy.deepcopy(odd[random.integers(len(odd))])
    return document


def _places(document):
    keys = document if isinstance(document, dict) else range(len(document))
    for key in keys:
        yield document, key
        if isinstance(document[key], dict | list):
            yield from _places(document[key])


def nested(depth, opening="[", closing="]"):
    """Brackets in brackets, as text."""
    return opening * depth + closing * depth


# --- what runs code, if it is let -----------------------------------------------------------------


class Canary:
    """A pickle that leaves a file behind when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def with_pickle(random, contents, canary):
    """Arrays of which one is a pickle."""
    parts = members(contents)
    chosen = list(parts)[random.integers(len(parts))]
    shape = [(20, 3), (20,), ()][random.integers(3)]
    parts[chosen] = header("|O", shape) + pickle.dumps(Canary(canary))
    return archive(parts.items())


def header(descr, shape, version=(1, 0), extra=""):
    """What an `.npy` file begins with, true or not."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, {extra}}}"
    text = text.encode("latin1") + b"\n"
    form = "<H" if version == (1, 0) else "<I"
    return b"\x93NUMPY" + bytes(version) + struct.pack(form, len(text) % (1 << 16)) + text


HEADERS = [
    ("<f8", (1 << 40, 3)),
    ("<f8", (-1, 3)),
    ("<f8", (20, 3, 0)),
    ("<f8", (1 << 62, 1 << 62)),
    ("<f8", "__import__('os')"),
    ("<U2000000000", (20,)),
    ("<V8", (20, 3)),
    ("<M8[ns]", (20, 3)),
    ("<c16", (20, 3)),
    ([("a", "<f8"), ("b", "<f8")], (20, 3)),
    ([("a", "|O")], (20, 3)),
    ("<f8", (True, 3)),
    ("<f2", (20, 3)),
    (">f8", (20, 3)),
    ("|b1", (20, 3)),
    ("<f16", (20, 3)),
    ("S3", (20, 3)),
]


def with_header(random, contents):
    """Arrays of which one says something odd of itself."""
    parts = members(contents)
    chosen = list(parts)[random.integers(len(parts))]
    descr, shape = HEADERS[random.integers(len(HEADERS))]
    version = [(1, 0), (2, 0), (3, 0), (9, 9)][random.integers(4)]
    extra = ["", "'x': 1", "'shape': (1,)", "(" * 300][random.integers(4)]
    data = random.bytes(int(random.integers(2000)))
    parts[chosen] = header(descr, shape, version, extra) + data
    return archive(parts.items())


# --- archives -------------------------------------------------------------------------------------


def hostile(random, contents, canary):
    """An archive that is whole, and is made to fill the disk or to write somewhere else."""
    parts = list(members(contents).items())
    kind = random.integers(7)
    if kind == 0:
        parts.append((_name(random, canary), b"evil"))
    elif kind == 1:
        info = zipfile.ZipInfo(f"assets/link{random.integers(9)}")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        parts += [(info, str(canary.parent).encode()), (f"{info.filename}/{canary.name}", b"evil")]
    elif kind == 2:
        name, data = parts[random.integers(len(parts))]
        parts.append((name, mutated(random, data)))
    elif kind == 3:
        parts += [(f"assets/{i}" + "x" * int(random.integers(200)), b"") for i in range(500)]
    elif kind == 4:
        parts.append((_name(random, canary) + "/", b""))
    elif kind == 5:
        return _declared(random, archive(parts))
    else:
        return bomb(random, parts)
    return archive(parts)


def _name(random, canary):
    names = ["../" * 8 + str(canary).lstrip("/"), str(canary), f"assets/../../{canary.name}"]
    names += [
        f"..\\{canary.name}",
        f"assets/{'../' * 9}tmp/{canary.name}",
        "a" * 5000,
        "\x7f\n",
        ".",
    ]
    return names[random.integers(len(names))]


def _declared(random, contents):
    """Sizes in the table of contents that are not those of the members."""
    contents = bytearray(contents)
    at = contents.index(b"PK\x01\x02")
    size = [0, 1, 0x7FFFFFFF, 0xFFFFFFFE][random.integers(4)]
    offset = [20, 24, 42][random.integers(3)]  # compressed size, size, place of the member
    contents[at + offset : at + offset + 4] = struct.pack("<I", size)
    return bytes(contents)


def bomb(random, parts, size=(1 << 28) + 1):
    """An archive that unpacks to more than a quarter of a gigabyte."""
    name = ["assets/bomb", "model.weights.h5", "config.json"][random.integers(3)]
    if name not in _BOMBS:  # takes its time
        kept = [part for part in parts if part[0] != name]
        zeros = np.zeros(size, "uint8").data
        _BOMBS[name] = archive([*kept, (name, zeros)], zipfile.ZIP_DEFLATED)
    return _BOMBS[name]


_BOMBS = {}
