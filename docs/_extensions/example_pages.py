"""The examples as pages of the gallery.

The examples are scripts with `# %% Title` cells and a docstring in plain text. sphinx-gallery reads
titles in reStructuredText; what it is given are copies in which each title is underlined.
"""

import re
import shutil
import time
from pathlib import Path

from sphinx_gallery.scrapers import figure_rst

_started = time.time()  # when the example that runs did
_shown: set[Path] = set()


def staged(root: Path) -> Path:
    """Copies `examples/` to `build/examples/`, with titles that sphinx-gallery reads."""
    source, target = root / "examples", root / "build" / "examples"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in sorted(source.glob("*.*")):
        text = path.read_text(encoding="utf-8")
        numbered = re.match(r"\d.*\.py$", path.name)
        (target / path.name).write_text(titled(text) if numbered else text, encoding="utf-8")
    return target


def titled(script: str) -> str:
    """The script with its summary and the names of its cells as titles, the command as code."""
    summary, rest = script.removeprefix('"""').split("\n\n", 1)
    title = " ".join(summary.split()).rstrip(".")
    rest = re.sub(r"\n\n(?=    \S)", "\n\n::\n\n", rest, count=1)
    cells = re.sub(r"^# %% (.+)$", _underlined, rest, flags=re.M)
    return f'"""\n{title}\n{"=" * len(title)}\n\n{cells}'


def _underlined(cell: re.Match) -> str:
    return f"# %%\n# {cell[1]}\n# {'-' * len(cell[1])}"


def pictures(block, block_vars, gallery_conf) -> str:
    """Shows what an example saved in its folder `OUT`: the picture is the same as a user's."""
    out = block_vars["example_globals"].get("OUT")
    shown = []
    for path in sorted(out.glob("*.png")) if out else []:
        if path.stat().st_mtime >= _started and path not in _shown:
            shown.append(next(block_vars["image_path_iterator"]))
            shutil.copyfile(path, shown[-1])
            _shown.add(path)
    return figure_rst(shown, gallery_conf["src_dir"])


def reset(gallery_conf, fname) -> None:
    """Gives each example Keras and TensorFlow as they are in a new process."""
    import logging

    import keras
    import matplotlib.pyplot as plt

    global _started
    _started = time.time()
    plt.close("all")
    keras.backend.clear_session()
    keras.config.set_floatx("float32")  # and no policy: one of its own would outrank `floatx`
    keras.utils.set_random_seed(0)
    logging.getLogger("tensorflow").setLevel(logging.WARNING)
