"""Every class in `keras.layers`."""

import functools

import keras
import numpy as np
import tensorflow as tf
from keras import layers as L

from conformance.case import Case, image, listed, positive, spread, stateless

FAMILY = "Layers"
NAMESPACE = {
    name: value for name, value in vars(L).items() if isinstance(value, type)
}  # functions of the same name in lower case call the class

VECTORS, ROWS, PLANE, VOLUME = (2, 4), (2, 5, 3), (1, 5, 5, 2), (1, 4, 4, 4, 2)
IMAGE = image(1, 6, 6, 3)
IDS = np.array([[1, 0, 2], [2, 2, 1]])

# A loop that is differentiated three times takes a minute to be traced: the deepest order is left
# to one cell of each kind.
LOOP = {"graph": 2, "xla": 1}
# Kernels that compute in float32 whatever they are given.
SINGLE = {"step": 0.01, "tolerance": 2e-3}
NEAREST = "TensorFlow has no compiled kernel of the first gradient either"
APART = {"step": 1e-3, "tolerance": 2e-3}  # so small that no other value becomes the maximum


def one(name, build, *inputs, **options):
    return Case(name, build, inputs, **options)


def random(name, build, *inputs, **options):
    """A layer that draws numbers, in training with a fixed seed, and at rest."""
    options = {"call": stateless, "random": True, **options}
    return Case(f"{name} (training)", build, inputs, **options)


def with_states(cell, x, *states):
    return cell(x, list(states) if len(states) > 1 else states[0])


def pairwise(layer, query, value):
    return layer(query, value)


CORE = [
    one("Activation", lambda: L.Activation("tanh"), VECTORS),
    one("ActivityRegularization", lambda: L.ActivityRegularization(0.1, 0.1), VECTORS),
    one("Dense", lambda: L.Dense(3, "tanh"), VECTORS, fast=True),
    one("Dense (softsign)", lambda: L.Dense(3, "softsign"), VECTORS),
    one("Dense (LoRA)", lambda: lora(L.Dense(3)), VECTORS, **SINGLE),
    one("EinsumDense", lambda: L.EinsumDense("abc,cd->abd", (None, 2)), ROWS),
    one("Embedding", lambda: L.Embedding(3, 2), IDS),
    one("ReversibleEmbedding", lambda: L.ReversibleEmbedding(3, 2), IDS),
    one(
        "ReversibleEmbedding (reverse)",
        lambda: built_on_ids(L.ReversibleEmbedding(3, 2)),
        (2, 2),
        call=lambda layer, x: layer(x, reverse=True),
    ),
    one("Identity", L.Identity, VECTORS),
    one("Lambda", lambda: L.Lambda(lambda x: x * tf.sin(x)), VECTORS),
    one("Masking", L.Masking, ROWS),
    one("SpectralNormalization", lambda: L.SpectralNormalization(L.Dense(3)), VECTORS),
    one(
        "SpectralNormalization (training)",
        lambda: L.SpectralNormalization(L.Dense(3)),
        VECTORS,
        training=True,
        wrt=("weights",),
        leak="AssignVariableOp",
        note="assigns its kernel, and reads it again",
    ),
    one("TimeDistributed", lambda: L.TimeDistributed(L.Dense(2, "tanh")), ROWS, orders=LOOP),
    one("TFSMLayer", lambda: saved_model(), VECTORS),
]


def lora(layer):
    layer.build((None, 4))
    layer.enable_lora(2)
    return layer


def built_on_ids(layer):
    layer(IDS)
    return layer


@functools.cache
def saved_model():
    import tempfile

    model = keras.Sequential([keras.Input([4], dtype="float64"), L.Dense(3, "tanh")])
    folder = tempfile.mkdtemp()
    model.export(folder, verbose=False)
    return L.TFSMLayer(folder, call_endpoint="serve")


ACTIVATIONS = [
    one("ELU", L.ELU, VECTORS),
    one("LeakyReLU", L.LeakyReLU, VECTORS),
    one("PReLU", L.PReLU, VECTORS),
    one("ReLU", L.ReLU, VECTORS),
    one("Softmax", L.Softmax, VECTORS),
]

CONVOLUTIONS = [
    one("Conv1D", lambda: L.Conv1D(2, 3), ROWS),
    one(
        "Conv1D (causal, dilated)", lambda: L.Conv1D(2, 2, padding="causal", dilation_rate=2), ROWS
    ),
    one("Conv2D", lambda: L.Conv2D(2, 3, activation="tanh"), PLANE),
    one("Conv2D (strided, same)", lambda: L.Conv2D(2, 3, 2, "same"), PLANE),
    one("Conv2D (groups)", lambda: L.Conv2D(2, 2, groups=2), PLANE),
    one("Conv2D (groups, strided)", lambda: L.Conv2D(4, 3, 2, "same", groups=2), PLANE),
    one("Conv3D", lambda: L.Conv3D(2, 2), VOLUME),
    one("Conv1DTranspose", lambda: L.Conv1DTranspose(2, 3, 2), ROWS),
    one("Conv2DTranspose", lambda: L.Conv2DTranspose(2, 3, 2), PLANE),
    one("Conv2DTranspose (same)", lambda: L.Conv2DTranspose(2, 3, 2, "same"), PLANE),
    one("Conv3DTranspose", lambda: L.Conv3DTranspose(2, 2), VOLUME),
    one("DepthwiseConv1D", lambda: L.DepthwiseConv1D(2, depth_multiplier=2), ROWS),
    one("DepthwiseConv2D", lambda: L.DepthwiseConv2D(2), PLANE),
    one("DepthwiseConv2D (strided)", lambda: L.DepthwiseConv2D(3, 2, "same"), PLANE),
    one("SeparableConv1D", lambda: L.SeparableConv1D(2, 2), ROWS),
    one("SeparableConv2D", lambda: L.SeparableConv2D(2, 2), PLANE),
]


def pooling(kind, d, args, shape):
    single = d == 3 and not kind.startswith("Global")  # no kernel in float64
    build = functools.partial(getattr(L, f"{kind}{d}D"), *args, dtype="float32" if single else None)
    return one(f"{kind}{d}D", build, spread(*shape), **APART if single else {})


POOLING = [
    *(
        pooling(kind, d, args, shape)
        for d, shape in ((1, ROWS), (2, PLANE), (3, VOLUME))
        for kind, args in {
            "AveragePooling": [2],
            "MaxPooling": [2],
            "GlobalAveragePooling": [],
            "GlobalMaxPooling": [],
            "AdaptiveAveragePooling": [2],
            "AdaptiveMaxPooling": [2],
        }.items()
    ),
    one("AveragePooling2D (same)", lambda: L.AveragePooling2D(3, 2, "same"), PLANE),
    one("MaxPooling2D (overlapping)", lambda: L.MaxPooling2D(3, 2), PLANE),
    one("MaxPooling2D (same)", lambda: L.MaxPooling2D(2, padding="same"), PLANE),
]

NORMALIZATION = [
    one("BatchNormalization", L.BatchNormalization, VECTORS),
    one("BatchNormalization (training)", L.BatchNormalization, (4, 3), training=True),
    one("BatchNormalization (training, fused)", L.BatchNormalization, (3, 2, 2, 2), training=True),
    one("GroupNormalization", lambda: L.GroupNormalization(2), PLANE),
    one("LayerNormalization", L.LayerNormalization, VECTORS, fast=True),
    one("LayerNormalization (axes)", lambda: L.LayerNormalization([1, 2]), ROWS),
    one("RMSNormalization", L.RMSNormalization, VECTORS),
    one("UnitNormalization", L.UnitNormalization, VECTORS),
    one("Normalization", lambda: L.Normalization(mean=[0.1] * 4, variance=[2.0] * 4), VECTORS),
]

ATTENTION = [
    one("AdditiveAttention", L.AdditiveAttention, (1, 2, 3), (1, 4, 3)),
    one("Attention", lambda: L.Attention(use_scale=True), (1, 2, 3), (1, 4, 3)),
    one("Attention (concat)", lambda: L.Attention(score_mode="concat"), (1, 2, 3), (1, 4, 3)),
    one(
        "GroupQueryAttention",
        lambda: L.GroupQueryAttention(2, 4, 2),
        (1, 2, 3),
        (1, 3, 3),
        call=pairwise,
    ),
    one(
        "MultiHeadAttention",
        lambda: L.MultiHeadAttention(2, 2),
        (1, 2, 3),
        (1, 3, 3),
        call=pairwise,
    ),
    one(
        "MultiHeadAttention (causal)",
        lambda: L.MultiHeadAttention(2, 2),
        (1, 3, 2),
        call=lambda layer, x: layer(x, x, use_causal_mask=True),
    ),
]

SHAPES = [
    one("Cropping1D", lambda: L.Cropping1D(1), ROWS),
    one("Cropping2D", lambda: L.Cropping2D(1), PLANE),
    one("Cropping3D", lambda: L.Cropping3D(1), VOLUME),
    one("Flatten", L.Flatten, ROWS),
    one("Permute", lambda: L.Permute((2, 1)), ROWS),
    one("RepeatVector", lambda: L.RepeatVector(2), VECTORS),
    one("Reshape", lambda: L.Reshape((2, 2)), VECTORS),
    one("UpSampling1D", lambda: L.UpSampling1D(2), ROWS),
    one("UpSampling2D", lambda: L.UpSampling2D(2), PLANE),
    *(
        one(
            f"UpSampling2D ({method})",
            lambda method=method: L.UpSampling2D(2, interpolation=method, dtype="float32"),
            PLANE,
            **SINGLE,
        )
        for method in ("bilinear", "bicubic", "lanczos3", "lanczos5")
    ),
    one("UpSampling3D", lambda: L.UpSampling3D(2), VOLUME),
    one("ZeroPadding1D", lambda: L.ZeroPadding1D(1), ROWS),
    one("ZeroPadding2D", lambda: L.ZeroPadding2D(1), PLANE),
    one("ZeroPadding3D", lambda: L.ZeroPadding3D(1), VOLUME),
]

MERGING = [
    *(
        one(name, getattr(L, name), VECTORS, positive(2, 4))
        for name in ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract")
    ),
    one("Dot", lambda: L.Dot(1), VECTORS, positive(2, 4)),
    one("Dot (normalized)", lambda: L.Dot(1, normalize=True), VECTORS, positive(2, 4)),
]

RECURRENT = [
    one("SimpleRNNCell", lambda: L.SimpleRNNCell(2), VECTORS, (2, 2), call=with_states),
    one("GRUCell", lambda: L.GRUCell(2), VECTORS, (2, 2), call=with_states),
    one("LSTMCell", lambda: L.LSTMCell(2), VECTORS, (2, 2), (2, 2), call=with_states),
    one(
        "StackedRNNCells",
        lambda: L.StackedRNNCells([L.SimpleRNNCell(2), L.GRUCell(2)]),
        VECTORS,
        (2, 2),
        (2, 2),
        call=with_states,
    ),
    one("SimpleRNN", lambda: L.SimpleRNN(2), ROWS, orders={"graph": 3}),
    one("GRU", lambda: L.GRU(2), ROWS, orders=LOOP),
    one("GRU (unrolled)", lambda: L.GRU(2, unroll=True), (2, 2, 3), orders={"graph": 3}),
    one("LSTM", lambda: L.LSTM(2, return_sequences=True), ROWS, orders=LOOP),
    one("LSTM (unrolled)", lambda: L.LSTM(2, unroll=True), (2, 2, 3), orders={"graph": 3}),
    one("RNN (softsign)", lambda: L.RNN(L.SimpleRNNCell(2, "softsign")), ROWS, orders=LOOP),
    one("Bidirectional", lambda: L.Bidirectional(L.SimpleRNN(2)), ROWS, orders=LOOP),
    one("ConvLSTM1D", lambda: L.ConvLSTM1D(1, 2), (1, 2, 3, 1), orders={"graph": 2}),
    one("ConvLSTM2D", lambda: L.ConvLSTM2D(1, 2), (1, 2, 3, 3, 1), orders={"graph": 2}),
    one("ConvLSTM3D", lambda: L.ConvLSTM3D(1, 2), (1, 2, 2, 2, 2, 1), orders={"graph": 2}),
]

NOISE = [
    *(
        random(name, functools.partial(getattr(L, name), 0.4, seed=1), shape)
        for name, shape in {
            "AlphaDropout": VECTORS,
            "Dropout": VECTORS,
            "GaussianDropout": VECTORS,
            "GaussianNoise": VECTORS,
            "SpatialDropout1D": ROWS,
            "SpatialDropout2D": PLANE,
            "SpatialDropout3D": VOLUME,
        }.items()
    ),
    one("Dropout", lambda: L.Dropout(0.4), VECTORS),
]

IMAGES = [
    one("CenterCrop", lambda: L.CenterCrop(3, 3), IMAGE),
    one("CenterCrop (upsampling)", lambda: L.CenterCrop(8, 8, dtype="float32"), IMAGE, **SINGLE),
    one("Resizing (bilinear, float64)", lambda: L.Resizing(4, 4), IMAGE, **SINGLE),
    one("Rescaling", lambda: L.Rescaling(2.0, -1.0), IMAGE),
    *(
        one(
            f"Resizing ({method}{', antialias' * antialias})",
            lambda method=method, antialias=antialias: L.Resizing(
                4, 4, interpolation=method, antialias=antialias, dtype="float32"
            ),
            IMAGE,
            xla_fails=NEAREST if method == "nearest" else "",
            **SINGLE,
        )
        for method in ("bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5")
        for antialias in (False, True)
    ),
    one(
        "Resizing (crop to aspect ratio)",
        lambda: L.Resizing(4, 3, crop_to_aspect_ratio=True, dtype="float32"),
        IMAGE,
        **SINGLE,
    ),
    one(
        "Resizing (pad to aspect ratio)",
        lambda: L.Resizing(4, 3, pad_to_aspect_ratio=True, dtype="float32"),
        IMAGE,
        **SINGLE,
    ),
    one("Solarization", lambda: L.Solarization(value_range=(0, 1)), IMAGE),
    one("AutoContrast", lambda: L.AutoContrast(value_range=(0, 1)), IMAGE),
    one("Equalization", lambda: L.Equalization(value_range=(0, 1)), IMAGE, **SINGLE),
    one(
        "MelSpectrogram",
        lambda: L.MelSpectrogram(8, 4, 8, sampling_rate=100, num_mel_bins=3, min_freq=5),
        (1, 24),
        floatx="float32",
        **{**SINGLE, "step": 1e-3},
    ),
    one(
        "STFTSpectrogram",
        lambda: L.STFTSpectrogram("magnitude", frame_length=8, frame_step=4, fft_length=8),
        (1, 24, 1),
    ),
    one("Pipeline", lambda: L.Pipeline([L.Rescaling(2.0), L.CenterCrop(3, 3)]), IMAGE),
]


BATCH = image(2, 6, 6, 3)


def augmentation(name, *args, point=BATCH, accuracy=SINGLE, case=None, **options):
    kwargs = {"seed": 3, **options}
    build = functools.partial(getattr(L, name), *args, **kwargs)
    return random(name, build, point, **accuracy, **(case or {}))


# No step meets two equal channels, where the functions of hue and saturation have their kinks.
COLORS = {"point": 0.5 + spread(1, 2, 2, 3) / 5, "accuracy": {"step": 1e-3, "tolerance": 5e-3}}


UNIT = {"value_range": (0, 1)}
AUGMENTATION = [
    augmentation(
        "RandAugment", case={"floatx": "float32", "orders": {"graph": 2, "eager": 1}}, **UNIT
    ),
    augmentation("RandomBrightness", 0.2, **COLORS, **UNIT),
    augmentation("RandomColorDegeneration", 0.5, **UNIT),
    augmentation(
        "RandomColorJitter",
        brightness_factor=0.2,
        contrast_factor=0.2,
        saturation_factor=0.2,
        **COLORS,
        **UNIT,
    ),
    augmentation("RandomContrast", 0.2, **UNIT),
    augmentation("RandomCrop", 4, 4),
    augmentation("RandomElasticTransform", 1.0, **UNIT),
    augmentation("RandomErasing", 1.0, **UNIT),
    augmentation("RandomFlip"),
    augmentation("RandomGaussianBlur", 1.0, **UNIT),
    augmentation("RandomGrayscale", 1.0),
    augmentation("RandomHue", 0.2, **COLORS, **UNIT),
    augmentation("RandomInvert", 1.0, **UNIT),
    augmentation("RandomPerspective", 1.0),
    augmentation("RandomRotation", 0.1, case={"floatx": "float32"}),
    augmentation("RandomSaturation", 0.5, **COLORS, **UNIT),
    augmentation("RandomSharpness", 0.5, **UNIT),
    augmentation("RandomShear", 0.2, 0.2),
    augmentation("RandomTranslation", 0.2, 0.2),
    augmentation("RandomZoom", 0.2),
    *(
        random(
            name,
            lambda name=name: getattr(L, name)(seed=3),
            BATCH,
            floatx="float32",
            call=lambda layer, x: stateless(layer, {"images": x, "labels": LABELS})["images"],
            **SINGLE,
        )
        for name in ("CutMix", "MixUp")
    ),
]
LABELS = tf.constant([[1.0, 0.0], [0.0, 1.0]])

CASES = [
    *CORE,
    *ACTIVATIONS,
    *CONVOLUTIONS,
    *POOLING,
    *NORMALIZATION,
    *ATTENTION,
    *SHAPES,
    *MERGING,
    *RECURRENT,
    *NOISE,
    *IMAGES,
    *AUGMENTATION,
]

LISTED = [
    *listed("abstract: what derives from it is differentiated", "Layer Wrapper"),
    *listed("no function: describes an input", "InputLayer InputSpec"),
    *listed("integers or strings in", "CategoryEncoding HashedCrossing Hashing IntegerLookup"),
    *listed("integers or strings in", "StringLookup TextVectorization"),
    *listed("integers out", "Discretization"),
    *listed("piecewise constant: looks values up", "ContrastLimitedAdaptiveHistogramEqualization"),
    *listed("piecewise constant: rounds", "RandomPosterization"),
    *listed("draws other numbers in every call, whatever its seed", "AugMix"),
    *listed("boxes, not images: counts and cuts them", "MaxNumBoundingBoxes"),
    *listed("needs another framework, and the backend of it", "FlaxLayer JaxLayer"),
    *listed("needs another framework, and the backend of it", "TorchModuleWrapper"),
]
