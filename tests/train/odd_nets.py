"""Networks as users write them, whose forward asks more of training than that of `tiny_net`."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Outputs = namedtuple("Outputs", ["logits", "auxiliary"])


@dataclass
class ModelOutput:
    """As records of transformers are: fields, no order."""

    loss: Tensor | None
    logits: Tensor


class Net(nn.Module):
    """A small network; its methods differ in what `forward` does with the last features."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
        )
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(32, num_classes)
        self.auxiliary = nn.Linear(32, num_classes)

    def features(self, x: Tensor) -> Tensor:
        return self.pool(self.body(x)).flatten(1)

    def forward(self, x: Tensor) -> object:
        return self.head(self.features(x))


class Viewing(Net):
    def forward(self, x: Tensor) -> object:
        x = self.body(x)
        return self.head(self.pool(x).view(x.size(0), -1))


class ViewingInTraining(Net):
    def forward(self, x: Tensor) -> object:
        x = self.body(x)
        if self.training:
            x = x.view(x.size(0), -1).view(x.shape)
        return self.head(self.pool(x).flatten(1))


class ReadingStrides(Net):
    """Runs in both orders of memory, and computes something else in each."""

    def forward(self, x: Tensor) -> object:
        x = self.body(x)
        return self.head(self.pool(x).flatten(1) * x.stride(1))


class Tuple(Net):
    def forward(self, x: Tensor) -> object:
        x = self.features(x)
        return self.head(x), self.auxiliary(x)


class TupleInTraining(Net):
    def forward(self, x: Tensor) -> object:
        x = self.features(x)
        return Outputs(self.head(x), self.auxiliary(x)) if self.training else self.head(x)


class Dict(Net):
    def forward(self, x: Tensor) -> object:
        x = self.features(x)
        return {"features": x, "logits": self.head(x)}


class Unnamed(Net):
    def forward(self, x: Tensor) -> object:
        x = self.features(x)
        return {"scores": self.head(x), "features": x}


class Record(Net):
    def forward(self, x: Tensor) -> object:
        return ModelOutput(loss=None, logits=self.head(self.features(x)))


class FeaturesFirst(Net):
    def forward(self, x: Tensor) -> object:
        x = self.features(x)
        return x, self.head(x)


class Images(Net):
    def forward(self, x: Tensor) -> object:
        return self.body(x)


class WithoutGradients(Net):
    def forward(self, x: Tensor) -> object:
        with torch.no_grad():
            return self.head(self.features(x))


class WritingInPlace(Net):
    def forward(self, x: Tensor) -> object:
        self.head.weight.mul_(1.0)
        return self.head(self.features(x))


class Infinite(Net):
    def forward(self, x: Tensor) -> object:
        return self.head(self.features(x)) * float("inf")


class Failing(Net):
    def forward(self, x: Tensor) -> object:
        if self.training:
            raise RuntimeError("no targets were given")
        return self.head(self.features(x))


def viewing(num_classes: int = 10) -> nn.Module:
    return Viewing(num_classes)


def tuple_in_training(num_classes: int = 10) -> nn.Module:
    return TupleInTraining(num_classes)


def failing(num_classes: int = 10) -> nn.Module:
    return Failing(num_classes)
