"""Segments of gathered rows, which embedding look-ups reduce."""

import tensorflow as tf

_FORWARD = {
    "Mean": tf.raw_ops.SparseSegmentMeanWithNumSegments,
    "Sum": tf.raw_ops.SparseSegmentSumWithNumSegments,
    "SqrtN": tf.raw_ops.SparseSegmentSqrtNWithNumSegments,
}


def segment_gradient(reduction):
    """Rule for `SparseSegment…Grad`: the reduction itself, which is linear."""

    def rule(op, cotangent):
        grad, indices, segment_ids, _ = op.inputs
        reduced = _FORWARD[reduction](
            data=cotangent,
            indices=indices,
            segment_ids=segment_ids,
            num_segments=tf.shape(grad)[0],
        )
        return reduced, None, None, None

    return rule


def segment_gradient_by_rows(reduction):
    """Rule for `SparseSegment…GradV2`, which returns the rows that were read, sorted."""

    def rule(op, cotangent, _):
        grad, indices, segment_ids, _ = op.inputs
        # Its second output holds them too, but stands behind the cotangents in the graph.
        place = tf.searchsorted(tf.sort(tf.unique(indices)[0]), indices)
        reduced = _FORWARD[reduction](
            data=cotangent,
            indices=place,
            segment_ids=segment_ids,
            num_segments=tf.shape(grad)[0],
        )
        return reduced, None, None, None

    return rule
