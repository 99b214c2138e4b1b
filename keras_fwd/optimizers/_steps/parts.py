"""The parts of a training step, and what each may ask of the others.

    expansion → system → direction → control → trial → judgement

An optimizer chooses them for a batch (`Parts`); the `Search` runs them, and knows nothing else of
the optimizer. Each is one decision: what the loss looks like around the weights; which linear
system gives a direction; how a step is made of its solution, and what that gains; how long a step
may be; where it leads, and the loss there; whether that is good enough. A system may tell more with
a solution than `Solution` holds, to the direction and the trial that go with it: they are of one
kind `S` of solutions.
"""

import dataclasses
from typing import Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import tensorflow as tf

from keras_fwd._models.training_pass import Recorder
from keras_fwd.optimizers._steps.expansion import Expansion
from keras_fwd.typing import Nest

#: Tensors like the trainable weights, one each.
Values: TypeAlias = list[tf.Tensor]
#: What a control goes on with from trial to trial: scalars by the names of its variables.
State: TypeAlias = dict[str, tf.Tensor]


class Weight(Protocol):
    """A variable that a step moves: a `keras.Variable`, or what stands for one.

    Attributes:
        value: Its tensor.
        shape: Of it.
        path: Its name.
    """

    value: tf.Tensor
    shape: tf.TensorShape
    path: str

    def assign(self, value: tf.Tensor) -> object:
        """Give it another value."""
        ...


class Pass(Protocol):
    """A batch, and the loss on it as a function of the weights.

    Attributes:
        variables: The weights.
        batch: `(x, y, sample_weight)`, or what stands for it.
        outputs: What the model returned in the last call, a nest.
        recorder: The updates of the last call.
        loss_is_of_outputs: Whether the weights enter the loss through the outputs only.
        loss_scale: What the loss is multiplied with on its way back, a scalar, or None.
    """

    variables: list[Weight]
    batch: tuple[Nest, ...]
    outputs: Nest
    recorder: Recorder
    loss_is_of_outputs: bool
    loss_scale: tf.Tensor | None

    def __call__(self, values: Values) -> dict[str, Nest]:
        """`{"loss": scalar, "outputs": [curvature leaves]}` at these values of the weights."""
        ...

    def loss_of_leaves(self, leaves: list[tf.Tensor]) -> tf.Tensor:
        """The loss as a function of the curvature leaves, at fixed weights."""
        ...


class Solved(Protocol):
    """What all solutions tell, as `Solution` does.

    Attributes:
        status: int32 scalar, a `Status`.
        iterations: int32 scalar.
    """

    @property
    def status(self) -> tf.Tensor: ...

    @property
    def iterations(self) -> tf.Tensor: ...


S = TypeVar("S", bound=Solved)
S_in = TypeVar("S_in", bound=Solved, contravariant=True)
S_out = TypeVar("S_out", bound=Solved, covariant=True)


class System(Protocol[S_out]):
    """The linear system of a batch: `(C + λ D²) x = g`."""

    def solve(self, damping: tf.Tensor) -> S_out:
        """The solution for a damping `λ`, a scalar."""
        ...


class RegionSystem(System[S_out], Protocol[S_out]):
    """A system that knows the length of its solutions, in the norm of `D`."""

    def within(self, radius: tf.Tensor) -> tf.Tensor:
        """The least damping that keeps the solution inside a radius."""
        ...

    def length(self, vector: tf.Tensor) -> tf.Tensor:
        """`‖D x‖`."""
        ...

    def slope(self, damping: tf.Tensor) -> tf.Tensor:
        """`⟨g, x⟩` for the solution with this damping."""
        ...


class Direction(Protocol[S_in]):
    """Makes steps of solutions, and says what the quadratic model expects of them."""

    def step(self, solution: S_in) -> Values:
        """The step for a solution, like the weights."""
        ...

    def curved(self, step: Values, damping: tf.Tensor) -> tuple[Values, tf.Tensor]:
        """The step as it is tried, and whether it is refused for bending too much."""
        ...

    def predicted_change(self, step: Values, solution: S_in) -> tf.Tensor:
        """Of the loss, by the quadratic model; this replica's share of it."""
        ...


class Control(Protocol[S_out]):
    """Governs the length of the steps on a batch.

    Attributes:
        variables: What of it survives the batch, by name.
    """

    variables: dict[str, tf.Variable]

    def start(self, sound: tf.Tensor) -> State:
        """The state of the first trial; a batch that is not sound is not tried at all."""
        ...

    def solve(self, state: State) -> tuple[S_out, tf.Tensor, tuple[tf.Tensor, ...]]:
        """The solution in this state, its damping, and the facts to judge it by later."""
        ...

    def nothing(self) -> tuple[tf.Tensor, ...]:
        """In the place of facts that are not needed."""
        ...

    def next(
        self,
        state: State,
        facts: tuple[tf.Tensor, ...],
        ratio: tf.Tensor,
        accepted: tf.Tensor,
        before: tf.Tensor,
        after: tf.Tensor,
    ) -> State:
        """The state after a trial with this reduction ratio and these losses."""
        ...

    def settled(self, outcome: "Outcome") -> State:
        """What its variables hold until the next batch."""
        ...


class Trial(Protocol[S_in]):
    """Where a step leads, and the loss there."""

    def moved(self, step: Values) -> Values:
        """The weights after a step, inside their constraints."""
        ...

    def taken(self, step: Values, values: Values) -> Values:
        """The step that the loss is predicted for, where constraints led to these values."""
        ...

    def loss(self, values: Values) -> tf.Tensor:
        """At other weights: of this replica's share, of all examples or a part of them."""
        ...

    def beyond(self, solution: S_in) -> tf.Tensor:
        """What that leaves out of the loss of the batch, after the step of a solution."""
        ...


class Progress(NamedTuple):
    """What the trials of one step measured, float32 scalars.

    Attributes:
        reduction: Largest `|before − after| / |before|` of the loss over the trials.
        predicted: Largest predicted reduction, relative in the same way.
        ratio: Actual over predicted reduction of the last trial.
        step: Largest norm of a trial's step, relative to that of the weights.
        shortest: That of the last trial.
        cosine: Largest cosine between the residual and its change along a step.
    """

    reduction: tf.Tensor
    predicted: tf.Tensor
    ratio: tf.Tensor
    step: tf.Tensor
    shortest: tf.Tensor
    cosine: tf.Tensor


class Outcome(NamedTuple):
    """How the search on a batch ended, all tensors.

    Attributes:
        trials: How many steps were tried, int32.
        accepted: Whether one of them is taken.
        solved: Whether the solution of the last one is finite.
        values: The weights from now on; with `accepted` False those of before.
        loss: There.
        ratio: Reduction ratio of the last trial, float32; −inf without one.
        iterations: Of the solver, in all trials together.
        control: The state of the control after them; empty where nothing was tried.
        progress: What the trials measured for the tests of convergence, or `()`.
    """

    trials: tf.Tensor
    accepted: tf.Tensor
    solved: tf.Tensor
    values: Values
    loss: tf.Tensor
    ratio: tf.Tensor
    iterations: tf.Tensor
    control: State
    progress: Progress | tuple[()]


class Judgement(Protocol):
    """Whether a trial is good enough, and what is told of it."""

    def start(self) -> Progress | tuple[()]:
        """What has been measured before the first trial."""
        ...

    def slope(self, step: Values) -> tuple[tf.Tensor, ...]:
        """Of the loss along a step, if that is asked for."""
        ...

    def ratio(
        self, after: tf.Tensor, predicted: tf.Tensor, first: tf.Tensor, bent: tf.Tensor
    ) -> tf.Tensor:
        """Actual over predicted reduction of the loss."""
        ...

    def measured(
        self,
        progress: Progress | tuple[()],
        after: tf.Tensor,
        ratio: tf.Tensor,
        slope: tuple[tf.Tensor, ...],
        predicted: tf.Tensor,
        values: Values,
    ) -> Progress | tuple[()]:
        """What one more trial adds to the progress."""
        ...

    def logs(self, outcome: Outcome) -> dict[str, tf.Tensor]:
        """What the logs of a batch tell of its step, besides the damping."""
        ...


@dataclasses.dataclass(frozen=True)
class Parts(Generic[S]):
    """The parts that an optimizer has chosen for a batch."""

    expansion: Expansion
    system: System[S]
    direction: Direction[S]
    control: Control[S]
    trial: Trial[S]
    judgement: Judgement
