"""One verb of the command line a file: what it wires together, in order."""
