"""The benchmarks: which there are, what each compares, and how it runs in full and quickly."""

from typing import NamedTuple


class Benchmark(NamedTuple):
    """A row of the table.

    Attributes:
        title: Its heading on `docs/benchmarks.md`.
        note: What to know beside the figures.
        quick: Arguments with which it takes seconds, without a peer; None to leave it out then.
        script: Name of the file; that of the benchmark if empty.
        full: Arguments of the run whose figures are published.
        peer: Option for the peer's interpreter, and the peer: `requirements-NAME.txt`.
        minutes: Of a full run on two cores, roughly.
    """

    title: str
    note: str
    quick: str | None
    script: str = ""
    full: str = ""
    peer: tuple[str, str] | None = None
    minutes: int = 1


BENCHMARKS = {
    "jvp": Benchmark(
        "One JVP",
        "Outputs and tangents of each layer and model, against a forward pass, "
        "`tf.autodiff.ForwardAccumulator` and `jax.jvp` of the same Keras model. Below one forward "
        "pass where Keras compiles a convolution in groups with XLA, for want of backward kernels: "
        "that is slower than TensorFlow's forward kernel, which the JVP runs. mlp: "
        "784-1024-1024-1024-10, batch 128; cnn: two convolutions with max pooling, batch 64; "
        "transformer: two blocks, batch 16; lstm, gru: 128 units, 100 steps, batch 32; the others "
        "are `keras.applications` at 96x96, batch 8.",
        "--models mlp cnn --layers swish --repeats 3",
        peer=("--jax", "jax"),
        minutes=10,
    ),
    "jacobian": Benchmark(
        "Jacobians and higher derivatives",
        "Against `tape.jacobian`, `tape.batch_jacobian` and nested tapes.",
        "--repeats 3 --dimensions 1",
    ),
    "memory": Benchmark(
        "Memory of derivatives",
        "Peak memory of one JVP and of a held linearization.",
        "--batch 1024 --layers 20 --repeats 1 --only forward jvp gradient held",
        minutes=2,
    ),
    "cg": Benchmark(
        "An iteration of conjugate gradients",
        "In `GaussNewton`, in gradients.",
        "--repeats 2 --batch 64",
    ),
    "cg_memory": Benchmark(
        "Memory of conjugate gradients",
        "Peak memory of a step of `GaussNewton`, five million weights, beside Adam's.",
        '--width 256 --layers 3 --only Adam "GaussNewton, cg"',
        minutes=2,
    ),
    "lm_step": Benchmark(
        "A step of `GaussNewton` in `fit`",
        "The dense step is many small operations, one after the other, with products and "
        "eigenvalues in double precision; the dual one is solved in double precision, and tries "
        "more than one step on some batches.",
        "--rounds 2 --steps 3",
    ),
    "autompg": Benchmark(
        "autompg",
        "A 7-16-16-1 net on 392 cars: `GaussNewton`, 50 epochs, against 2000 of six Adams.",
        "--epochs 10 --adam-epochs 20",
        full="--seeds 2",
    ),
    "nist": Benchmark(
        "NIST's nonlinear regression problems",
        "The defaults of `GaussNewton` from both of NIST's starts, beside scipy's `lm` and `trf` "
        "with exact Jacobians.",
        "--problems BoxBOD Misra1a",
        minutes=2,
    ),
    "sinc": Benchmark(
        "A narrow fit to many digits",
        "`fit` is not the same twice to the last bit, and a fit to eight digits not to its last "
        "epochs: the times to the goal vary from run to run.",
        "--seeds 1 --seconds 2",
        peer=("--peer", "lm"),
        minutes=2,
    ),
    "robustness": Benchmark(
        "Penalties on the Jacobian",
        "A LeNet on MNIST-5k, clean, under noise of deviation 0.3 and under PGD (epsilon 0.1, 10 "
        "steps), with and without `JacobianNorm`, and with its authors' PyTorch package from the "
        "same weights by the same batches.",
        "--repeats 3 --no-xla --seeds 1 --epochs 1 --strengths 0.01",
        peer=("--torch", "torch"),
        minutes=60,
    ),
    "kfac": Benchmark(
        "`KFAC` on autoencoders",
        "Against kfac-jax, in a process of its own from the same weights by the same batches, and "
        "against the best of three Adams. kfac-jax renews all of its inverses in every fifth step, "
        "`KFAC` in turns: the mean is what training takes.",
        "--data digits --adam-steps 20 --repeats 0",
        peer=("--jax", "kfac"),
        minutes=14,
    ),
    "kfac_memory": Benchmark(
        "Memory of `KFAC`",
        "A step holds the weights, the last step, the gradient, the direction and what a trial "
        "tries.",
        '--width 512 --layers 2 --only Adam "KFAC, most steps"',
    ),
    "kfac_nets": Benchmark(
        "`KFAC` on a ResNet and a transformer",
        "scikit-learn's digits: to the best validation accuracy of three Adams. No goal.",
        "--epochs 1 --nets resnet",
        full="--epochs 60 --seeds 1",
        minutes=4,
    ),
    "mnist_cnn": Benchmark(
        "A small CNN",
        "11 thousand weights on MNIST-5k. Each seed has its own accuracy to reach. The net is so "
        "small, and 64 images say so much of all 4000, that Adam has passed over the data several "
        "times before ten products with the curvature of a larger batch pay.",
        "--seeds 1 --epochs 1",
        minutes=2,
    ),
    "callback_overhead": Benchmark(
        "Callbacks that measure",
        "Stock `fit` of the CNN above, every second epoch with the callback. Where even the "
        "smallest measurement takes longer than its share, some epochs are left out.",
        "--rounds 1 --epochs 2 --only JacobianNormCallback",
        full="--rounds 3 --epochs 30",
        minutes=3,
    ),
    "sensitivity": Benchmark(
        "A sensitivity report",
        "All measures with 95 % intervals, against the derivatives alone and against "
        "`tape.batch_jacobian`, whose graph does the same pullbacks: what a report saves over "
        "eager code is a trace at every batch. The statistics run in NumPy on one core, while "
        "TensorFlow is busy with the next batch on all of them.",
        "--rounds 1 --examples 2000 --memory 2000",
    ),
    "sensitivity_large": Benchmark(
        "A sensitivity report where traces hardly count",
        "The same with ten times the examples.",
        None,
        script="sensitivity",
        full="--examples 100000 --memory",
        minutes=3,
    ),
    "sensitivity_salib": Benchmark(
        "DGSM against SALib",
        "On the points that SALib draws. SALib takes finite differences: the difference falls with "
        "its step.",
        "--points 512",
        peer=("--salib", "salib"),
    ),
    "scaling": Benchmark(
        "Cost against size",
        "On [a page of its own](scaling.md).",
        "--seconds 0.2",
        minutes=5,
    ),
}
