"""The layers and models that `jvp.py` times: Keras alone, so that a peer's process builds the same.

Each function returns a model and the shape of a batch for it.
"""

import functools

import keras

layers = keras.layers


def layer(build, shape):
    """A case of a single layer; `shape` is that of the batch."""

    def case():
        return keras.Sequential([keras.Input(shape[1:]), build()]), shape

    return case


IMAGES = (16, 64, 64, 32)
LAYERS = {
    "MaxPooling2D(2)": layer(lambda: layers.MaxPooling2D(2), IMAGES),
    "MaxPooling2D(3, stride 2)": layer(lambda: layers.MaxPooling2D(3, 2), IMAGES),
    "AveragePooling2D(2)": layer(lambda: layers.AveragePooling2D(2), IMAGES),
    "AveragePooling2D(3, stride 1, same)": layer(
        lambda: layers.AveragePooling2D(3, 1, "same"), IMAGES
    ),
    "UpSampling2D(2), nearest": layer(lambda: layers.UpSampling2D(2), (16, 32, 32, 32)),
    "UpSampling2D(2), bilinear": layer(
        lambda: layers.UpSampling2D(2, interpolation="bilinear"), (16, 32, 32, 32)
    ),
    "Conv2D(64, 3)": layer(lambda: layers.Conv2D(64, 3), (16, 32, 32, 64)),
    "Conv2D(64, 3, groups=4)": layer(lambda: layers.Conv2D(64, 3, groups=4), (16, 32, 32, 64)),
    "Conv2DTranspose(64, 3, 2)": layer(lambda: layers.Conv2DTranspose(64, 3, 2), (16, 16, 16, 64)),
    "DepthwiseConv2D(3)": layer(lambda: layers.DepthwiseConv2D(3), IMAGES),
    "DepthwiseConv2D(7)": layer(lambda: layers.DepthwiseConv2D(7), IMAGES),
    "Dense(1024)": layer(lambda: layers.Dense(1024), (128, 1024)),
    "swish": layer(lambda: layers.Activation("swish"), IMAGES),
    "gelu": layer(lambda: layers.Activation("gelu"), IMAGES),
    "relu": layer(lambda: layers.Activation("relu"), IMAGES),
    "tanh": layer(lambda: layers.Activation("tanh"), IMAGES),
    "softmax": layer(lambda: layers.Activation("softmax"), (4096, 256)),
    "LayerNormalization": layer(lambda: layers.LayerNormalization(), (4096, 256)),
    "BatchNormalization": layer(lambda: layers.BatchNormalization(), IMAGES),
    "GlobalAveragePooling2D": layer(lambda: layers.GlobalAveragePooling2D(), IMAGES),
}


def mlp():
    """784-1024-1024-1024-10, batch 128."""
    hidden = [layers.Dense(1024, "relu") for _ in range(3)]
    return keras.Sequential([keras.Input((784,)), *hidden, layers.Dense(10)]), (128, 784)


def cnn():
    """Two convolutions with max pooling, batch 64."""
    net = [keras.Input((28, 28, 1))]
    for filters in (32, 64):
        net += [layers.Conv2D(filters, 3, activation="relu"), layers.MaxPooling2D()]
    return keras.Sequential([*net, layers.Flatten(), layers.Dense(10)]), (64, 28, 28, 1)


def transformer():
    """Two blocks of 4 heads at width 128, 64 positions, batch 16."""
    inputs = x = keras.Input((64, 128))
    for _ in range(2):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 32)(x, x))
        x = layers.LayerNormalization()(x + layers.Dense(128)(layers.Dense(256, "gelu")(x)))
    return keras.Model(inputs, x), (16, 64, 128)


def lstm():
    """LSTM(128) over 100 steps of 32, batch 32."""
    return keras.Sequential([keras.Input((100, 32)), layers.LSTM(128)]), (32, 100, 32)


def gru():
    """GRU(128) over 100 steps of 32, batch 32."""
    return keras.Sequential([keras.Input((100, 32)), layers.GRU(128)]), (32, 100, 32)


def application(name):
    """A model of `keras.applications` at 96x96, batch 8, without trained weights."""
    shape = (96, 96, 3)
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=shape, include_top=False, pooling="avg")
    return model, (8, *shape)


APPLICATIONS = (
    "MobileNetV2 ResNet50 EfficientNetB0 EfficientNetV2B0 DenseNet121 NASNetMobile Xception VGG16 "
    "ConvNeXtTiny"
).split()
SMALL = {function.__name__: function for function in (mlp, cnn, transformer, lstm, gru)}
MODELS = SMALL | {name: functools.partial(application, name) for name in APPLICATIONS}
CASES = LAYERS | MODELS
