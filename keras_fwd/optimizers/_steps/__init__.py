"""The parts of a training step that curvature optimizers share."""
