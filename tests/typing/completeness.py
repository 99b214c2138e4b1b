"""Whether every public name of keras_fwd says its types: `python tests/typing/completeness.py`.

`pyright --verifytypes` looks at every module. Of what it finds, this counts the names that users
meet: those in `__all__`, the classes above them, and the classes of what they return. Not counted
is that Keras, whose classes ours derive from, has no types itself.
"""

import importlib
import inspect
import json
import os
import pathlib
import re
import subprocess
import sys

PACKAGES = (
    "keras_fwd",
    *(f"keras_fwd.{name}" for name in ("callbacks", "layers", "losses", "optimizers")),
    *(f"keras_fwd.{name}" for name in ("regularizers", "sensitivity", "spectrum", "testing")),
)
#: What public functions return or take, beside what is in an `__all__`.
REACHED = (
    "keras_fwd.optimizers._kronecker.block_report.BlockRow",
    "keras_fwd._models.training_pass.Recorder",
    "keras_fwd._models.training_pass.TrainingPass",
    "keras_fwd.optimizers._steps.convergence.Tolerances",
    "keras_fwd.optimizers._steps.expansion.Expansion",
    "keras_fwd.optimizers._steps.parts",
    "keras_fwd.regularizers.batch.Replay",
    "keras_fwd.typing",
)
OF_KERAS = re.compile(r"Type of metaclass unknown|Type of base class (unknown|.* is partially)")


def public_names():
    """Where the public functions and classes are defined."""
    names = set(REACHED)
    for package in PACKAGES:
        module = importlib.import_module(package)
        here = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == package]
        for name in getattr(module, "__all__", None) or [n for n in here if n[0] != "_"]:
            found = getattr(module, name)
            if not inspect.ismodule(found):
                above = found.__mro__ if inspect.isclass(found) else [found]
                names |= {f"{c.__module__}.{c.__qualname__}" for c in above}
    return {name for name in names if name.startswith("keras_fwd")}


def unknown(symbols, names):
    """`(number of public symbols, messages of those whose type is not known)`."""
    public = [
        s for s in symbols if any(s["name"] == n or s["name"].startswith(f"{n}.") for n in names)
    ]
    messages = {}
    for symbol in public:
        if not symbol["isTypeKnown"]:
            of_ours = [d["message"] for d in symbol["diagnostics"]]
            messages[symbol["name"]] = [m for m in of_ours if not OF_KERAS.search(m)]
    # A class of ours that derives from one of Keras' is "partially unknown" wherever it is named.
    blurred = {name.rsplit(".", 1)[-1] for name, left in messages.items() if not left}
    by_base = re.compile(rf'is partially unknown\s.*type is "({"|".join(blurred)})"$', re.S)
    left = [(name, m) for name, found in messages.items() for m in found if not by_base.search(m)]
    return len(public), left


def main():
    """Print what is not typed; the exit code."""
    command = [pathlib.Path(sys.executable).with_name("pyright"), "--verifytypes", "keras_fwd"]
    run = subprocess.run(
        [*command, "--ignoreexternal", "--outputjson"],
        capture_output=True,
        text=True,
        # An editable install is not found otherwise.
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
    )
    symbols = json.loads(run.stdout)["typeCompleteness"]["symbols"]
    count, left = unknown(symbols, public_names())
    for name, message in left:
        print(f"{name}: {message}")
    print(f"types: {count} public symbols, {len(left)} unknown")
    return bool(left) or count < 500


if __name__ == "__main__":
    sys.exit(main())
