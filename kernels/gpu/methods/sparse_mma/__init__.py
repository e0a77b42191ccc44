"""2:4 inside of tiles on sparse tensor cores, in CUDA C++ that NVRTC compiles.

metadata    what the instructions read: kept values, words that say where they were; and what they do
packing     a layer's weights in the order in which kernels read them
variants    what is compiled for a layer and launch parameters
launches    launch parameters that fit on a chip, most promising first; which shapes 2:4 can win
arguments   what a kernel is called with
build       machine code from the sources in cuda/, and its cache
run         a layer on a GPU
method      the face to the rest
cuda/       the kernels: mma.cu from Ampere on, wgmma.cu for Hopper; layer.cuh is what they share

Sparse tensor cores take the operand with 2:4 as the first one, so outputs^T = weights * inputs^T is
computed: kept weights as rows, output pixels as columns. Inputs are gathered in runs of 8 columns, 16
bytes, of a tile's list, whatever the kernel, stride, padding and dilation; weights were packed before.

Source: Guo et al., "Accelerating Sparse DNNs Based on Tiled GEMM" (TVW), arXiv 2402.10876; Mishra et
al., "Accelerating Sparse Deep Neural Networks", arXiv 2104.08378 (2:4 on tensor cores).
"""

from autosparse.kernels.gpu.methods.sparse_mma.method import SparseMma

__all__ = ["SparseMma"]
