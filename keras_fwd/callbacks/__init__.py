"""Callbacks for `fit`."""

from keras_fwd.callbacks.jacobian_norm import JacobianNormCallback

__all__ = ["JacobianNormCallback"]
