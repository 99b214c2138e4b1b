"""Tables and arrays that a user names, as inputs of a model."""
