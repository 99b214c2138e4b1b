"""Curvature of a loss: Hessians in the outputs, Gauss-Newton matrix, Fisher information."""
