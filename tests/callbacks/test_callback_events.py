"""What callbacks write for TensorBoard, read back from the files."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_sensitivity_callback import Passing, clock, train  # noqa: F401 - a fixture

from keras_fwd.callbacks import CurvatureCallback, JacobianNormCallback, SensitivityCallback

pytest.importorskip("tensorboard")
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(96, 3))


def read(directory, tags="scalars"):
    """{tag: {step: value}}; of images the size."""
    from tensorboard.backend.event_processing import event_accumulator

    events = event_accumulator.EventAccumulator(str(directory), {"tensors": 0, "images": 0})
    found = {}
    events.Reload()
    for tag in events.Tags()["tensors"]:
        kind = events.SummaryMetadata(tag).plugin_data.plugin_name
        if kind == tags:
            found[tag] = {e.step: tf.make_ndarray(e.tensor_proto) for e in events.Tensors(tag)}
    return found


CALLBACKS = {
    "jacobian": (lambda **more: JacobianNormCallback(X, **more), {"jacobian_norm"}),
    "curvature": (
        lambda **more: CurvatureCallback((X, X[:, :1]), ["trace"], **more),
        {"hessian_trace", "hessian_trace_stderr"},
    ),
    "sensitivity": (
        lambda **more: SensitivityCallback(X, max_overhead=None, **more),
        {f"sensitivity/feature {i}" for i in range(3)},
    ),
}


@pytest.mark.parametrize("kind", CALLBACKS)
def test_scalars_of_each_epoch_are_written(kind, clock, tmp_path):  # noqa: F811
    build, names = CALLBACKS[kind]
    history = train([build(log_dir=tmp_path)])
    found = read(tmp_path)
    assert set(found) == names
    for name in names:
        assert list(found[name]) == [0, 1, 2]
        np.testing.assert_allclose(list(found[name].values()), history[name], rtol=1e-6)


def test_steps_are_batches_where_the_schedule_is(clock, tmp_path):  # noqa: F811
    train([JacobianNormCallback(X, every=2, log_dir=tmp_path)])  # 3 batches each
    assert list(read(tmp_path)["jacobian_norm"]) == [2, 4, 6, 8]
    train([JacobianNormCallback(X, every=100, log_dir=tmp_path / "ends")])
    assert list(read(tmp_path / "ends")["jacobian_norm"]) == [3, 6, 9]


def test_the_number_of_examples_is_written_too(clock, tmp_path):  # noqa: F811
    history = train([SensitivityCallback(X, log_dir=tmp_path), Passing(clock)])
    found = list(read(tmp_path)["sensitivity_examples"].values())
    assert found == history["sensitivity_examples"] == [96] * 3


def test_the_report_is_drawn(clock, tmp_path):  # noqa: F811
    train([SensitivityCallback(X, log_dir=tmp_path), Passing(clock)])
    images = read(tmp_path, "images")
    assert set(images) == {"sensitivity"}
    assert list(images["sensitivity"]) == [0, 1, 2]
    width, height, png = images["sensitivity"][2]
    pixels = tf.io.decode_png(png).numpy()
    assert pixels.shape == (int(height), int(width), 4)
    assert len(np.unique(pixels)) > 10


def test_figures_have_a_budget_of_their_own(clock, tmp_path, monkeypatch):  # noqa: F811
    from keras_fwd.callbacks._measuring import events

    draw = events.pixels

    def slow(figure):
        clock.now += 0.5
        return draw(figure)

    monkeypatch.setattr(events, "pixels", slow)
    history = train([SensitivityCallback(X, log_dir=tmp_path), Passing(clock)], epochs=12)
    images = read(tmp_path, "images")["sensitivity"]
    # Each epoch allows 150 ms; that of the end is drawn after training.
    assert list(images) == [8, 11]
    assert history["sensitivity_examples"] == [96] * 12


def test_the_tensorboard_callback_of_keras_sees_the_logs(clock, tmp_path):  # noqa: F811
    callbacks = [build() for build, _ in CALLBACKS.values()]
    history = train([*callbacks, keras.callbacks.TensorBoard(tmp_path / "keras")])
    found = read(tmp_path / "keras" / "train")
    for _, names in CALLBACKS.values():
        for name in names:
            values = list(found[f"epoch_{name}"].values())
            np.testing.assert_allclose(values, history[name], rtol=1e-6)


def test_all_is_written_where_keras_has_tensorflow_record_few_steps(clock, tmp_path):  # noqa: F811
    board = keras.callbacks.TensorBoard(tmp_path / "keras", update_freq=100)
    train([board, JacobianNormCallback(X, log_dir=tmp_path / "own")])
    assert "epoch_loss" not in read(tmp_path / "keras" / "train")
    assert list(read(tmp_path / "own")["jacobian_norm"]) == [0, 1, 2]


def test_tensorboard_that_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for build, _ in CALLBACKS.values():
        with pytest.raises(ImportError, match="pip install tensorboard"):
            build(log_dir=tmp_path)
