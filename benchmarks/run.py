"""All benchmarks, or those that are named: records in `benchmarks/results`, pages in `docs`.

    python benchmarks/run.py [NAME …] [--quick] [--no-peers] [--list]

A full run writes `benchmarks/results/NAME.json` and then the pages. A peer has an environment of
its own, made on first use; where that fails its figures stay empty. `--quick` runs small sizes
without peers, in minutes, and writes `build/bench-quick/NAME.json` only.
"""

import argparse
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time

import page
import peers
import record
import suite

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
QUICK = ROOT / "build" / "bench-quick"


def command(name, quick, with_peers):
    """The command line of a benchmark, from the repository's root, but for `--json`."""
    row = suite.BENCHMARKS[name]
    words = [sys.executable, f"benchmarks/{row.script or name}.py"]
    words += shlex.split(f"--quick {row.quick}" if quick else row.full)
    if row.peer and with_peers and not quick:
        option, peer = row.peer
        if python := peers.python_of(peer):
            words += [option, python]
    return words


def run(name, quick, with_peers):
    """Run one; whether it succeeded."""
    words = command(name, quick, with_peers)
    target = (QUICK if quick else page.RESULTS) / f"{name}.json"
    own = ROOT / "build" / f"{name}.json"  # a run that fails must not touch the last record
    own.parent.mkdir(exist_ok=True)
    own.unlink(missing_ok=True)
    start = time.perf_counter()
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3")}
    done = subprocess.run([*words, "--json", str(own)], cwd=ROOT, env=quiet)
    if done.returncode or not own.exists():
        return False
    seconds = round(time.perf_counter() - start, 1)
    found = {"benchmark": name, **json.loads(own.read_text()), "seconds": seconds}
    record.write(target, found)
    own.unlink()
    return True


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="all if there is none")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument("--list", action="store_true", help="names, and minutes of a full run")
    options = parser.parse_args()
    if options.list:
        for name, row in suite.BENCHMARKS.items():
            print(f"{name:<20}{row.minutes:>4} min  {row.title}")
        return 0
    if unknown := set(options.names) - set(suite.BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; see --list")
    quick = options.quick
    names = options.names or [
        n for n, row in suite.BENCHMARKS.items() if row.quick is not None or not quick
    ]
    failed = []
    for i, name in enumerate(names, 1):
        print(f"\n== {name} ({i} of {len(names)})", flush=True)
        if not run(name, quick, options.peers):
            failed.append(name)
    if not quick:
        page.write()
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nall ran")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
