"""Every function in `keras.applications`: small images, no weights, one direction.

The networks are rectified: with a step of `1e-8` no rectifier or maximum changes sides, which
leaves 1e-7 of a first derivative and 1e-5 of a second one to compare.
"""

import types

from keras import applications

from conformance.case import Case, image

FAMILY = "Applications"
NAMESPACE = {
    name: value
    for name, value in vars(applications).items()
    if isinstance(value, types.FunctionType)
}

# The smallest that each of them takes, and the narrowest.
SIZES = {"Xception": 71, "InceptionV3": 75, "InceptionResNetV2": 75}
OPTIONS = {
    "MobileNet": {"alpha": 0.25},
    "MobileNetV2": {"alpha": 0.35},
    "MobileNetV3Large": {"alpha": 0.75, "minimalistic": False},
    "MobileNetV3Small": {"alpha": 0.75},
}


def application(name):
    size = SIZES.get(name, 32)

    def build():
        return getattr(applications, name)(
            weights=None,
            include_top=False,
            pooling="avg",
            input_shape=(size, size, 3),
            **OPTIONS.get(name, {}),
        )

    return Case(
        name,
        build,
        (image(1, size, size, 3),),
        wrt=("inputs",),
        lean=True,
        orders={"graph": 2},
        step=1e-8,
        tolerance=1e-4,
    )


LISTED = []
CASES = [application(name) for name in sorted(NAMESPACE)]
