"""What the tests of deployment share: a small network of many kinds of operators, and its artifact."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autosparse.engine import compile


class Net(nn.Module):
    """Dense, 1x16, 1x8 and depthwise layers, a concatenation, and a result of nested containers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(24, 40, 3, padding=1)
        self.depthwise = nn.Conv2d(40, 40, 3, padding=1, groups=40)
        self.norm = nn.BatchNorm2d(40)
        self.point = nn.Conv2d(40, 40, 1)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(80, 10)

    def forward(self, x: Tensor) -> dict[str, object]:
        x = torch.relu(self.stem(x))
        y = torch.relu(self.wide(x))
        z = self.point(self.depthwise(y)) + y
        joined = torch.cat([self.norm(torch.sigmoid(z)), y], 1)
        return {"classes": self.fc(self.pool(joined).mean((2, 3))), "more": [torch.softmax(z, 1), (y,)]}


def make_net() -> nn.Module:
    torch.manual_seed(0)
    net = Net().eval()
    with torch.no_grad():
        for start in range(0, 40, 16):  # the last group is short
            net.wide.weight[start : start + 16, torch.randperm(24)[:14]] = 0
        for start in range(0, 40, 8):  # groups keep different numbers of blocks, the first none
            net.point.weight[start : start + 8, torch.randperm(40)[: 40 - start // 2]] = 0
        net.norm.running_mean.normal_(0, 0.3)
    return net


@pytest.fixture(scope="session")
def net() -> nn.Module:
    return make_net()


@pytest.fixture(scope="session")
def image() -> Tensor:
    return torch.randn(2, 3, 14, 14, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def artifact(net: nn.Module, image: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of the small network in f32."""
    path = tmp_path_factory.mktemp("artifact") / "net.autosparse"
    with compile(net, (image,), threads=1, exportable=True) as compiled:
        compiled.save(path, model="net")
    return path
