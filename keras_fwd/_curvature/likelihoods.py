"""Of which distribution a Keras loss is the negative log-likelihood, up to a constant.

A loss is the mean (or the sum) of such *terms*: one class at each position for a cross-entropy of
classes, one number in each entry of the outputs for the others.
"""

import keras
import tensorflow as tf

from keras_fwd._models import model_losses
from keras_fwd.errors import ConfigurationError

_KINDS = {
    keras.losses.mean_squared_error: "normal",
    keras.losses.binary_crossentropy: "Bernoulli",
    keras.losses.categorical_crossentropy: "categorical",
    keras.losses.sparse_categorical_crossentropy: "categorical",
    keras.losses.poisson: "Poisson",
}
#: Of the normal distribution: with it the negative log-likelihood of an entry is its squared error.
VARIANCE = 0.5


class Likelihood:
    """The distribution of the targets that one output of a model predicts.

    Args:
        call: Name of the public call.
        loss: A Keras loss.
        leaf: The output, or its logits.
        output: The output.

    Attributes:
        loss: The loss of a target that the distribution may have: without smoothing of labels,
            and of vectors of probabilities in place of numbers of classes.

    Raises:
        ConfigurationError: The loss is no negative log-likelihood of a known distribution.
    """

    def __init__(self, call, loss, leaf, output):
        self.kind = _KINDS.get(model_losses.loss_function(loss))
        if self.kind is None or getattr(loss, "axis", -1) != -1:
            name = getattr(loss, "name", None) or getattr(loss, "__name__", loss)
            raise ConfigurationError(
                f"{call}: `loss` must be the negative log-likelihood of a distribution: mse, a "
                "cross-entropy over the last axis, or poisson. Received: "
                f"loss={name!r}. Of other losses `gauss_newton` has the curvature."
            )
        self._call, self._given = call, loss
        self._leaf, self._output = leaf, output
        self._at_logits = model_losses.is_logits(leaf, output, loss)
        self.loss = self._plain(loss)

    def _plain(self, loss):
        # The others have no labels that could be smoothed.
        if self.kind not in ("categorical", "Bernoulli"):
            return loss
        binary = self.kind == "Bernoulli"
        if not isinstance(loss, keras.losses.Loss):
            losses = keras.losses
            return losses.binary_crossentropy if binary else losses.categorical_crossentropy
        made = keras.losses.BinaryCrossentropy if binary else keras.losses.CategoricalCrossentropy
        logits = getattr(loss, "from_logits", False)
        return made(from_logits=logits, reduction=loss.reduction, dtype=loss.dtype)

    def terms(self):
        """How many terms the loss is the mean of; for a sum, one term by what it is divided."""
        shape, dtype = tf.shape(self._leaf), self._leaf.dtype
        # Keras takes the mean over the last axis also where the rest is summed.
        entries = 1 if self.kind == "categorical" else shape[-1]
        if getattr(self._given, "reduction", "mean") == "sum":
            return tf.cast(entries, dtype)
        count = tf.cast(entries * tf.reduce_prod(shape[:-1]), dtype)
        mask = getattr(self._output, "_keras_mask", None)
        return count if mask is None else count * tf.reduce_mean(tf.cast(mask, dtype))

    def mean(self):
        """The expected target.

        These losses are linear in the target, but for what does not depend on the output: at the
        expected target their Hessian is the expected one, which is the Fisher information.
        """
        self._check_no_class_ignored()
        if self.kind in ("normal", "Poisson"):
            return self._leaf
        if self.kind == "Bernoulli":
            return tf.sigmoid(self._leaf) if self._at_logits else self._leaf
        if self._at_logits:
            return tf.nn.softmax(self._leaf)
        return self._leaf / tf.reduce_sum(self._leaf, axis=-1, keepdims=True)  # as Keras does

    def draw(self, seed):
        """A target from the distribution, like the output; `seed` is a pair of integers."""
        mean, random = self.mean(), tf.random
        shape, dtype = tf.shape(mean), mean.dtype
        if self.kind == "normal":
            return mean + VARIANCE**0.5 * random.stateless_normal(shape, seed, dtype=dtype)
        if self.kind == "Poisson":
            return random.stateless_poisson(shape, seed, mean, dtype)
        if self.kind == "Bernoulli":
            return tf.cast(random.stateless_uniform(shape, seed, dtype=dtype) < mean, dtype)
        # The largest of log p + Gumbel noise is class k with probability p_k; under XLA too, which
        # has no kernel for `stateless_categorical`.
        log = tf.nn.log_softmax(self._leaf) if self._at_logits else tf.math.log(mean)
        uniform = random.stateless_uniform(shape, seed, dtype=dtype)
        # A draw of 0 would make an infinite logarithm.
        gumbel = -tf.math.log(-tf.math.log(tf.maximum(uniform, dtype.as_numpy_dtype(1e-7))))
        return tf.one_hot(tf.argmax(log + gumbel, axis=-1), shape[-1], dtype=dtype)

    def _check_no_class_ignored(self):
        ignored = getattr(self._given, "ignore_class", None)
        if ignored is not None:
            raise ConfigurationError(
                f"{self._call}: which examples the loss leaves out is known from the targets "
                f'alone. Received: ignore_class={ignored!r}; use kind="empirical", or no '
                "`ignore_class`."
            )
