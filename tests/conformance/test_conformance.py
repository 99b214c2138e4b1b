"""Each derivative is exact, or refused by a `LeakError` that names the op. See `__init__.py`."""

import collections
import contextlib
import dataclasses
import gc
import json
import os
import pathlib

import keras
import pytest
import tensorflow as tf

from conformance import (
    activations,
    applications,
    check,
    layers,
    losses,
    models,
    ops_keras,
    ops_tensorflow,
)
from conformance.case import listed, op

# Those that take long come first, so that two processes end at about the same time.
FAMILIES = [applications, models, layers, ops_tensorflow, ops_keras, losses, activations]


@contextlib.contextmanager
def precision(dtype):
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


@pytest.fixture(autouse=True)
def forgotten():
    yield
    keras.backend.clear_session()
    gc.collect()  # graphs hold themselves; hundreds of them would fill the memory
    gc.freeze()  # what stays is not looked through after each case, which takes longer than a case


def name_of(case):
    """The name that a namespace knows the case by."""
    return case.name.partition(" (")[0]


def not_covered(family):
    """The names of a namespace that its table does not speak of; aliases count as one."""
    known = {name_of(case) for case in family.CASES} | {entry.name for entry in family.LISTED}
    aliases = {}
    for name, value in family.NAMESPACE.items():
        aliases.setdefault(id(value), []).append(name)
    return sorted(min(names) for names in aliases.values() if not known & set(names))


def write(family, name, contents):
    """Keep what came out for `keras-fwd coverage`, if it is asked for."""
    folder = os.environ.get("CONFORMANCE_RESULTS")
    if folder:
        path = pathlib.Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        contents = {"family": family.FAMILY, **contents}
        (path / f"{family.__name__}.{name}.json").write_text(json.dumps(contents, indent=1))


def due(case, mode, order, outcome):
    """Whether an outcome is the one that the table says."""
    if case.leak and order >= case.leak_order:
        return outcome == f"LeakError: {case.leak}"
    if case.xla_fails and mode == "xla":
        return not outcome.startswith("wrong")
    return outcome == "exact"


def verify(case):
    with precision(case.floatx):
        rows = check.rows(case)
    problems = [
        f"{row.name} by {row.wrt}, {mode}, order {order}: {outcome}"
        for row in rows
        for mode, outcomes in row.outcomes.items()
        for order, outcome in outcomes.items()
        if not due(case, mode, order, outcome)
    ]
    return rows, problems


def each(select, recorded=False):
    return [
        pytest.param(
            family,
            index,
            id=f"{family.FAMILY}: {case.name}",
            marks=pytest.mark.recorded("conformance", kind=family.FAMILY) if recorded else (),
        )
        for family in FAMILIES
        for index, case in enumerate(family.CASES)
        if select(case)
    ]


@pytest.mark.conformance
@pytest.mark.parametrize(("family", "index"), each(lambda case: True, recorded=True))
def test_derivatives_are_exact_or_refused(family, index, record_property):
    case = family.CASES[index]
    try:
        rows, problems = verify(case)
    except Exception as error:
        rows = [check.Row(case.name, "–", {"graph": {1: check.failure(error)}})]
        problems = [f"{case.name} cannot be called: {error}"]
    outcomes = [o for row in rows for orders in row.outcomes.values() for o in orders.values()]
    counts = collections.Counter(f"{family.FAMILY}: {o}" for o in outcomes)
    record_property("found", dict(counts))
    write(family, f"{index:04d}", {"rows": [dataclasses.asdict(row) for row in rows]})
    assert rows, f"{case.name} has nothing to differentiate by"
    assert not problems, "\n" + "\n".join(problems)


@pytest.mark.conformance  # only because `keras-fwd coverage` reads what these tests write
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.FAMILY)
def test_names_are_written_for_the_coverage(family):
    listed = [dataclasses.asdict(entry) for entry in family.LISTED]
    write(family, "names", {"listed": listed, "not covered": not_covered(family)})


@pytest.mark.parametrize(("family", "index"), each(lambda case: case.fast))
def test_a_sample_is_exact(family, index):
    assert verify(family.CASES[index])[1] == []


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.FAMILY)
def test_every_name_is_covered_or_listed(family):
    missing = not_covered(family)
    assert not missing, f"give them a row in tests/conformance/: {', '.join(missing)}"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.FAMILY)
def test_no_name_is_in_the_table_twice_or_gone(family):
    names = [case.name for case in family.CASES] + [entry.name for entry in family.LISTED]
    assert len(set(names)) == len(names), [name for name in names if names.count(name) > 1]
    known = {name_of(case) for case in family.CASES} | {entry.name for entry in family.LISTED}
    assert not family.NAMESPACE or known <= family.NAMESPACE.keys(), known - family.NAMESPACE.keys()


# --- the checker itself ---------------------------------------------------------------------------


@tf.custom_gradient
def half_wrong(x):
    return x**3, lambda dy: dy * 3.0015 * x**2  # of 3


@tf.custom_gradient
def wrong_at_second_order(x):
    return x**3, lambda dy: dy * 3 * tf.stop_gradient(x) * x


PLANTED = {1: half_wrong, 2: wrong_at_second_order}


@pytest.mark.parametrize("order", PLANTED)
def test_a_wrong_derivative_is_found_at_its_order(order):
    case = op("planted", PLANTED[order], (3,), orders={"graph": 2})
    (row,), _ = verify(case)
    found = row.outcomes["graph"]
    assert found[order].startswith("wrong"), found
    assert order == 1 or found[1] == "exact"


def test_an_error_and_a_function_that_xla_does_not_compile_are_told_apart():
    def broken(x):
        return x**2 if tf.executing_eagerly() else undefined(x)  # noqa: F821

    (row,), problems = verify(op("planted", broken, (3,), orders={"eager": 1, "xla": 1}))
    assert row.outcomes["eager"][1] == "LeakError: NameError", row.outcomes  # it cannot be traced
    assert "xla" not in row.outcomes and "XLA does not compile" in row.note
    assert len(problems) == 1


def test_a_new_name_is_not_covered():
    class Family:
        NAMESPACE = {"Dense": 1, "Alias": 1, "Brand": 2, "Old": 3}  # noqa: RUF012
        CASES = [op("Dense (tanh)", tf.tanh, (2,))]  # noqa: RUF012
        LISTED = listed("a reason", "Old")

    assert not_covered(Family) == ["Brand"]
