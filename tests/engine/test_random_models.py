"""Small convolutional nets made at random: branches, residual sums, gates, concatenations, pools."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autosparse.engine import CompiledModel

ACTIVATIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    F.relu,
    F.relu6,
    F.silu,
    F.hardswish,
    F.gelu,
    torch.sigmoid,
    lambda x: x,
)


class RandomNet(nn.Module):
    """A list of steps, each reading earlier tensors; the last one is pooled and classified.

    Tensors that no step reads are joined at the end, so that nothing is dead.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.draw = random.Random(seed)
        self.parts = nn.ModuleList()
        self.steps: list[Callable[[list[Tensor]], Tensor]] = []
        self.channels = [self.draw.choice([3, 5, 8])]
        self.sizes = [(self.draw.randint(7, 15), self.draw.randint(7, 15))]
        self.batch_size = self.draw.randint(1, 3)
        for _ in range(self.draw.randint(4, 10)):
            self.draw.choice(
                [self.convolve, self.convolve, self.residual, self.join, self.pool, self.gate]
            )()
        self.head = nn.Linear(self.channels[-1], 5)

    def source(self) -> int:
        return self.draw.randrange(max(0, len(self.channels) - 3), len(self.channels))

    def add(self, step: Callable[[list[Tensor]], Tensor], channels: int, size: tuple[int, int]) -> None:
        self.steps.append(step)
        self.channels.append(channels)
        self.sizes.append(size)

    def conv(self, inputs: int, outputs: int, stride: int = 1, groups: int = 1) -> nn.Module:
        kernel = self.draw.choice([1, 3, 3, 5])
        dilation = self.draw.choice([1, 1, 2])
        padding = dilation * (kernel // 2)
        parts: list[nn.Module] = [
            nn.Conv2d(
                inputs,
                outputs,
                kernel,
                stride,
                padding,
                dilation,
                groups,
                bias=self.draw.random() < 0.5,
            )
        ]
        if self.draw.random() < 0.7:
            parts.append(nn.BatchNorm2d(outputs))
        part = nn.Sequential(*parts)
        self.parts.append(part)
        return part

    def convolve(self) -> None:
        at, act = self.source(), self.draw.choice(ACTIVATIONS)
        stride = self.draw.choice([1, 1, 2])
        depthwise = self.draw.random() < 0.2
        outputs = (
            self.channels[at] * self.draw.choice([1, 2])
            if depthwise
            else self.draw.choice([6, 16, 17, 33])
        )
        part = self.conv(self.channels[at], outputs, stride, self.channels[at] if depthwise else 1)
        height, width = self.sizes[at]
        size = ((height - 1) // stride + 1, (width - 1) // stride + 1)
        self.add(lambda made: act(part(made[at])), outputs, size)

    def residual(self) -> None:
        at, act = self.source(), self.draw.choice(ACTIVATIONS)
        first = self.conv(self.channels[at], 12)
        second = self.conv(12, self.channels[at])
        before = self.draw.random() < 0.3
        if before:
            self.add(
                lambda made: act(made[at]) + second(first(act(made[at]))),
                self.channels[at],
                self.sizes[at],
            )
        else:
            self.add(
                lambda made: act(second(F.relu(first(made[at]))) + made[at]),
                self.channels[at],
                self.sizes[at],
            )

    def join(self) -> None:
        at = self.source()
        same = [index for index, size in enumerate(self.sizes) if size == self.sizes[at]]
        picked = [self.draw.choice(same) for _ in range(self.draw.randint(2, 3))]
        channels = sum(self.channels[index] for index in picked)
        if channels <= 80:
            self.add(lambda made: torch.cat([made[i] for i in picked], 1), channels, self.sizes[at])

    def pool(self) -> None:
        at = self.source()
        ceil = self.draw.random() < 0.5
        pooling: Callable[..., Tensor] = self.draw.choice([F.max_pool2d, F.avg_pool2d])
        if min(self.sizes[at]) < 3:
            return
        sample = pooling(torch.zeros(1, 1, *self.sizes[at]), 3, 2, 1, ceil_mode=ceil)
        self.add(
            lambda made: pooling(made[at], 3, 2, 1, ceil_mode=ceil),
            self.channels[at],
            (sample.shape[2], sample.shape[3]),
        )

    def gate(self) -> None:
        at = self.source()
        squeeze = nn.Conv2d(self.channels[at], self.channels[at], 1)
        self.parts.append(squeeze)
        self.add(
            lambda made: made[at] * F.hardsigmoid(squeeze(made[at].mean((2, 3), keepdim=True))),
            self.channels[at],
            self.sizes[at],
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        made = [x]
        for step in self.steps:
            made.append(step(made))
        pooled = torch.cat([value.mean((2, 3)) for value in made], 1)
        return self.head(F.adaptive_avg_pool2d(made[-1], 1).flatten(1)), pooled


QUICK = (0, 3, 9)


@pytest.mark.usefixtures("largest_blocks")
@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=pytest.mark.smoke) if seed in QUICK else seed for seed in range(24)],
)
def test_a_random_model_agrees_with_torch(
    seed: int,
    check: Callable[..., CompiledModel],
    stir: Callable[..., nn.Module],
    prune: Callable[..., nn.Module],
) -> None:
    torch.manual_seed(seed)
    net = RandomNet(seed)
    prune(stir(net, seed), seed, share=0.5)
    x = torch.randn(
        net.batch_size, net.channels[0], *net.sizes[0], generator=torch.Generator().manual_seed(seed)
    )
    check(net, (x,))
