"""`fisher`: the Fisher information of a model's own predictions, as a `LinearMap`."""

from typing import Any, Literal

import tensorflow as tf

from keras_fwd._checks import check_count
from keras_fwd._curvature import loss_hessian
from keras_fwd._curvature.fisher import KINDS
from keras_fwd._curvature.gauss_newton import at_outputs
from keras_fwd._curvature.likelihoods import Likelihood
from keras_fwd._derivatives import functional
from keras_fwd._spaces import given, nest
from keras_fwd._spaces.linear_map import LinearMap
from keras_fwd.errors import ConfigurationError, StructureError
from keras_fwd.typing import Fisher, Function, Nest, WithRespectTo


@functional.public
def fisher(
    fn: Function,
    loss: Any,
    primals: Nest,
    wrt: WithRespectTo | Literal["outputs"] = "weights",
    kind: Fisher = "type-2",
    targets: Nest = None,
    seed: int = 0,
) -> LinearMap:
    """The Fisher information `Jᵀ E[∇ℓ ∇ℓᵀ] J` of a model whose loss is a negative log-likelihood.

    `ℓ` is the loss as a function of the outputs, and `J` their Jacobian; the targets are those that
    the model itself predicts, not those of the data. The loss says which distribution that is:

    - mse: each entry normal around the output, with variance ½;
    - binary cross-entropy: each entry 0 or 1, with the probabilities of the output;
    - cross-entropy of classes: one class at each position; labels are not smoothed;
    - poisson: each entry a Poisson number, the output its mean.

    The scale is that of `gauss_newton`: the mean (or sum, as `reduction` says) over what the loss
    is the mean of. For mse, and for cross-entropies at logits, or behind softmax or sigmoid, the
    type-2 Fisher *is* the GGN; hence the variance ½, with which the negative log-likelihood of an
    entry is its squared error.

    Args:
        fn: As in `linearize`.
        loss: A Keras loss of these or its name; for several outputs a nest of them, like the
            outputs, which then are independent.
        primals: As in `linearize`.
        wrt: As in `linearize`; default `"weights"`. Or `"outputs"` for the Fisher information of
            the outputs, on nests like them, at the logits where the loss has them.
        kind: `"type-2"` (default): the exact expectation over the targets that the model predicts.
            `"monte-carlo"`: one such target is drawn for each example, and the gradients `g` of
            the examples give `Σ g gᵀ`, an unbiased estimate of it. `"empirical"`: the same sum with
            the targets of the data, which is no estimate of it unless the model is right.
        targets: Of the data, as in `gauss_newton`; for `"empirical"` only.
        seed: Whole number, of the targets that `"monte-carlo"` draws.

    Returns:
        Symmetric, positive semi-definite `LinearMap`.

    Raises:
        ConfigurationError: The loss is none of these, `kind` and `targets` do not go together,
            or `wrt` has no meaning.
        LeakError, StructureError: As `linearize`.

    Cost: One forward pass; each product about one gradient.

    References:
        Martens, New insights and perspectives on the natural gradient method, JMLR 21 (2020);
        Kunstner, Balles and Hennig, Limitations of the empirical Fisher approximation, NeurIPS
        (2019).

    Example:

    >>> import keras
    >>> W = tf.Variable([[0.0, 0.0]])
    >>> x = tf.constant([[1.0]])
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> F = fisher(lambda x: x @ W, loss, x, wrt=[W])
    >>> F.to_dense().numpy()
    array([[ 0.25, -0.25],
           [-0.25,  0.25]], dtype=float32)
    """
    _check(kind, targets)
    check_count("fisher", "seed", seed, least=0, most=2**31 - 1)
    place = at_outputs("fisher", fn, loss, primals, wrt)
    triples = list(zip(place.losses, place.leaves, place.output_leaves, strict=True))
    likelihoods = [Likelihood("fisher", *triple) for triple in triples]
    if kind == "type-2":
        total = place.total([one.loss for one in likelihoods], [one.mean() for one in likelihoods])
        return place.pulled_back(loss_hessian.loss_hessian(total, place.leaves, "fisher"))
    if kind == "empirical":
        total = place.total(place.losses, nest.flatten(targets))
    else:
        drawn = [one.draw(tf.constant([seed, i])) for i, one in enumerate(likelihoods)]
        total = place.total([one.loss for one in likelihoods], drawn)
    gradients = loss_hessian.loss_gradient(total, place.leaves, "fisher")
    # The loss is a mean over n terms, so a gradient has 1/n in it, and the outer products of
    # gradients 1/n²: √n in each gradient leaves the 1/n of a mean.
    scaled = [g * tf.sqrt(one.terms()) for g, one in zip(gradients, likelihoods, strict=True)]
    return place.pulled_back(_outer_products(scaled))


def _check(kind, targets):
    if kind not in KINDS:
        raise ConfigurationError(
            f"fisher: `kind` must be one of {', '.join(map(repr, KINDS))}. Received: kind={kind!r}."
        )
    if kind == "empirical" and targets is None:
        raise ConfigurationError(
            'fisher: kind="empirical" needs `targets`, those of the data. Received: none. '
            'kind="type-2" and "monte-carlo" take them from the model itself.'
        )
    if kind != "empirical" and targets is not None:
        raise ConfigurationError(
            f"fisher: kind={kind!r} takes the targets that the model predicts. Received: `targets`;"
            ' leave them out, or use kind="empirical".'
        )


def _outer_products(gradients):
    """`Σ g gᵀ` over the examples along axis 0, `g` the part of all the gradients that is theirs."""
    for g in gradients:
        if not g.shape.rank:
            raise StructureError(
                'fisher: kind="monte-carlo" and "empirical" need outputs with the examples along '
                f"axis 0. Received: {given.describe(gradients)}."
            )
    spec = nest.spec(gradients)

    def mv(vectors):
        pairs = zip(gradients, vectors, strict=True)
        dots = [tf.reduce_sum(g * v, axis=range(1, g.shape.rank)) for g, v in pairs]
        dot = tf.add_n([tf.cast(one, nest.accumulator_dtype(spec)) for one in dots])
        return [
            g * tf.reshape(tf.cast(dot, g.dtype), [-1] + [1] * (g.shape.rank - 1))
            for g in gradients
        ]

    return LinearMap(mv, mv, spec, spec)
