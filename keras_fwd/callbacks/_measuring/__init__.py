"""When callbacks measure, what it may cost, and where it goes."""
