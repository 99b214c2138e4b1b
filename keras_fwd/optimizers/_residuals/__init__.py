"""Residuals of one's own in the place of a model and its loss."""
