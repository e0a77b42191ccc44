"""Prune a trained module without training: choose and set weights by second-order error.

settings     ReconstructionSettings: images, damping, what a layer shall give back
layers       reconstruct: layer by layer as they run, in place
alternatives reconstruct_alone: many choices of each layer by itself, to stitch
choosing     which weights a layer keeps, by what its pattern shares
elimination  the order in which shared units go, and what each costs
columns      outputs that each keep columns of their own, set column by column
packed       weights of one mask, as small as they are, in memory and in files
problem      one layer's weights, moments and error; least squares for a mask
hessians     second moments of layers' inputs
inputs       the columns of a layer's input
"""

from __future__ import annotations

from autosparse.reconstruct.alternatives import Alternatives, Errors, reconstruct_alone
from autosparse.reconstruct.layers import LayerReport, Reconstruction, reconstruct
from autosparse.reconstruct.settings import ReconstructionSettings

__all__ = [
    "Alternatives",
    "Errors",
    "LayerReport",
    "Reconstruction",
    "ReconstructionSettings",
    "reconstruct",
    "reconstruct_alone",
]
