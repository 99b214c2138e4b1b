"""Every function in `keras.applications`: small images, no weights, one direction.

One of each architecture is differentiated twice, the others, which hold the same layers more
often, once. The widest are made narrower.

The networks are rectified: with a step of `1e-8` no rectifier or maximum changes sides, which
leaves 1e-7 of a first derivative and 1e-5 of a second one to compare.
"""

import types
import unittest.mock

import keras.src.applications.convnext
from keras import applications

from conformance.case import Case, image

FAMILY = "Applications"
NAMESPACE = {
    name: value
    for name, value in vars(applications).items()
    if isinstance(value, types.FunctionType)
}

TWICE = (
    "ConvNeXtTiny DenseNet121 EfficientNetB0 EfficientNetV2B0 InceptionResNetV2 InceptionV3 "
    "MobileNet MobileNetV2 MobileNetV3Small NASNetMobile ResNet50 ResNet50V2 VGG16 Xception"
).split()

# There is no public way to make them narrower.
CONVNEXT = keras.src.applications.convnext.MODEL_CONFIGS
NARROW = {
    name: {**config, "projection_dims": [width // 8 for width in config["projection_dims"]]}
    for name, config in CONVNEXT.items()
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

    @unittest.mock.patch.dict(CONVNEXT, NARROW)
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
        orders={"graph": 2 if name in TWICE else 1},
        step=1e-8,
        tolerance=1e-4,
    )


LISTED = []
CASES = [application(name) for name in sorted(NAMESPACE)]
