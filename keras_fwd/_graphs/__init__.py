"""Reading a traced graph: its nodes, what flows where, and the scan for leaks."""
