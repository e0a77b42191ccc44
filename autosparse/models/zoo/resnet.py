"""Residual networks for ImageNet-sized images, with torchvision's parameter names.

Source: He et al., Deep Residual Learning for Image Recognition, 2016, section 3.3 and table 1.
Differs: bottlenecks put the stride on the 3x3 convolution instead of the first 1x1 ("v1.5"), as the
weights in circulation expect.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autosparse.models.registry import zoo_model


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def _conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)


def _downsample(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(_conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _downsample(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (b, inputs, h, w) to (b, planes, h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + shortcut)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut; four times as many outputs as planes."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.conv1 = _conv1x1(inputs, planes)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv3x3(planes, planes, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _conv1x1(planes, outputs)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (b, inputs, h, w) to (b, 4 * planes, h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + shortcut)  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """A stem, four stages of residual blocks, global average pooling and a linear head.

    Args:
        block: kind of residual block.
        depths: blocks per stage.
        classes: outputs.
    """

    def __init__(
        self, block: type[BasicBlock | Bottleneck], depths: tuple[int, int, int, int], classes: int
    ) -> None:
        super().__init__()
        self._inputs = 64
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._stage(block, 64, depths[0], stride=1)
        self.layer2 = self._stage(block, 128, depths[1], stride=2)
        self.layer3 = self._stage(block, 256, depths[2], stride=2)
        self.layer4 = self._stage(block, 512, depths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * block.expansion, classes)

    def _stage(
        self, block: type[BasicBlock | Bottleneck], planes: int, depth: int, stride: int
    ) -> nn.Sequential:
        blocks = []
        for index in range(depth):
            blocks.append(block(self._inputs, planes, stride if index == 0 else 1))
            self._inputs = planes * block.expansion
        return nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (b, 3, h, w) to logits (b, classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))  # type: ignore[no-any-return]


@zoo_model(input_shape=(3, 224, 224), classes=1000)
def resnet18(classes: int) -> nn.Module:
    """ResNet-18: 11.7 million parameters, 1.8 GMAC at 224."""
    return ResNet(BasicBlock, (2, 2, 2, 2), classes)


@zoo_model(input_shape=(3, 224, 224), classes=1000)
def resnet34(classes: int) -> nn.Module:
    """ResNet-34: 21.8 million parameters, 3.7 GMAC at 224."""
    return ResNet(BasicBlock, (3, 4, 6, 3), classes)


@zoo_model(input_shape=(3, 224, 224), classes=1000)
def resnet50(classes: int) -> nn.Module:
    """ResNet-50 v1.5: 25.6 million parameters, 4.1 GMAC at 224."""
    return ResNet(Bottleneck, (3, 4, 6, 3), classes)
