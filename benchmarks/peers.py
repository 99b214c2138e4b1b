"""Environments of the peers, `.venv-peers/NAME`, made on first use from `requirements-NAME.txt`."""

import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
HOME = ROOT / ".venv-peers"


def python_of(name):
    """The peer's interpreter, or None where its environment cannot be made, with a word why."""
    wanted = (HERE / f"requirements-{name}.txt").read_text()
    place = HOME / name
    installed = place / "requirements.txt"
    if not installed.exists() or installed.read_text() != wanted:
        print(f"making the environment of the peer {name} …", flush=True)
        shutil.rmtree(place, ignore_errors=True)
        given = str(HERE / f"requirements-{name}.txt")
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "-r", given]
        for command in ([sys.executable, "-m", "venv", str(place)], pip):
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                print(f"no peer {name}, its figures stay empty: {last}", flush=True)
                return None
        installed.write_text(wanted)
    return str((place / "bin" / "python").relative_to(ROOT))
