"""Moving averages of the weights, after each step of an optimizer that does not take gradients.

Private interface used here: the method of `keras.optimizers.Optimizer` that moves its averages, and
the list of them. Without it, `use_ema` would be without effect.
"""

import tensorflow as tf


def follow(optimizer):
    """As `keras.optimizers.Optimizer` does after its own steps."""
    variables = optimizer._trainable_variables
    optimizer._update_model_variables_moving_average(variables)
    if optimizer.ema_overwrite_frequency:
        due = tf.equal((optimizer.step_number() + 1) % optimizer.ema_overwrite_frequency, 0)

        def overwrite():
            # Not by the method of Keras, which cannot do it in one of several replicas.
            averages = optimizer._model_variables_moving_average
            for variable, average in zip(variables, averages, strict=True):
                variable.assign(average)
            return tf.constant(0)

        tf.cond(due, overwrite, lambda: tf.constant(0))
