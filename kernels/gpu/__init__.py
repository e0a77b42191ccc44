"""Kernels of GPUs: tiles of outputs with lists of what they read, and the libraries they have to beat.

chips       what the multiprocessors of each architecture have, and what follows for kernels
launch      launch parameters, as rows of the tuning database name them
method      what every way to compute a layer offers, and the registry of those there are
methods/    a file or folder per way; it is scanned, so there is no list to edit
nvrtc       machine code from CUDA C++, for a chip that need not be here; driver launches it
finishing   bias, residual and activation after a library's product; cuda/ has what sources share

Nothing here is loaded by `import autosparse`, and nothing of it needs a GPU to be imported: compilers
and drivers are asked for when a layer is prepared.
"""
