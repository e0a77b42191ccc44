"""The processes that train one model together, each on its own share of every batch.

Each holds the whole model; what they exchange keeps their copies equal to the bit: one sum of all
gradients per step, one mean of batch-norm statistics per epoch, and what the first of them finds out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from autosparse.errors import RunError

_T = TypeVar("_T")


class Team:
    """One process that trains alone: there is nobody to exchange anything with.

    Attributes:
        rank: which of them this process is; the first, 0, alone has files and prints.
        size: how many there are.
    """

    rank = 0
    size = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files, reports and evaluates."""
        return self.rank == 0

    @property
    def shard(self) -> tuple[int, int]:
        """The share of every batch that is this process's, as `AnySplit.batches` takes it."""
        return self.rank, self.size

    def average(self, module: nn.Module, loss: float, share: float) -> float:
        """Makes of every process's gradients, in place, those of the whole batch.

        Args:
            module: whose gradients are those of the mean loss over this process's samples.
            loss: that mean; anything finite where the process has no sample.
            share: of the batch's samples that this process has; all shares together are 1.

        Returns:
            The mean loss over the whole batch.
        """
        return loss

    def average_statistics(self, tensors: Sequence[Tensor], samples: int) -> None:
        """Makes buffers that every process has moved by itself equal, in place.

        Floating-point ones become their mean, weighted by samples, others their maximum.

        Args:
            tensors: equally many of equal shapes in every process.
            samples: that this process has seen; some process has seen one.
        """

    def from_first(self, find: Callable[[], _T]) -> _T:
        """Gives what a function gives in the first process; others wait for it and do not call it."""
        return find()

    def check_equal(self, module: nn.Module, masks: str, when: str) -> None:
        """Refuses processes whose weights or masks differ from the first one's.

        Args:
            module: parameters and buffers are compared bit for bit.
            masks: a hash of the masks.
            when: for the message, ``after epoch 3``.

        Raises:
            RunError: there are some; names them. Raised in all processes.
        """


ALONE = Team()


class Member(Team):
    """One of several processes, joined by the default process group of `torch.distributed`.

    Args:
        device: where its tensors lie; the group's backend must carry those.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self._device = device

    @torch.no_grad()
    def average(self, module: nn.Module, loss: float, share: float) -> float:
        """Sums all gradients, each weighted by its share, in one exchange; the loss goes with them.

        A parameter that nobody's loss depends on keeps no gradient, as in one process.
        """
        learning = [p for p in module.parameters() if p.requires_grad]
        parts = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in learning]
        told = [share * loss if share else 0.0, *(float(p.grad is not None) for p in learning)]
        gradients = torch.cat(parts).float() if parts else torch.empty(0, device=self._device)
        flat = torch.cat([gradients * share, torch.tensor(told, device=self._device)])
        dist.all_reduce(flat)
        sizes = [p.numel() for p in learning]
        *sums, told_by_all = torch.split(flat, [*sizes, len(told)])
        whole_loss, *felt = told_by_all.tolist()
        for parameter, total, is_felt in zip(learning, sums, felt, strict=True):
            if is_felt:
                # Like the parameter, so that both lie in memory in the same order.
                parameter.grad = torch.empty_like(parameter).copy_(total.view(parameter.shape))
        return float(whole_loss)

    @torch.no_grad()
    def average_statistics(self, tensors: Sequence[Tensor], samples: int) -> None:
        """Exchanges them in at most two sums and one maximum."""
        floating = [t for t in tensors if t.is_floating_point()]
        counts = [t for t in tensors if not t.is_floating_point()]
        if floating:
            everyone = torch.tensor([float(samples)], dtype=torch.float64, device=self._device)
            dist.all_reduce(everyone)
            flat = torch.cat([t.reshape(-1).double() for t in floating])
            # Zeros where nothing was seen: infinite values times nothing would be no numbers.
            flat = flat * (samples / everyone) if samples else torch.zeros_like(flat)
            dist.all_reduce(flat)
            _spread(flat, floating)
        if counts:
            flat = torch.cat([t.reshape(-1).long() for t in counts])
            dist.all_reduce(flat, op=dist.ReduceOp.MAX)
            _spread(flat, counts)

    def from_first(self, find: Callable[[], _T]) -> _T:
        """Sends it to the others, pickled."""
        found: list[_T | None] = [find() if self.is_first else None]
        dist.broadcast_object_list(found, src=0, device=self._device)
        return found[0]  # type: ignore[return-value]

    def check_equal(self, module: nn.Module, masks: str, when: str) -> None:
        """Compares hashes."""
        found: list[str] = [""] * self.size
        dist.all_gather_object(found, f"{_checksum(module)} {masks}")
        others = [str(rank) for rank, said in enumerate(found) if said != found[0]]
        if others:
            raise RunError(
                "all processes of a training must hold the same weights and masks, but "
                f"{when} those of rank {', '.join(others)} differ from rank 0's; train on "
                "equal processors with equal libraries, or in one process"
            )


def _spread(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    parts = torch.split(flat, [t.numel() for t in tensors])
    for tensor, values in zip(tensors, parts, strict=True):
        tensor.copy_(values.view(tensor.shape))


def _checksum(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for tensor in (*module.parameters(), *module.buffers()):
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
