"""`find_leaks`: the search over layers, the proof of each find, and the report."""
