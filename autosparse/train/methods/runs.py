"""N of M masks on a tensor, as often as every step: the M weights of every run as one index.

A pattern's own file says which weights make a run; here is only the choice of the N largest of each,
where the weights lie, on the processor or on a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autosparse.patterns.structure import IntArray


class Runs:
    """The runs of one weight.

    Args:
        members: int ``[runs, M]``, positions in the flattened weight; short runs are filled up with -1.
        kept: N, of each run; a shorter one keeps all it has.
        weight: the weight that the positions are of.
    """

    def __init__(self, members: IntArray, kept: int, weight: Tensor) -> None:
        positions = torch.from_numpy(members).long().to(weight.device)
        self._absent = positions < 0
        self._members = positions.clamp_min(0)
        self._kept = kept
        self._shape = weight.shape

    def mask(self, weight: Tensor) -> Tensor:
        """Keeps the N largest of every run, of equals the later ones; weights outside all runs go.

        Returns:
            Bool, of the weight's shape.
        """
        flat = weight.detach().contiguous().view(-1)
        size = flat.abs()[self._members].masked_fill_(self._absent, -1.0)
        order = size.argsort(dim=1, stable=True)
        best = torch.zeros_like(self._absent)
        best.scatter_(1, order[:, order.shape[1] - self._kept :], True)
        best &= ~self._absent
        mask = torch.zeros(flat.numel(), dtype=torch.bool, device=flat.device)
        mask[self._members[best]] = True
        return mask.view(self._shape)
