"""Kronecker factors over the steps of a training, and steps from them."""
