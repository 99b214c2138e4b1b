"""Tests that need more than the `test` extra skip without it, and say which extra has it."""

import pytest


def needed(module, extra="dev"):
    """The module; where it is not installed, the test that asks for it skips."""
    reason = f"{module} comes with the {extra} extra: pip install -e '.[{extra}]'"
    return pytest.importorskip(module, reason=reason)
