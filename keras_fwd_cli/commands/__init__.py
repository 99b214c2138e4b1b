"""The commands of `keras-fwd`, one a file."""
