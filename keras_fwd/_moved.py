"""Where classes lived in version 0.1.0: a pickle that it wrote names a class by its module.

A pickled report or result, or a model that was copied to another process, names the modules of its
own class and of every class inside it. Those modules have moved since; the names in a file stay. So
the old names stand in `sys.modules`, where `pickle` looks first, and give these classes and nothing
else: code that imports anything more from an old place fails with Python's own `ImportError`.

Only classes that an instance of a public class holds have a row. Files of Keras (`.keras`) and JSON
name no module and need none.
"""

import importlib
import sys
import types

#: Old module -> new module, and the classes that are looked up there, under their old names.
CLASSES = {
    "keras_fwd.callbacks.budget": ("keras_fwd.callbacks._measuring.budget", {"Budget"}),
    "keras_fwd.callbacks.events": ("keras_fwd.callbacks._measuring.events", {"EventWriter"}),
    "keras_fwd.callbacks.evolution": (
        "keras_fwd.callbacks._measuring.evolution",
        {"Moments", "_Moment"},
    ),
    "keras_fwd.custom_jvp": ("keras_fwd._derivatives.custom_jvp", {"custom_jvp"}),
    "keras_fwd.leaks.report": ("keras_fwd._leaks.report", {"Leak", "LeakReport"}),
    "keras_fwd.optimizers.block_report": (
        "keras_fwd.optimizers._kronecker.block_report",
        {"BlockReport", "BlockRow"},
    ),
    "keras_fwd.optimizers.convergence": (
        "keras_fwd.optimizers._steps.convergence",
        {"Tolerances"},
    ),
    "keras_fwd.optimizers.minimization": (
        "keras_fwd.optimizers._residuals.minimization",
        {"MinimizeResult"},
    ),
    "keras_fwd.regularize": (
        "keras_fwd.layers.regularize",
        {"LossPenalty", "LossRegularizedModel", "RegularizedModel"},
    ),
    "keras_fwd.sensitivity.about": ("keras_fwd.sensitivity._measuring.notes", {"About"}),
    "keras_fwd.sensitivity.accumulator": (
        "keras_fwd.sensitivity._statistics.accumulator",
        {"Accumulator"},
    ),
    "keras_fwd.sensitivity.changes": ("keras_fwd.sensitivity._statistics.changes", {"Change"}),
    "keras_fwd.sensitivity.estimates": (
        "keras_fwd.sensitivity._statistics.estimates",
        {"Estimate", "Evolution", "Groups", "InputShape", "Interactions", "Sample"},
    ),
    "keras_fwd.sensitivity.moments": (
        "keras_fwd.sensitivity._statistics.moments",
        {"GroupSums", "Moments", "Reservoir"},
    ),
    "keras_fwd.sensitivity.run": ("keras_fwd.sensitivity._measuring.run", {"Source"}),
}


def register():
    """Put the old modules where `pickle` finds them; nothing is imported before it is asked for."""
    for old, (new, names) in CLASSES.items():
        module = types.ModuleType(old, f"Classes that pickles of version 0.1.0 find here: {new}.")
        module.__dict__["__getattr__"] = _lookup(old, new, names)
        sys.modules[old] = module


def _lookup(old, new, names):
    def lookup(name):
        if name not in names:
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        return getattr(importlib.import_module(new), name)

    return lookup
