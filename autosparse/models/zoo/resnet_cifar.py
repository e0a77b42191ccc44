"""Residual networks for 32x32 images, shortcuts without parameters.

Names are those of the public CIFAR-10 weights: ``conv1``, ``bn1``, ``layer1.0.conv1``, ``linear``.

Source: He et al., Deep Residual Learning for Image Recognition, 2016, section 4.2, option A.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autosparse.models.registry import zoo_model


class PaddedShortcut(nn.Module):
    """Option A: every second pixel, and zero channels on both sides until the widths agree."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Maps (b, inputs, h, w) to (b, outputs, ceil(h / 2), ceil(w / 2))."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class CifarBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = (
            nn.Identity() if stride == 1 and inputs == planes else PaddedShortcut(inputs, planes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (b, inputs, h, w) to (b, planes, h / stride, w / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """A 3x3 stem, three stages of 16, 32 and 64 channels, average pooling and a linear head.

    Args:
        depth: blocks per stage; the network has ``6 * depth + 2`` weighted layers.
        classes: outputs.
    """

    def __init__(self, depth: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, depth, stride=1)
        self.layer2 = _stage(16, 32, depth, stride=2)
        self.layer3 = _stage(32, 64, depth, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (b, 3, h, w) to logits (b, classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(self.avgpool(x), 1))  # type: ignore[no-any-return]


def _stage(inputs: int, planes: int, depth: int, stride: int) -> nn.Sequential:
    first = CifarBlock(inputs, planes, stride)
    return nn.Sequential(first, *(CifarBlock(planes, planes, 1) for _ in range(depth - 1)))


@zoo_model(input_shape=(3, 32, 32), classes=10)
def resnet20(classes: int) -> nn.Module:
    """CIFAR ResNet-20: 0.27 million parameters, 41 MMAC at 32."""
    return CifarResNet(3, classes)


@zoo_model(input_shape=(3, 32, 32), classes=10)
def resnet32(classes: int) -> nn.Module:
    """CIFAR ResNet-32: 0.46 million parameters, 69 MMAC at 32."""
    return CifarResNet(5, classes)


@zoo_model(input_shape=(3, 32, 32), classes=10)
def resnet56(classes: int) -> nn.Module:
    """CIFAR ResNet-56: 0.85 million parameters, 126 MMAC at 32."""
    return CifarResNet(9, classes)
