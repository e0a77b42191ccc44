"""The sparse layers of a model that trains: latent weights, the masks over them, and what they feel.

A layer's *latent* weight is its dense parameter. The network runs with the latent weight times the
mask; the gradient of that product lands on all latent weights, pruned ones too, and each method says
what becomes of it there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from autosparse.errors import RunError
from autosparse.patterns.family import family_of
from autosparse.patterns.structure import Array, BoolArray
from autosparse.plans.plan import Plan
from autosparse.plans.pruning import sparse_layers
from autosparse.records import LayerChoice


@dataclass(eq=False)
class MaskedLayer:
    """One sparse layer: what the plan wants of it, and its mask at this moment.

    Attributes:
        name: the module's dotted path.
        weight: the latent weight, OIHW or OI.
        choice: pattern and sparsity.
        mask: bool, of the weight's shape and on its device.
    """

    name: str
    weight: Tensor
    choice: LayerChoice
    mask: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the weight."""
        return tuple(self.weight.shape)

    def latent(self) -> Array:
        """Gives the latent weight, float32 on the host."""
        return self.weight.detach().float().cpu().contiguous().numpy()

    def used(self) -> Array:
        """Gives the weight as the network uses it: latent times mask."""
        return (self.weight.detach() * self.mask).float().cpu().contiguous().numpy()

    def set(self, mask: BoolArray) -> int:
        """Takes a new mask; gives how many weights it prunes or brings back."""
        new = torch.from_numpy(np.ascontiguousarray(mask)).to(self.mask.device)
        changed = int(torch.count_nonzero(new != self.mask))
        self.mask.copy_(new)
        return changed

    def sparsity(self) -> float:
        """Gives the fraction of the pattern's units that are pruned at this moment."""
        mask = self.mask.cpu().numpy()
        return family_of(self.choice.pattern).sparsity_of(mask, self.choice.pattern)


class MaskedLayers:
    """All sparse layers of a model, in the plan's order.

    Args:
        model: any module; its parameters are the latent weights.
        plan: pattern and sparsity per layer; layers it leaves dense are not touched.

    Raises:
        PlanError: the plan does not fit the model.
    """

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        self._layers = [
            MaskedLayer(name, layer.weight, choice, torch.ones_like(layer.weight, dtype=torch.bool))
            for name, layer, choice in sparse_layers(model, plan)
        ]

    def __iter__(self) -> Iterator[MaskedLayer]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    @contextmanager
    def masked(self) -> Iterator[None]:
        """Lets parameters hold latent * mask inside the block, and the latent weights after it.

        Run forward and backward inside: the gradient then lands, unmasked, on the latent weight,
        which is the straight-through estimator without any operator of its own. Step outside.
        """
        latent = [layer.weight.data for layer in self._layers]
        try:
            for layer in self._layers:
                layer.weight.data = layer.weight.data * layer.mask
            yield
        finally:
            for layer, data in zip(self._layers, latent, strict=True):
                layer.weight.data = data

    @torch.no_grad()
    def pull_pruned(self, decay: float) -> None:
        """Adds ``decay * (1 - mask) * latent`` to the gradients, outside `masked`.

        Source: arXiv 2102.04010 (SR-STE), equation 9; their lambda_W is `decay`.
        """
        if not decay:
            return
        for layer in self._layers:
            if layer.weight.grad is not None:
                pruned = layer.weight.masked_fill(layer.mask, 0.0)
                layer.weight.grad.add_(pruned, alpha=decay)

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Takes from pruned weights what they would have felt."""
        for layer in self._layers:
            if layer.weight.grad is not None:
                layer.weight.grad.mul_(layer.mask)

    @torch.no_grad()
    def finish(self) -> None:
        """Zeroes the pruned latent weights for good."""
        for layer in self._layers:
            layer.weight.masked_fill_(~layer.mask, 0.0)

    def masks(self) -> dict[str, Tensor]:
        """Gives layer name to bool mask of the weight's shape; copies."""
        return {layer.name: layer.mask.clone() for layer in self._layers}

    def sparsity(self) -> dict[str, float]:
        """Gives the fraction of units pruned at this moment, per sparse layer."""
        return {layer.name: layer.sparsity() for layer in self._layers}

    def checksum(self) -> str:
        """Gives a hash of all masks, equal for equal masks."""
        digest = hashlib.sha256()
        for layer in self._layers:
            digest.update(f"{layer.name}{layer.shape}".encode())
            digest.update(np.packbits(layer.mask.cpu().numpy()).tobytes())
        return digest.hexdigest()[:16]

    def state(self) -> dict[str, Tensor]:
        """Gives the masks, eight weights to a byte, for a checkpoint."""
        return {
            layer.name: torch.from_numpy(np.packbits(layer.mask.cpu().numpy()))
            for layer in self._layers
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Takes the masks of a checkpoint back.

        Raises:
            RunError: they belong to another plan.
        """
        found = {name: packed.numel() for name, packed in state.items()}
        wanted = {layer.name: -(-layer.mask.numel() // 8) for layer in self._layers}
        if found != wanted:
            raise RunError(
                f"a checkpoint's masks must fit the plan, of {wanted} bytes, but got {found}; "
                "train into another folder"
            )
        for layer in self._layers:
            bits = np.unpackbits(state[layer.name].numpy(), count=layer.mask.numel())
            layer.set(bits.astype(bool).reshape(layer.shape))
