"""Nests of tensors as vectors, and linear maps between them."""
