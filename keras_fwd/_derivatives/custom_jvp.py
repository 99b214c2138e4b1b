"""Functions with a JVP rule of their own."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

from keras_fwd._derivatives import functional, passes
from keras_fwd._graphs import flow, graph
from keras_fwd._rules.transposes import local
from keras_fwd._spaces import given, nest
from keras_fwd.errors import ConfigurationError, StructureError
from keras_fwd.typing import Function, Nest

Rule = TypeVar("Rule", bound=Callable[..., Any])


class custom_jvp:
    """A function of one argument whose derivative is the rule you give it.

    The pushforward is the rule, the pullback its transpose, and derivatives of both are those of
    the rule's own ops: right under `jvp`, `vjp`, `linearize`, their compositions, and under tapes
    of your own, to any order.

    Args:
        fn: Function of one argument, any nest of tensors, that returns a nest. What it is to be
            differentiated by comes in through the argument. Variables that it reads keep the
            derivative of its own ops.

    Raises:
        ConfigurationError: `fn` is no function, or is called before `defjvp`.
        StructureError: the rule does not fit the function or is not linear in its tangents, or the
            function closes over a tensor of the graph being built.

    Cost: That of the rule; a pullback costs one reverse pass through it.

    References:
        The interface is that of `jax.custom_jvp`:
        https://docs.jax.dev/en/latest/notebooks/Custom_derivative_rules_for_Python_code.html

    Example:

    >>> import keras_fwd
    >>> @custom_jvp
    ... def log1pexp(x):
    ...     return tf.math.log1p(tf.exp(x))
    >>> @log1pexp.defjvp
    ... def rule(x, dx):
    ...     return log1pexp(x), dx * tf.sigmoid(x)
    >>> _, tangent = keras_fwd.jvp(log1pexp, tf.constant(0.0), tf.constant(1.0))
    >>> float(tangent)
    0.5
    """

    def __init__(self, fn: Function) -> None:
        functional.check_callable("custom_jvp", "fn", fn)
        functools.update_wrapper(self, fn, updated=())
        self.fn = fn
        self.rule: Any = None
        self.name: str = getattr(fn, "__qualname__", repr(fn))

    def defjvp(self, rule: Rule) -> Rule:
        """Set the rule, and return it: usable as a decorator.

        Args:
            rule: `rule(primals, tangents) -> (outputs, output_tangents)`, in the structures of the
                function's argument and result, same shapes and dtypes; linear in the tangents.
                Tangents of integer leaves are `None`, on the way in and on the way out.
        """
        functional.check_callable("defjvp", "rule", rule)
        self.rule = rule
        return rule

    @tf.autograph.experimental.do_not_convert
    def __call__(self, primals: Nest) -> Nest:
        """The outputs of the function."""
        if self.rule is None:
            raise ConfigurationError(
                f"custom_jvp: {self.name} needs a rule before it is called. Received: none. Give "
                f"it one with `@{self.name}.defjvp`."
            )
        leaves = [
            given.to_tensor("custom_jvp", f"primals{path}", leaf)
            for path, leaf in zip(nest.paths(primals), nest.flatten(primals), strict=True)
        ]
        return _Call(self, nest.pack(primals, leaves)).outputs()


class _Call:
    """The function at primals of one structure; sources are their differentiable leaves."""

    def __init__(self, function, primals, out_spec=None):
        self.function = function
        self.primals = primals
        self.out_spec = out_spec

    def outputs(self):
        """The nest of outputs, in place of which the rule is differentiated."""
        made = []

        @tf.custom_gradient
        def run(*sources):
            with graph.forbidden(f"custom_jvp: {self.function.name}", sources):
                outputs = functional.as_tensors(self.function.name, self._evaluate(sources))
            # `tf.custom_gradient` hands on a flat list; the structure is taken out by the side.
            made.append(outputs)
            self.out_spec = nest.spec(outputs)

            def gradient(*cotangents, variables=None):
                cotangents = self._live(cotangents, outputs)
                call = self.here()
                pulled = call.pull(local(sources), local(cotangents))
                if not variables:
                    return pulled
                return pulled, call.pull_variables(
                    call._evaluate, local(sources), cotangents, variables
                )

            return nest.flatten(outputs), gradient

        leaves = run(*local(self._live(nest.flatten(self.primals), self.primals)))
        return nest.pack(made[0], leaves)

    def here(self):
        """The same, in the graph that is being built."""
        primals = tf.nest.map_structure(tf.identity, self.primals)
        return _Call(self.function, primals, self.out_spec)

    @staticmethod
    def _live(leaves, like):
        pairs = zip(leaves, nest.flatten(like), strict=True)
        return [leaf for leaf, tensor in pairs if nest.is_differentiable(tensor.dtype)]

    def _at(self, sources, constant=True):
        """A nest like the primals, with the sources in it; elsewhere what they hold, or `None`."""
        sources = iter(sources)
        leaves = [
            next(sources) if nest.is_differentiable(leaf.dtype) else leaf if constant else None
            for leaf in nest.flatten(self.primals)
        ]
        return nest.pack(self.primals, leaves)

    def _evaluate(self, sources):
        return functional.converted(self.function.fn)(self._at(sources))

    def push(self, sources, tangents):
        """The rule: the tangents of the differentiable outputs, as a list."""
        name = self.function.name
        rule = functional.converted(self.function.rule)
        result = rule(self._at(sources), self._at(tangents, constant=False))
        if not isinstance(result, tuple) or len(result) != 2:
            raise StructureError(
                f"custom_jvp: the rule of {name} must return a pair (outputs, output_tangents). "
                f"Received: {given.describe(result)}."
            )
        outputs, pushed = result
        outputs = functional.as_tensors(f"the rule of {name}", outputs)
        floating = [y if nest.is_differentiable(y.dtype) else None for y in nest.flatten(outputs)]
        where = f"outputs of the rule of {name}"
        # Outputs are checked although nobody uses them: a rule of another function would go
        # unnoticed.
        given.match("custom_jvp", where, nest.pack(outputs, floating), self.out_spec)
        where = f"output_tangents of the rule of {name}"
        return nest.live(given.match("custom_jvp", where, pushed, self.out_spec))

    def pull(self, sources, cotangents):
        """`Jᵀ c`, a list like the sources, to be differentiated to any order.

        It is linear in `c`, and that part differentiates into the rule. Zeros are added that
        carry the derivative by the sources, so that it is only taken when it is asked for.
        """

        @tf.custom_gradient
        def linear(*cotangents):
            def gradient(*tangents, variables=None):
                call, here = self.here(), local(sources)
                pushed = call.push(here, tangents)
                if not variables:
                    return pushed
                return pushed, call.pull_variables(
                    lambda here: call.push(here, tangents), here, local(cotangents), variables
                )

            return self._transpose(sources, cotangents), gradient

        @tf.custom_gradient
        def zeros(*sources):
            def gradient(*tangents):
                call = self.here()
                return passes.pull(
                    call.function.name,
                    lambda here: call.push(here, tangents),
                    local(sources),
                    local(cotangents),
                )

            return [tf.zeros_like(source) for source in sources], gradient

        parts = linear(*cotangents), zeros(*sources)
        return [tf.add(a, b) for a, b in zip(*parts, strict=True)]

    def _transpose(self, sources, cotangents):
        """The pullback of the rule by its tangents, at any of them for it is linear."""
        anywhere = [tf.zeros_like(source) for source in sources]
        pulled = passes.pull(
            self.function.name, lambda t: self.push(sources, t), anywhere, list(cotangents)
        )
        # Asked of the graph: a rule that multiplies tangents with each other pulls back zeros here.
        if not tf.executing_eagerly() and any(flow.between(anywhere, pulled)):
            raise StructureError(
                f"custom_jvp: the rule of {self.function.name} must be linear in the tangents. "
                "Received: a derivative by the tangents that depends on them. Multiply each "
                "tangent by a function of the primals, and add the products."
            )
        return pulled

    def pull_variables(self, fn, sources, cotangents, variables):
        """`∂fn/∂variablesᵀ c`, by the ops that read them."""
        name, cotangents = self.function.name, list(cotangents)
        return passes.pull(
            name, lambda _: _floating(fn(sources)), list(variables), cotangents, sources
        )


def _floating(outputs):
    return [y for y in nest.flatten(outputs) if nest.is_differentiable(y.dtype)]
