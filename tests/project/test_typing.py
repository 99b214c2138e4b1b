"""The types of the public interface: what `make lint` checks looks at all of it."""

import importlib
import inspect
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).parents[1] / "typing"
sys.path.append(str(HERE))

import completeness  # noqa: E402 - beside the file that pyright checks


@pytest.mark.parametrize("package", completeness.PACKAGES)
def test_every_public_name_is_used_in_the_file_that_is_checked_strictly(package):
    used = (HERE / "public_interface.py").read_text()
    module = importlib.import_module(package)
    for name in getattr(module, "__all__", []):
        if not inspect.ismodule(getattr(module, name)):
            assert name in used, f"{package}.{name}"


def test_what_is_not_typed_is_found_and_what_keras_leaves_open_is_not():
    def symbol(name, *messages):
        return {
            "name": name,
            "isTypeKnown": False,
            "diagnostics": [{"message": m} for m in messages],
        }

    missing = 'Type annotation for parameter "x" is missing'
    symbols = [
        symbol("keras_fwd.jvp", missing),
        symbol("keras_fwd.layers.Sealed", "Type of base class unknown"),
        symbol("keras_fwd.seal", 'Return type is partially unknown\n  Return type is "Sealed"'),
        symbol("keras_fwd.hessian", 'Return type is partially unknown\n  Return type is "Map"'),
        symbol("keras_fwd._spaces.nest.add", missing),
        {"name": "keras_fwd.vjp", "isTypeKnown": True, "diagnostics": []},
    ]
    names = ["keras_fwd.jvp", "keras_fwd.layers", "keras_fwd.seal", "keras_fwd.hessian"]
    count, left = completeness.unknown(symbols, [*names, "keras_fwd.vjp"])
    assert count == 5
    assert [name for name, _ in left] == ["keras_fwd.jvp", "keras_fwd.hessian"]


def test_public_names_include_bases_and_what_is_returned():
    names = completeness.public_names()
    assert {
        "keras_fwd._derivatives.double_gradient.jvp",
        "keras_fwd.optimizers._kronecker.kronecker_optimizer.KroneckerOptimizer",
        "keras_fwd.sensitivity.comparison.SensitivityComparison",
    } <= names


@pytest.mark.parametrize("package", ["keras_fwd", "keras_fwd_cli"])
def test_packages_say_that_they_are_typed(package):
    assert (pathlib.Path(__file__).parents[2] / package / "py.typed").is_file()
