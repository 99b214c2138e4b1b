"""One pass over the data: the derivatives of each batch, and their statistics."""
