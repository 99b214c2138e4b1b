"""A Keras model seen from here: a function of its weights or inputs, its losses, its data."""
