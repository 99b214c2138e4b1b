"""What the drawn and the exhaustive checks found, and shares of them where nothing changed.

A suite whose cases all ran and found nothing wrong leaves a record, which is committed: what came
out, and a digest of the code and the versions that it depends on. As long as the digest is the
same, a share of the cases runs, drawn from the commit, so that many commits run them all; where it
differs, all of them. With `WHOLE=1` in the environment everything runs, whatever is recorded.
"""

import collections
import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import re
import subprocess

import pytest

from support import sources

TESTS = sources.ROOT / "tests"
FOLDER = TESTS / "records"
MARKER = "recorded"
#: Told to the processes that run tests: for each suite, the commit of a share, or nothing.
PLAN = "KERAS_FWD_TEST_PLAN"
WHOLE = "WHOLE"
ALWAYS = ("support/cases.py",)  # fixtures, which are named by strings


@dataclasses.dataclass(frozen=True)
class Suite:
    """Checks with a record of their own.

    Attributes:
        files: The tests, in `tests/`.
        one_in: Which part of the cases of each kind a share is.
        more: Other files that matter, from the root of the checkout.
    """

    files: tuple
    one_in: int = 16
    more: tuple = ()


SUITES = {
    "conformance": Suite(("conformance/test_conformance.py",), one_in=12),
    "random stacks": Suite(("faults/test_random_stacks.py",)),
    "killed trainings": Suite(("faults/test_killed_training.py",), one_in=8),
    "fuzzed files": Suite(("faults/test_fuzzed_files.py",)),
    "laws": Suite(("faults/test_properties.py", "faults/test_higher_properties.py"), one_in=10),
}


# --- digests, records and shares ------------------------------------------------------------------


def digest(name):
    """Of all that the suite depends on."""
    suite = SUITES[name]
    files = [TESTS / file for file in (*suite.files, *ALWAYS)]
    more = [sources.ROOT / file for file in suite.more]
    return sources.digest(_tree(), files, more)


_known_tree = []


def _tree():
    if not _known_tree:
        _known_tree.append(sources.checkout())
    return _known_tree[0]


def path_of(name):
    return FOLDER / f"{name.replace(' ', '_')}.json"


def record_of(name):
    """What was recorded, or nothing."""
    path = path_of(name)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def commit():
    """The commit that a share is drawn from; without one, a fixed word."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, cwd=sources.ROOT, capture_output=True, text=True)
    except OSError:
        return "no commit"
    return done.stdout.strip()[:12] if done.returncode == 0 else "no commit"


def share(cases, commit, one_in):
    """Of each kind a part of the cases, at least one.

    Args:
        cases: Pairs of kind and name.
        commit: What is drawn from: the same cases for the same one.
        one_in: Which part.
    """
    kinds = collections.defaultdict(list)
    for kind, name in cases:
        kinds[kind].append((hashlib.sha256(f"{commit} {name}".encode()).digest(), name))
    return {
        name
        for drawn in kinds.values()
        for _, name in sorted(drawn)[: max(1, round(len(drawn) / one_in))]
    }


def drawn_from(name):
    """The commit of the share that this run takes of a suite; None where it runs whole."""
    return json.loads(os.environ.get(PLAN, "{}")).get(name)


# --- what pytest calls (see conftest.py) ----------------------------------------------------------


class Records:
    """The plugin, in the process that was started and in those that run tests for it."""

    def __init__(self, config):
        self.config = config
        self.worker = hasattr(config, "workerinput")
        self.digests, self.counts, self.written = {}, {}, set()
        self.found = collections.defaultdict(collections.Counter)
        self.passed, self.wrong = collections.Counter(), collections.Counter()
        self.before = {name: record_of(name) for name in SUITES}
        if not self.worker:
            os.environ[PLAN] = json.dumps(self.plan())

    def plan(self):
        """By suite the commit of its share, where its digest is as recorded."""
        expression = self.config.option.markexpr
        asked = self.config.option.keyword or any("::" in arg for arg in self.config.args)
        if os.environ.get(WHOLE) or asked or "not slow" in expression:
            return {}
        from_commit, plan = commit(), {}
        for name in SUITES:
            if ("conformance" in expression) != (name == "conformance") and expression:
                continue
            recorded = record_of(name)
            self.digests[name] = digest(name)
            if recorded and recorded["digest"] == self.digests[name]:
                plan[name] = from_commit
        return plan

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        """Leave out what is not in a share, and count."""
        cases, left_out = collections.defaultdict(list), set()
        for item in items:
            if mark := item.get_closest_marker(MARKER):
                cases[mark.args[0]].append((mark.kwargs.get("kind"), item.nodeid))
        for name, pairs in cases.items():
            self.counts[name] = [len(pairs), len(pairs)]
            from_commit = drawn_from(name)
            if from_commit and name != "laws":  # of which fewer examples are drawn
                chosen = share(pairs, from_commit, SUITES[name].one_in)
                left_out |= {id for _, id in pairs} - chosen
                self.counts[name][0] = len(chosen)
        if left_out:
            self.config.hook.pytest_deselected(items=[i for i in items if i.nodeid in left_out])
            items[:] = [item for item in items if item.nodeid not in left_out]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        """Mark what is recorded in the reports, which travel between processes."""
        if mark := item.get_closest_marker(MARKER):
            item.user_properties.append(("suite", mark.args[0]))

    def pytest_runtest_logreport(self, report):
        properties = dict(report.user_properties)
        name = properties.get("suite")
        if self.worker or name is None:
            return
        if report.failed or (report.when == "call" and not report.passed):
            self.wrong[name] += 1
        elif report.when == "call":
            self.passed[name] += 1
            self.found[name].update(_in_short(properties.get("found", {})))

    def pytest_sessionfinish(self, session):
        if self.worker:
            self.config.workeroutput["records"] = self.counts
            return
        for name, (_, all_of_them) in self.counts.items():
            if self.whole(name):
                self.write(name, all_of_them)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        self.counts |= getattr(node, "workeroutput", {}).get("records", {})

    def whole(self, name):
        """Whether all cases ran, and passed; a part that was asked for by name is none."""
        chosen, count = self.counts[name]
        asked = self.config.option.keyword or any("::" in arg for arg in self.config.args)
        return not asked and self.passed[name] == chosen == count and not self.wrong[name]

    def write(self, name, count):
        FOLDER.mkdir(exist_ok=True)
        self.written.add(name)
        contents = {
            "digest": digest(name),
            "date": datetime.date.today().isoformat(),
            "versions": sources.versions(),
            "cases": count,
            "found": dict(sorted(self.found[name].items())),
        }
        path_of(name).write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter):
        for name, counts in sorted(self.counts.items()):
            terminalreporter.write_line(self.line(name, *counts))
        if results := os.environ.get("CONFORMANCE_RESULTS"):
            chosen, count = self.counts.get("conformance", (0, 0))
            if chosen < count:  # what `keras-fwd coverage` must not take for everything
                pathlib.Path(results, "share").write_text(self.line("conformance", chosen, count))

    def line(self, name, chosen, count):
        """What ran of a suite, and why."""
        recorded, from_commit = record_of(name), drawn_from(name)
        if from_commit and name == "laws":
            part = f"one example in {SUITES[name].one_in} of each of {count} laws"
            return f"{name}: {_as_recorded(recorded)}; {part}, drawn from commit {from_commit}"
        if from_commit:
            part = f"a share of {chosen} of {count} cases"
            return f"{name}: {_as_recorded(recorded)}; {part}, drawn from commit {from_commit}"
        end = ", recorded" if name in self.written else ""
        if os.environ.get(WHOLE):
            return f"{name}: all {count} cases{end}"
        if not self.before.get(name):
            return f"{name}: there is no record; all {count} cases{end}"
        if self.digests.get(name) not in (None, self.before[name]["digest"]):
            date = self.before[name]["date"]
            return f"{name}: digest not as recorded on {date}; all {count} cases{end}"
        return f"{name}: {count} cases, which were asked for"


def _in_short(found):
    """What was found, without the messages of errors: their numbers are others each time."""
    short = collections.Counter()
    for what, count in found.items():
        short[re.sub(r"(error: \w+).*", r"\1", what, flags=re.S)] += count
    return short


def _as_recorded(recorded):
    return f"digest as recorded on {recorded['date']}"
