"""The damped least-squares system of a batch, and its solvers."""
