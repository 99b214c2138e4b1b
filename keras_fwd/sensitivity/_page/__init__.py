"""The page of a report: its data, and the scripts that show them."""
