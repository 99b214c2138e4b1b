"""Training that is killed goes on to the same weights, bit for bit."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from support import resume_case

TESTS = pathlib.Path(__file__).parents[1]
PATH = os.pathsep.join([str(TESTS.parent), str(TESTS)])
# What is killed when: how often is saved, the epoch and the batch.
KILLED = [("epoch", 1, 2), (2, 0, 4)]


@pytest.mark.slow
@pytest.mark.parametrize(("save_freq", "epoch", "batch"), KILLED)
@pytest.mark.parametrize("kind", ["GaussNewton", "KFAC"])
def test_a_killed_process_goes_on_to_the_same_weights(kind, save_freq, epoch, batch, tmp_path):
    arguments = [kind, str(tmp_path / "backup"), str(save_freq), str(epoch), str(batch)]
    environment = {**os.environ, "PYTHONPATH": PATH, "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-m", "support.resume_case", *arguments]
    done = subprocess.run(command, env=environment, check=False)
    assert done.returncode == 9 and (tmp_path / "backup" / "latest.weights.h5").exists()
    resumed = resume_case.train(kind, tmp_path / "backup", save_freq)
    undisturbed = resume_case.train(kind, tmp_path / "none", save_freq)
    for a, b in zip(resumed, undisturbed, strict=True):
        np.testing.assert_array_equal(a, b)


class Stop(Exception):
    pass


class Interrupt(resume_case.Kill):
    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.place:
            raise Stop


FAST = {"GaussNewton", "KFAC"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[] if kind in FAST else pytest.mark.slow)
        for kind in resume_case.OPTIMIZERS
    ],
)
def test_an_interrupted_fit_goes_on_to_the_same_weights(kind, tmp_path):
    with pytest.raises(Stop):
        resume_case.train(kind, tmp_path / "backup", "epoch", Interrupt(1, 3))
    resumed = resume_case.train(kind, tmp_path / "backup", "epoch")
    undisturbed = resume_case.train(kind, tmp_path / "none", "epoch")
    for a, b in zip(resumed, undisturbed, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["GaussNewton", pytest.param("KFAC", marks=pytest.mark.slow)])
def test_a_checkpoint_from_the_middle_of_an_epoch_goes_on(kind, tmp_path):
    path = tmp_path / "{batch}.keras"
    save = keras.callbacks.ModelCheckpoint(path, save_freq=4, monitor="loss", verbose=0)
    fn = resume_case.model(kind)
    fn.fit(resume_case.batches(), verbose=0, callbacks=[save])
    (file,) = tmp_path.iterdir()
    # Saved again before its first step, which is what makes some of the state's variables.
    again = keras.saving.load_model(file)
    again.save(tmp_path / "again.keras")
    again = keras.saving.load_model(tmp_path / "again.keras")
    assert str(again.optimizer.status).startswith("step 4: the step lowered the loss")
    again.fit(resume_case.batches().skip(4), verbose=0)
    for a, b in zip(again.get_weights(), fn.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
