"""Where the double-gradient trick would fail or be wrong, and how such places are found."""
