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
        self._absent = (positions < 0).T.contiguous()
        self._members = positions.clamp_min(0).T.contiguous()
        self._present = positions[positions >= 0]
        self._kept = kept
        self._shape = weight.shape

    def mask(self, weight: Tensor) -> Tensor:
        """Keeps the N largest of every run, of equals the later ones; weights outside all runs go.

        Returns:
            Bool, of the weight's shape.
        """
        flat = weight.detach().contiguous().view(-1)
        size = flat.abs()[self._members].masked_fill_(self._absent, -1.0)
        best = (self._ahead(size) < self._kept) & ~self._absent
        mask = torch.zeros(flat.numel(), dtype=torch.bool, device=flat.device)
        mask[self._present] = best.T[~self._absent.T]
        return mask.view(self._shape)

    def _ahead(self, size: Tensor) -> Tensor:
        """Counts, for every weight, those of its run that go before it: uint8 ``[M, runs]``.

        Comparing all pairs takes M^2 / 2 passes over the weights and no sort, which costs more for the
        small M there are.
        """
        ahead = torch.zeros_like(size, dtype=torch.uint8)
        for one in range(len(size)):
            for later in range(one + 1, len(size)):
                loses = size[later] >= size[one]
                ahead[one] += loses
                ahead[later] += ~loses
        return ahead
