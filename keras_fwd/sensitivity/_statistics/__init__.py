"""Statistics of derivatives over a data set, with their errors."""
