"""The statistics of blocks of curvature on one batch: what Kronecker factors are averages of."""

import tensorflow as tf


def of_batch(blocks, forward, cotangents):
    """The statistics of each block: `[left factor, right factor]`, or `[diagonal]`.

    Args:
        blocks: From `blocks.of_forward_pass`.
        forward: The `Forward` of the batch.
        cotangents: A `Cotangents`.
    """
    outputs = [output for block in blocks for output in block.outputs]

    def at(tensors, vectors):
        # What is no curvature leaf, the loss itself, comes before the leaves.
        rest = [None] * (len(forward.targets) - len(vectors))
        return forward.gradients_at(tensors, [*rest, *vectors])

    def parts(vectors):
        found = iter(at(outputs, vectors))
        return [_of_gradients(block, [next(found) for _ in block.outputs]) for block in blocks]

    sums = cotangents.sums(parts)
    plain = [i for i, block in enumerate(blocks) if not block.outputs]
    if plain:
        sources = [forward.sources[blocks[i].places[0]] for i in plain]
        for i, pulled in zip(plain, at(sources, cotangents.random()), strict=True):
            if pulled is not None:
                # With random signs on the examples the square of the sum is, in the mean, the sum
                # of squares.
                sums[i] = tf.cast(pulled, blocks[i].dtype) ** 2
    return [
        [block.left(), part] if block.kind == "Kronecker" else [part]
        for block, part in zip(blocks, sums, strict=True)
    ]


def _of_gradients(block, gradients):
    """What depends on the cotangents: the right factor, or the diagonal."""
    if block.kind == "Kronecker":
        return block.right(gradients)
    if not block.outputs:  # from random signs, later
        return tf.zeros(block.shape, block.dtype)
    return block.squares(gradients)
