"""The licenses of what a user installs: `python tests/support/licenses.py` writes docs/licenses.md.

What is installed with the package and with its extras for users, by their requirements; the
licenses as `pip-licenses` reads them. `test_licenses.py` says which are fine.
"""

import importlib.metadata
import json
import pathlib
import subprocess
import sys

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "licenses.md"
EXTRAS = ("report", "tensorboard", "examples")
HEAD = """\
# Licenses of what comes with keras_fwd

keras_fwd is under the Apache License 2.0. It holds no code of others, and these are the licenses of
what `pip install '.[report,tensorboard,examples]'` brings in, at the versions of
`constraints.txt`. `pip-licenses` reads them; `tests/project/test_licenses.py` checks that nothing
new came in, and `python tests/support/licenses.py` writes this page.

All of them may be used together with, and beside, software under the Apache License 2.0. The
strong copyleft ones (GPL, AGPL) and the LGPL do not occur. A weak one does, the Mozilla Public
License 2.0, whose terms hold for changes of a package's own files. Nobody changes them here, and
each stays a package of its own:

- certifi: the list of root certificates of `requests`, which TensorFlow requires;
- shtab: writes shell completion, in the extra `report`;
- tqdm: progress bars of tensorflow-datasets, in the extra `examples`; in part under MIT.

namex, which Keras requires, names no license in its metadata; its file of the license holds Apache
2.0.

| package | needed by | license |
|---|---|---|
"""


def closure(name, extras=()):
    """The distributions that one needs, itself included; by the markers of this environment."""
    found, queue = set(), [(canonicalize_name(name), tuple(extras))]
    seen = set()
    while queue:
        item = queue.pop()
        if item in seen:
            continue
        seen.add(item)
        found.add(item[0])
        for text in importlib.metadata.requires(item[0]) or []:
            wanted = Requirement(text)
            environments = [{"extra": extra} for extra in item[1] or ("",)]
            if wanted.marker is None or any(wanted.marker.evaluate(e) for e in environments):
                queue.append((canonicalize_name(wanted.name), tuple(sorted(wanted.extras))))
    return found


def licenses():
    """`{package: (extras that need it, license)}`."""
    core = closure("keras-fwd")
    by_extra = {extra: closure("keras-fwd", (extra,)) - core for extra in EXTRAS}
    needed = {name: ["keras_fwd"] for name in core}
    for extra, names in by_extra.items():
        for name in names:
            needed.setdefault(name, []).append(extra)
    del needed["keras-fwd"]
    command = [
        sys.executable,
        "-m",
        "piplicenses",
        "--format=json",
        "--from=mixed",
        "--with-system",
    ]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    said = {canonicalize_name(row["Name"]): row["License"] for row in json.loads(listed.stdout)}
    return {name: (", ".join(needed[name]), said[name].splitlines()[0]) for name in sorted(needed)}


def page():
    """The text of docs/licenses.md."""
    rows = [f"| {name} | {who} | {text} |" for name, (who, text) in licenses().items()]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
