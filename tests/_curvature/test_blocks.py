"""Blocks of curvature: which weights share one, and their factors against dense Jacobians."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_fwd
from keras_fwd._curvature import fisher, loss_hessian
from keras_fwd._curvature.blocks import blocks
from keras_fwd._derivatives import double_gradient
from keras_fwd._models.training_pass import TrainingPass

L = keras.layers
EXAMPLES = 4


pytestmark = pytest.mark.usefixtures("float64")


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
        hessian = loss_hessian.loss_hessian(training_pass.loss_of_leaves, leaves)
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


FAST = ("Dense", "Dense at positions", "EinsumDense", "Conv2D same, strides")


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in LAYERS]
)
def test_factors_against_dense_jacobians(name):
    """Each row of ∂z/∂W is the input of one output: it holds `a` in the columns of that output.

    The factors are read off dense Jacobians: `Σ a aᵀ ⊗ Σ g gᵀ / rows`, restricted to a group.
    """
    make, shape = LAYERS[name]
    layer = make()
    model, x = net_of(layer, shape), normal(EXAMPLES, *shape)
    found, computed = blocks_of(model, x, factors)
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


def kron(pair):
    left, right = pair
    return np.kron(left[0], right[0])


def ggn(model, loss, x):
    y = np.zeros(model(x).shape)
    return keras_fwd.gauss_newton(model, loss, x, y).to_dense().numpy()


def blocks_of_ggn(model, loss, x, found):
    """The diagonal blocks of the dense GGN: weights of a block lie together there."""
    dense = ggn(model, loss, x)
    ends = np.cumsum([0, *[v.shape.num_elements() for v in map(tf.constant, model.get_weights())]])
    return [
        dense[
            ends[b.places[0]] : ends[b.places[-1] + 1], ends[b.places[0]] : ends[b.places[-1] + 1]
        ]
        for b in found
    ]


def built(layers, shape, loss="mse"):
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input(shape), *layers])
    model.compile("sgd", loss)
    for variable in model.trainable_variables:
        variable.assign(normal(*variable.shape) / 2)
    return model


CROSS_ENTROPIES = {
    "mse": (None, "mse"),
    "softmax": ("softmax", "categorical_crossentropy"),
    "sigmoid": ("sigmoid", "binary_crossentropy"),
}


@pytest.mark.parametrize("name", CROSS_ENTROPIES)
def test_a_batch_of_one_is_the_block_ggn(name):
    activation, loss = CROSS_ENTROPIES[name]
    model = built([L.Dense(4, "tanh"), L.Dense(3, "relu"), L.Dense(3, activation)], (3,), loss)
    x = normal(1, 3)
    found, computed = blocks_of(model, x, factors)
    assert len(found) == 3
    for block, expected in zip(computed, blocks_of_ggn(model, loss, x, found), strict=True):
        assert np.abs(expected).max() > 1e-6
        np.testing.assert_allclose(kron(block), expected, rtol=1e-9, atol=1e-12)


def test_an_output_that_another_one_adds_to_has_the_gradients_of_both():
    inputs = keras.Input((3,))
    first = L.Dense(2)(inputs)
    model = keras.Model(inputs, [first, L.Add()([first, L.Dense(2, use_bias=False)(inputs)])])
    model.compile("sgd", ["mse", "mse"])
    found, ((_, right), (_, other)) = blocks_of(model, normal(1, 3), factors)
    assert [block.kind for block in found] == ["Kronecker"] * 2
    # Each mean square of two entries has the Hessian I, and the first product is in both outputs.
    np.testing.assert_allclose(right, [2 * np.eye(2)], rtol=1e-12)
    np.testing.assert_allclose(other, [np.eye(2)], rtol=1e-12)


def test_a_deep_linear_net_is_the_block_ggn():
    model = built([L.Dense(4), L.Dense(3), L.Dense(2)], (3,))
    x = normal(6, 3)
    found, computed = blocks_of(model, x, factors)
    for block, expected in zip(computed, blocks_of_ggn(model, "mse", x, found), strict=True):
        np.testing.assert_allclose(kron(block), expected, rtol=1e-9, atol=1e-12)


MEAN, MEAN_2D = L.GlobalAveragePooling1D, L.GlobalAveragePooling2D
SHARED = {
    "expand, dense at positions": ("expand", [L.Dense, 4], [L.Dense, 2], None, (5, 3)),
    "reduce, dense and mean": ("reduce", [L.Dense, 4], [L.Dense, 2], MEAN, (5, 3)),
    "expand, convolution at positions": ("expand", [L.Conv1D, 4, 2], [L.Dense, 2], None, (5, 3)),
    "reduce, convolution and mean": ("reduce", [L.Conv2D, 4, 2], [L.Dense, 2], MEAN_2D, (3, 4, 2)),
}


@pytest.mark.parametrize("name", SHARED)
def test_shared_linear_layers_are_the_block_ggn(name):
    """Eschenhagen et al. (2023): expand where each position has a loss, reduce behind a mean."""
    shared, (first, *arguments), (last, width), pooling, shape = SHARED[name]
    layers = [first(*arguments), *([pooling()] if pooling else []), last(width)]
    model, x = built(layers, shape), normal(3, *shape)
    found, computed = blocks_of(model, x, factors, shared=shared)
    for block, expected in zip(computed, blocks_of_ggn(model, "mse", x, found), strict=True):
        np.testing.assert_allclose(kron(block), expected, rtol=1e-9, atol=1e-12)
    other = "expand" if shared == "reduce" else "reduce"
    _, wrong = blocks_of(model, x, factors, shared=other)
    assert not np.allclose(kron(wrong[0]), kron(computed[0]), rtol=1e-3)


def test_empirical_fisher_of_one_example():
    model = built([L.Dense(4, "tanh"), L.Dense(3)], (3,))
    x = normal(1, 3)
    found, computed = blocks_of(model, x, factors, kind="empirical")
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(x) ** 2)
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    for block, pair in zip(found, computed, strict=True):
        gradient = np.concatenate([gradients[place].numpy().ravel() for place in block.places])
        np.testing.assert_allclose(kron(pair), np.outer(gradient, gradient), rtol=1e-9, atol=1e-14)


SCALES = {
    "LayerNormalization": (L.LayerNormalization, (3, 4)),
    "GroupNormalization": (lambda: L.GroupNormalization(2), (3, 4)),
    "RMSNormalization": (L.RMSNormalization, (3, 4)),
    "BatchNormalization": (L.BatchNormalization, (3, 4)),
    "bias alone": (lambda: Shift(), (3, 4)),
}


class Shift(L.Layer):
    def build(self, shape):
        self.shift = self.add_weight(shape=(shape[-1],))

    def call(self, x):
        return keras.ops.tanh(x + self.shift)


@pytest.mark.parametrize("name", SCALES)
def test_scales_and_shifts_have_the_diagonal_of_the_ggn(name):
    make, shape = SCALES[name]
    model = built([make(), L.Flatten(), L.Dense(2)], shape)
    x = normal(EXAMPLES, *shape)
    found, computed = blocks_of(model, x, factors)
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(x, training=True)
    count = len(model.layers[0].trainable_variables)
    assert [b.kind for b in found[:count]] == ["scale and shift"] * count
    for block, squares in zip(found[:count], computed[:count], strict=True):
        variable = model.trainable_variables[block.places[0]].value
        rows = tape.jacobian(outputs, variable, experimental_use_pfor=False).numpy()
        expected = 2 / outputs.numpy().size * (rows**2).sum((0, 1))
        np.testing.assert_allclose(squares, expected, rtol=1e-9, atol=1e-13)


def test_embeddings_count_what_was_looked_up():
    inputs = keras.Input([3], dtype="int32")
    y = L.Dense(2)(L.Flatten()(L.Embedding(5, 2)(inputs)))
    model = keras.Model(inputs, y)
    model.compile("sgd", "mse")
    x = np.array([[0, 1, 1], [4, 1, 0]], "int32")
    found, ((left, right), _) = blocks_of(model, x, factors)
    assert found[0].kind == "Kronecker" and left.shape == (1, 5) and right.shape == (1, 2, 2)
    np.testing.assert_allclose(left[0], np.array([2, 3, 0, 0, 1]) / 6)
    kernel = model.layers[-1].kernel.numpy().reshape(3, 2, 2)
    expected = 2 * 2 / 4 * np.einsum("tij,tkj->ik", kernel, kernel)  # two examples, 2 / (2 · 2)
    np.testing.assert_allclose(right[0], expected, rtol=1e-9)


@pytest.mark.slow
def test_monte_carlo_has_the_mean_of_type_2():
    inputs = keras.Input([4, 3])
    y = L.LSTM(3)(L.LayerNormalization()(L.Dense(3, "tanh")(inputs)))
    model = keras.Model(inputs, L.Dense(3, "softmax")(y))
    model.compile("sgd", "categorical_crossentropy")
    for variable in model.trainable_variables:
        variable.assign(normal(*variable.shape))
    x = normal(3, 4, 3)
    found, exact = blocks_of(model, x, factors)
    kinds = [b.kind for b in found]
    assert kinds.count("diagonal") == 3 and kinds.count("scale and shift") == 2

    def many(blocks, forward, cotangents):
        def draw(seed):
            cotangents._seed = tf.stack([seed, 7])
            return [
                part[1] if block.kind == "Kronecker" else part
                for block, part in zip(blocks, factors(blocks, forward, cotangents), strict=True)
            ]

        cotangents.kind = "monte-carlo"
        dtypes = [tf.float64] * len(blocks)
        return tf.map_fn(draw, tf.range(400), fn_output_signature=dtypes)

    _, drawn = blocks_of(model, x, many)
    dense = np.diagonal(ggn(model, "categorical_crossentropy", x))
    ends = np.cumsum([0, *[weight.size for weight in model.get_weights()]])
    for block, one, draws in zip(found, exact, drawn, strict=True):
        place = block.places[0]
        expected = one[1] if block.kind == "Kronecker" else one
        if block.kind == "diagonal":  # one combination of signs is no sum over columns
            expected = dense[ends[place] : ends[place + 1]].reshape(block.shape)
        error = draws.std(0, ddof=1) / np.sqrt(len(draws))
        off = np.abs(draws.mean(0) - expected) / np.maximum(error, 1e-12)
        assert (off < 3).mean() > 0.97 and off.max() < 6, (block.kind, off.max())


def test_the_bias_of_a_single_output_is_in_the_block_of_its_kernel():
    model = keras.Sequential([keras.Input([3]), L.Dense(1)])
    model.compile("sgd", "mse")
    found, _ = blocks_of(model, normal(EXAMPLES, 3))
    assert [(block.kind, block.places) for block in found] == [("Kronecker", (0, 1))]
