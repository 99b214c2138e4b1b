"""Whole models that hold what a layer alone does not show: masks, loops, skips, shared layers."""

import keras
import numpy as np
from keras import layers as L

from conformance.case import Case

FAMILY = "Models"
NAMESPACE = {}  # a choice, not an enumeration
LISTED = []

TOKENS = np.array([[1, 2, 0], [3, 0, 0]])  # 0 is masked
LOOP = {"graph": 2, "xla": 1}


def lstm_with_mask():
    x = keras.Input([3], dtype="int32")
    embedded = L.Embedding(4, 2, mask_zero=True)(x)
    return keras.Model(x, L.Dense(2)(L.LSTM(2)(embedded)))


def bidirectional_gru():
    return keras.Sequential([keras.Input([3, 2]), L.Bidirectional(L.GRU(2)), L.Dense(2)])


def conv_lstm():
    return keras.Sequential([keras.Input([2, 3, 3, 1]), L.ConvLSTM2D(1, 2), L.Flatten()])


def transformer_block():
    x = keras.Input([3, 4])
    attended = L.MultiHeadAttention(2, 2)(x, x, use_causal_mask=True)
    y = L.LayerNormalization()(L.Add()([x, L.Dropout(0.1)(attended)]))
    hidden = L.Dense(4)(L.Dense(6, "gelu")(y))
    return keras.Model(x, L.LayerNormalization()(L.Add()([y, hidden])))


def u_net():
    x = keras.Input([4, 4, 1])
    fine = L.Conv2D(2, 3, padding="same", activation="softplus")(x)
    coarse = L.Conv2D(2, 3, padding="same", activation="tanh")(L.AveragePooling2D(2)(fine))
    up = L.UpSampling2D(2, interpolation="bilinear")(coarse)
    return keras.Model(x, L.Conv2D(1, 1)(L.Concatenate()([fine, up])))


def shared_layers():
    a, b = keras.Input([3]), keras.Input([3])
    shared = keras.Sequential([L.Dense(3, "tanh"), L.LayerNormalization()])
    one, other = shared(a), shared(shared(b))
    return keras.Model([a, b], [L.Dot(1)([one, other]), L.Subtract()([one, other])])


def mlp():
    return keras.Sequential([keras.Input([3]), L.Dense(4, "tanh"), L.Dense(2, "softmax")])


def cnn():
    return keras.Sequential(
        [
            keras.Input([6, 6, 1]),
            L.Conv2D(2, 3),
            L.BatchNormalization(),
            L.Activation("relu"),
            L.MaxPooling2D(2),
            L.Flatten(),
            L.Dense(2),
        ]
    )


CASES = [
    Case("MLP", mlp, ((2, 3),), fast=True),
    Case("CNN with batch normalization", cnn, ((2, 6, 6, 1),)),
    Case("CNN with batch normalization (training)", cnn, ((2, 6, 6, 1),), training=True),
    Case("LSTM with mask, from an embedding", lstm_with_mask, (TOKENS,), orders=LOOP),
    Case("bidirectional GRU", bidirectional_gru, ((1, 3, 2),), orders=LOOP),
    Case("ConvLSTM", conv_lstm, ((1, 2, 3, 3, 1),), orders={"graph": 2}),
    Case("transformer block", transformer_block, ((1, 3, 4),)),
    Case(
        "U-Net with a bilinear skip connection",
        u_net,
        ((1, 4, 4, 1),),
        step=0.01,
        tolerance=2e-3,
    ),
    Case("shared layers", shared_layers, ((2, 3), (2, 3))),
]
