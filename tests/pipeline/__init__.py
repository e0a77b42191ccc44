"""A package, so that pytest lets its modules share one Ray."""
