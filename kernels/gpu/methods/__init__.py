"""Ways to compute a layer on a GPU, a file or folder each."""
