"""Which weights share a block of curvature, and the Kronecker factors of each."""
