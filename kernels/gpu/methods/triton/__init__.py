"""Kernels of tiles in Triton: linear layers and convolutions of images with channels last.

device/     what runs on the GPU
geometry    rows of a product and where they lie
packing     condensed weights and lists, from a layer's tiles
product     a packed product on a device, and its launches
call        one launch: run, interpreted, or compiled for a chip that is not there
loading     the device's code, compiled or interpreted
layer       a layer ready to be called
launches    launch parameters that fit on a chip, most promising first
typical     a launch as a layer of a pattern has it, whatever its weights
training    both backward products, and a function with them that autograd knows
method      the face to the rest

Which route: gathering inside of a dense kernel. Weights are condensed, inputs are gathered in runs of
at least 16 bytes where the pattern's runs and the layer's channels are multiples of 8 (`tw64k8`), so
that they go to shared memory without passing registers; shorter runs take more and smaller copies,
single columns loads through registers.

Source: Guo et al., "Accelerating Sparse DNN Models without Hardware-Support via Tile-Wise Sparsity",
SC'20, for condensed tiles with lists of kept columns.
Differs: one persistent kernel for all tiles of a layer, where the source starts one per tile, on
streams of their own; rows stay as the network has them, where the source transposes them.
"""

from autosparse.kernels.gpu.methods.triton.method import TritonTiles

__all__ = ["TritonTiles"]
