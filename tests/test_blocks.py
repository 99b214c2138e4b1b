"""Blocks of curvature: which weights share one, and their factors against dense Jacobians."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_fwd import blocks, curvature, double_gradient, fisher
from keras_fwd.model import TrainingPass

L = keras.layers
EXAMPLES = 4


@pytest.fixture(autouse=True)
def double_precision():
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


def blocks_of(model, x, run=None, kind="type-2", shared="expand", seed=0):
    """The blocks of a compiled model, and what `run(blocks, forward, cotangents)` returns."""
    training_pass = TrainingPass(model)
    found = []

    @tf.function(autograph=False)
    def trace(x, y):
        training_pass.batch = (x, y, None)
        values = [tf.identity(v.value) for v in training_pass.variables]
        forward = double_gradient.forward_pass("vjp", training_pass, values)
        leaves = forward.outputs["outputs"]
        found[:] = blocks.of_forward_pass(forward, leaves, shared)
        hessian = curvature.loss_hessian(training_pass.loss_of_leaves, leaves)
        seeds = tf.constant([seed, 0])
        cotangents = fisher.Cotangents(kind, training_pass, leaves, hessian, seeds)
        return run(found, forward, cotangents) if run else leaves

    x = tf.nest.map_structure(tf.constant, x)
    y = tf.nest.map_structure(tf.zeros_like, model(x))
    return found, tf.nest.map_structure(lambda t: t.numpy(), trace(x, y))


def factors(found, forward, cotangents):
    """`(left, right)` of each Kronecker block, the diagonal of each other."""

    def statistics(vectors):
        result = []
        for block in found:
            gradients = forward.gradients_at(list(block.outputs), [None, *vectors])
            if block.kind == "Kronecker":
                result.append(block.right(gradients))
            elif block.kind == "scale and shift":
                result.append(block.squares(gradients))
            else:
                pulled = forward.gradients_at([forward.sources[block.places[0]]], [None, *vectors])
                result.append(pulled[0] ** 2)
        return result

    rights = cotangents.sums(statistics)
    return [
        (block.left(), right) if block.kind == "Kronecker" else right
        for block, right in zip(found, rights, strict=True)
    ]


E = L.EinsumDense
LAYERS = {
    "Dense": (lambda: L.Dense(3), (5,)),
    "Dense without bias": (lambda: L.Dense(3, use_bias=False), (5,)),
    "Dense at positions": (lambda: L.Dense(3), (4, 5)),
    "Dense at positions in two dimensions": (lambda: L.Dense(2), (2, 3, 5)),
    "EinsumDense": (lambda: E("abc,cde->abde", [4, 2, 3], bias_axes="de"), (4, 5)),
    "EinsumDense of two axes": (lambda: E("abcd,cde->abe", [3, 3], bias_axes="e"), (3, 2, 5)),
    "EinsumDense by position": (lambda: E("abc,bcd->abd", [3, 2], bias_axes="bd"), (3, 5)),
    "EinsumDense turned": (lambda: E("abc,dc->abd", [3, 2], bias_axes="d"), (3, 5)),
    "Conv1D": (lambda: L.Conv1D(3, 2, strides=2), (7, 2)),
    "Conv1D causal, dilated": (lambda: L.Conv1D(3, 2, padding="causal", dilation_rate=2), (5, 2)),
    "Conv2D": (lambda: L.Conv2D(2, (2, 3)), (4, 5, 2)),
    "Conv2D same, strides": (lambda: L.Conv2D(2, 3, padding="same", strides=2), (5, 4, 2)),
    "Conv2D dilated": (lambda: L.Conv2D(2, 2, dilation_rate=2), (5, 4, 2)),
    "Conv2D same, dilated": (lambda: L.Conv2D(2, 3, dilation_rate=2, padding="same"), (5, 4, 2)),
    "Conv2D in groups": (lambda: L.Conv2D(4, 2, groups=2), (4, 3, 4)),
    "Conv3D": (lambda: L.Conv3D(2, 2), (3, 3, 2, 2)),
    "Conv3D dilated": (lambda: L.Conv3D(2, 2, dilation_rate=2), (3, 4, 3, 2)),
    "DepthwiseConv2D": (lambda: L.DepthwiseConv2D(2, depth_multiplier=2), (3, 4, 2)),
    "DepthwiseConv1D": (lambda: L.DepthwiseConv1D(2, padding="same"), (4, 3)),
    "TimeDistributed": (lambda: L.TimeDistributed(L.Dense(3)), (4, 5)),
}


def net_of(layer, shape):
    """The layer, then something that is not linear, then a readout of two outputs."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input(shape)
    y = L.Flatten()(keras.ops.tanh(layer(inputs)))
    model = keras.Model(inputs, L.Dense(2)(y))
    model.compile("sgd", "mse")
    for variable in model.trainable_variables:
        variable.assign(normal(*variable.shape) / 3)
    return model


def oracle(layer, model, x):
    """`(left, right)` of the layer's matrices, from Jacobians of the layer and of what follows."""
    kernel = layer.trainable_variables[0] if layer.trainable_variables else None
    assert kernel is not None
    with tf.GradientTape(persistent=True) as tape:
        z = layer(x)
    by_weight = [
        tape.jacobian(z, v.value, experimental_use_pfor=False).numpy()
        for v in layer.trainable_variables
    ]
    readout = model.layers[-1]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        outputs = readout(tf.reshape(tf.tanh(z), [EXAMPLES, -1]))
    by_z = tape.jacobian(outputs, z, experimental_use_pfor=False).numpy()
    scale = 2 / outputs.numpy().size  # the Hessian of the mean squared error
    # Σ over examples and outputs of (∂ outputs / ∂ W)ᵀ ∂ outputs / ∂ W, were all entries of z
    # independent: what "expand" stands for.
    return by_weight, by_z, scale


@pytest.mark.parametrize("name", LAYERS)
def test_factors_against_dense_jacobians(name):
    """Each row of ∂z/∂W is the input of one output: it holds `a` in the columns of that output.

    The factors are read off dense Jacobians: `Σ a aᵀ ⊗ Σ g gᵀ / rows`, restricted to a group.
    """
    make, shape = LAYERS[name]
    layer = make()
    model, x = net_of(layer, shape), normal(EXAMPLES, *shape)
    found, computed = blocks_of(model, x, run=factors)
    (block,) = [b for b in found if 0 in b.places]
    assert block.kind == "Kronecker", block
    left, right = computed[found.index(block)]
    by_weight, by_z, scale = oracle(layer, model, x)
    groups, _, m = block.shape
    assert len(block.places) == len(by_weight)
    parts = [
        weight.reshape(-1, *v.shape)
        for weight, v in zip(by_weight, layer.trainable_variables, strict=True)
    ]
    count = parts[0].shape[0]
    # Matrices of each row: by the block's own arrangement, the one thing taken from it.
    matrices = np.stack(
        [block.matrix([tf.constant(part[i]) for part in parts]).numpy() for i in range(count)]
    )  # [entries of z, groups, n, m]: zero but in the one column of its own
    columns = np.abs(matrices).sum(2)  # [entries, groups, m]
    assert ((columns > 0).sum((1, 2)) <= 1).all()
    a = matrices.sum(3)  # [entries, groups, n]
    gradients = by_z.reshape(EXAMPLES * 2, count)  # [examples · outputs, entries]
    # Which (group, column) an entry of z belongs to; inputs without zeros show it.
    where = owner_of(layer, block, shape)
    rows = count // (groups * m)
    expected_left = np.einsum("egn,egk->gnk", a, a) / m / rows
    expected_right = np.zeros((groups, m, m))
    for row in gradients:
        # Entries at one position: the same place among those of their own column.
        table = np.zeros((groups, m, rows))
        for group in range(groups):
            for column in range(m):
                mine = np.flatnonzero((where[:, 0] == group) & (where[:, 1] == column))
                table[group, column] = row[mine]
        expected_right += scale * np.einsum("gmr,gkr->gmk", table, table)
    np.testing.assert_allclose(left, expected_left, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(right, expected_right, rtol=1e-10, atol=1e-12)


def owner_of(layer, block, shape):
    """The group and column of each entry of the layer's outputs."""
    x = np.random.default_rng(0).uniform(1, 2, size=(EXAMPLES, *shape))
    with tf.GradientTape(persistent=True) as tape:
        z = layer(x)
    parts = [
        tape.jacobian(z, v.value, experimental_use_pfor=False).numpy().reshape(-1, *v.shape)
        for v in layer.trainable_variables
    ]
    owners = []
    for i in range(parts[0].shape[0]):
        matrix = block.matrix([tf.constant(part[i]) for part in parts]).numpy()
        group, _, column = np.argwhere(matrix)[0]
        owners.append((group, column))
    return np.array(owners)
