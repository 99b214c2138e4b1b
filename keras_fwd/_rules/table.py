"""Derivative rules for TensorFlow ops: a table, one row an op."""

from keras_fwd._rules import (
    color,
    convolution,
    cropping,
    elementwise,
    indexing,
    pooling,
    projection,
    resizing,
)

#: Gradients that TensorFlow lacks: registered for good, for every tape.
REGISTERED = {
    # Of forward ops that it does not differentiate at all.
    "AdjustContrastv2": color.adjust_contrast,
    "AdjustHue": color.adjust_hue,
    "AdjustSaturation": color.adjust_saturation,
    "ResizeArea": resizing.area,
    "XlaDynamicUpdateSlice": indexing.update_slice,
    # Of the ops in gradients of others.
    "CropAndResizeGradBoxes": cropping.boxes_gradient,
    "CropAndResizeGradImage": cropping.image_gradient,
    "Dilation2DBackpropFilter": pooling.dilation_filter_gradient,
    "Dilation2DBackpropInput": pooling.dilation_input_gradient,
    "FractionalAvgPoolGrad": pooling.fractional_average_gradient,
    "FractionalMaxPoolGrad": pooling.fractional_max_gradient,
    "LRNGrad": elementwise.normalization_gradient,
    "MaxPoolGradWithArgmax": pooling.argmax_gradient,
    "ResizeBicubicGrad": resizing.bicubic_gradient,
    "ResizeNearestNeighborGrad": resizing.nearest_gradient,
    "ScaleAndTranslateGrad": resizing.scale_and_translate_gradient,
    "SoftsignGrad": elementwise.softsign_gradient,
    "SparseSegmentMeanGrad": indexing.segment_gradient("Mean"),
    "SparseSegmentMeanGradV2": indexing.segment_gradient_by_rows("Mean"),
    "SparseSegmentSqrtNGrad": indexing.segment_gradient("SqrtN"),
    "SparseSegmentSqrtNGradV2": indexing.segment_gradient_by_rows("SqrtN"),
    "SparseSegmentSumGrad": indexing.segment_gradient("Sum"),
    "SparseSegmentSumGradV2": indexing.segment_gradient_by_rows("Sum"),
}

#: Rules that stand in for TensorFlow's while derivatives are taken.
SEALED = {
    # Their gradients count as constant, or are not differentiated again.
    "FakeQuantWithMinMaxArgs": elementwise.fake_quantize,
    "FakeQuantWithMinMaxVars": elementwise.fake_quantize,
    "FakeQuantWithMinMaxVarsPerChannel": elementwise.fake_quantize,
    "ResizeBilinear": resizing.bilinear,
    "ScaleAndTranslate": resizing.scale_and_translate,
    # Its gradient is an approximation.
    "ImageProjectiveTransformV2": projection.projective_transform("ImageProjectiveTransformV2"),
    "ImageProjectiveTransformV3": projection.projective_transform("ImageProjectiveTransformV3"),
    # Their gradients are not finite at a zero cotangent.
    "CumulativeLogsumexp": elementwise.cumulative_logsumexp,
    "EuclideanNorm": elementwise.euclidean_norm,
    # Their gradients are wrong under XLA, for complex numbers.
    "Inv": elementwise.where_complex("Inv", elementwise.reciprocal),
    "Reciprocal": elementwise.where_complex("Reciprocal", elementwise.reciprocal),
    "Rsqrt": elementwise.where_complex("Rsqrt", elementwise.rsqrt),
    "Sqrt": elementwise.where_complex("Sqrt", elementwise.sqrt),
    # Slow in TensorFlow.
    "Conv2D": convolution.conv2d,
    "Einsum": convolution.einsum,
    "MaxPool": pooling.max_pool("MaxPool"),
    "MaxPool3D": pooling.max_pool("MaxPool3D"),
    "Tile": indexing.tile,
}
