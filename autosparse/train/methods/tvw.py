"""TVW: tile-wise pruning in stages, then N:M inside what the tiles keep.

Source: arXiv 2402.10876: tile-wise at the level of memory, 2:4 at that of the sparse tensor core's
registers. The hardware takes M consecutive *kept* inputs of a tile, so tiles come first.
Differs: the inner N:M is chosen as SR-STE does (arXiv 2102.04010), anew in every step of the last stage
from latent weights that keep learning, which the source does not say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from autosparse.errors import PlanError
from autosparse.patterns.family import family_of
from autosparse.patterns.pattern import Pattern
from autosparse.patterns.structure import BoolArray, IntArray
from autosparse.records.rules import require
from autosparse.train.methods import method
from autosparse.train.methods.latent import MaskedLayer, MaskedLayers
from autosparse.train.methods.method import Probe, register
from autosparse.train.methods.runs import Runs
from autosparse.train.methods.tw import TileWise, TileWiseSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TileVectorWiseSettings(TileWiseSettings):
    """Stages of tiles as in `tw`, and what pruned weights inside of tiles feel.

    Attributes:
        decay: pull of weights that N:M prunes towards zero (lambda).
    """

    decay: float = 2e-4

    def __post_init__(self) -> None:
        TileWiseSettings.__post_init__(self)
        require(self.decay >= 0, "decay must be at least 0", decay=self.decay)


@register
class TileVectorWise(TileWise):
    """Tiles as `tw` has them; from the last stage on, N of M kept inputs, moving step by step."""

    Settings = TileVectorWiseSettings
    settings: TileVectorWiseSettings

    def __init__(
        self, layers: MaskedLayers, settings: method.MethodSettings, *, epochs: int, seed: int
    ) -> None:
        super().__init__(layers, settings, epochs=epochs, seed=seed)
        self._inside: dict[str, tuple[torch.Tensor, Runs]] = {}

    def check(self) -> None:
        """Refuses patterns other than tiles; those without N:M inside are pruned as `tw` does.

        Raises:
            PlanError: there is one.
        """
        for layer in self.layers:
            pattern = layer.choice.pattern
            is_tile = family_of(pattern).contract(pattern).kind == "tw" or pattern.nm is not None
            if not is_tile or pattern.group_out < 2:
                raise PlanError(
                    f"tvw takes tiles, such as tvw64 with N:M inside or tw64 without, but {layer.name} "
                    f"shall be {layer.choice.label}; take tw"
                )
            tiles, sparsity = self.staged(layer, 1.0)
            if why := family_of(tiles).why_not_sparsity(tiles, sparsity):
                raise PlanError(f"{layer.name} cannot be {layer.choice.label}: {why}")

    def staged(self, layer: MaskedLayer, part: float) -> tuple[Pattern, float]:
        """Gives the tiles of a stage: density D of the plan leaves tiles of density ``D * M / N``."""
        pattern = layer.choice.pattern
        if pattern.nm is None:
            return super().staged(layer, part)
        kept, of = pattern.nm
        tiles = max(0.0, 1 - (1 - layer.choice.sparsity) * of / kept)
        plain = Pattern.from_json({**pattern.to_json(), "family": "tw", "nm": None})
        return plain, tiles * part

    def start_epoch(self, epoch: int, probe: Probe) -> int:
        """Prunes tiles at the start of a stage; from the last one on, N:M inside of them."""
        changed = super().start_epoch(epoch, probe)
        if epoch == self.first_final_epoch:
            self._open({layer.name: _mask_of(layer) for layer in self.layers})
        self.start_step()
        return changed

    def _open(self, tiles: Mapping[str, BoolArray]) -> None:
        """Begins to prune inside of tiles."""
        for layer in self.layers:
            if layer.choice.pattern.nm is None:
                continue
            kept, of = layer.choice.pattern.nm
            members = runs_inside(tiles[layer.name], layer.choice.pattern, of)
            outside = torch.from_numpy(tiles[layer.name]).to(layer.mask.device)
            self._inside[layer.name] = outside, Runs(members, kept, layer.weight)

    def state(self) -> dict[str, dict[str, torch.Tensor]]:
        """Gives the masks and, in the last stage, the tiles that they lie in."""
        tiles = {name: tiles.cpu() for name, (tiles, _) in self._inside.items()}
        return {**super().state(), "tiles": tiles}

    def restore(self, state: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Takes masks and tiles back.

        Raises:
            RunError: they belong to another plan.
        """
        super().restore(state)
        if state["tiles"]:
            held = {name: tiles.numpy() for name, tiles in state["tiles"].items()}
            self._open({layer.name: _mask_of(layer) for layer in self.layers} | held)

    def start_step(self) -> None:
        """Chooses N of every M kept inputs, of the latent weights as they are."""
        for layer in self.layers:
            if layer.name in self._inside:
                layer.mask.copy_(self._inside[layer.name][1].mask(layer.weight))

    def shape_gradients(self) -> None:
        """Takes from weights outside of tiles what they would feel; the others are pulled."""
        if self._inside:
            self.layers.pull_pruned(self.settings.decay)
        for layer in self.layers:
            if layer.weight.grad is not None:
                alive = self._inside[layer.name][0] if layer.name in self._inside else layer.mask
                layer.weight.grad.mul_(alive)


def runs_inside(tiles: BoolArray, pattern: Pattern, length: int) -> IntArray:
    """Gives the runs of consecutive kept inputs of every output.

    Args:
        tiles: mask of tiles, of the weight's shape: all outputs of a group keep the same columns.
        pattern: whose groups list columns in the order that kernels read them.
        length: M.

    Returns:
        int32 ``[runs, M]``, positions in the flattened weight; the last run of an output is filled up
        with -1 where its columns are no multiple of M.
    """
    kept = tiles.reshape(len(tiles), -1)
    rows = np.flatnonzero(kept.any(axis=1)).astype(np.int32)
    found = [np.empty((0, length), dtype=np.int32)]
    for group in family_of(pattern).groups(pattern, tiles.shape, rows):
        columns = group.units.reshape(-1)
        columns = columns[columns >= 0]
        columns = columns[kept[group.outputs[0], columns]]
        full = np.full(-(-len(columns) // length) * length, -1, dtype=np.int64)
        full[: len(columns)] = columns
        places = full[None, :] + np.where(full < 0, 0, 1) * group.outputs[:, None] * kept.shape[1]
        found.append(places.reshape(-1, length).astype(np.int32))
    return np.concatenate(found)


def _mask_of(layer: MaskedLayer) -> BoolArray:
    return np.array(layer.mask.cpu().numpy())  # a copy: the mask goes on to move
