"""The curvature matrices of a model's loss by its weights, as linear maps."""

from keras_fwd._curvature import loss_hessian, weight_penalties
from keras_fwd._derivatives import double_gradient
from keras_fwd._derivatives.fwd_gradients import hessian
from keras_fwd._models import model_losses
from keras_fwd._spaces import nest
from keras_fwd._spaces.linear_map import diagonal
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers._steps.expansion import to_leaves

MATRICES = ("hessian", "ggn", "fisher")


def curvature_matrix(matrix, model_pass, values):
    """A curvature matrix of the loss of a batch.

    Args:
        matrix: `"hessian"`: that of the total loss. `"ggn"`: `Jᵀ H J` at the outputs or logits,
            and the second derivatives of L1 and L2 regularizers. `"fisher"`: `Jᵀ H J` alone, for
            losses whose `H` is the Fisher information of the outputs.
        model_pass: A `keras_fwd._models.training_pass.TrainingPass` with its batch.
        values: List of the weights' values.

    Returns:
        Symmetric `LinearMap` on lists like the values.

    Raises:
        ConfigurationError: A loss that is not twice differentiable, or has no Fisher information.
        LeakError: As `linearize` and `hessian`.
    """
    if matrix == "hessian":
        return hessian(lambda point: model_pass(point)["loss"], values)
    forward, J = double_gradient.linearization("linearize", model_pass, values)
    J, leaves = to_leaves(J), forward.outputs["outputs"]
    _check_losses(matrix, model_pass, leaves)
    H = loss_hessian.loss_hessian(model_pass.loss_of_leaves, leaves)
    G = J.T @ H @ J
    if matrix == "fisher":
        return G
    return G + diagonal(weight_penalties.diagonal(model_pass.variables, values))


def _check_losses(matrix, model_pass, leaves):
    outputs = nest.flatten(model_pass.outputs)
    for leaf, output, loss in zip(leaves, outputs, model_pass.losses, strict=True):
        kind = loss_hessian.loss_kind(loss, model_losses.is_logits(leaf, output, loss))
        if matrix == "fisher" and kind in ("general", "entrywise"):
            raise ConfigurationError(
                'CurvatureCallback: `matrix="fisher"` needs a loss that is the negative logarithm '
                "of a likelihood: mse, or a cross-entropy at the logits (softmax or sigmoid as "
                "the last activation, or from_logits=True). Received: loss="
                f'{getattr(loss, "name", loss)!r}. Use matrix="ggn".'
            )
