"""Artifacts: a compiled model as one file, and what runs it without torch.

    load(path) -> LoadedModel

container   the file: a safetensors file whose arrays are aligned and hashed
recorded    a native program that remembers what an artifact needs
manifest    what an artifact says of itself
artifact    both into a file
reading     a file's manifest alone
runner      runs a native program
model       what every model that can be run and timed has in common
loaded      the callable
state_dict, onnx_file   the same weights for other programs, zeros in place

`load` needs numpy alone. The kernels' own reader (``kernels/artifact``) checks and unpacks the file.
"""

from __future__ import annotations

from autosparse.deploy.loaded import LoadedModel, load
from autosparse.deploy.manifest import LayerReport, Manifest, Port, Provenance

__all__ = ["LayerReport", "LoadedModel", "Manifest", "Port", "Provenance", "load"]
