"""MobileNet v1: depthwise separable convolutions.

torchvision has no such model, so the names are ours: ``features.0.conv`` and ``features.0.bn`` for the
stem, ``features.1.depthwise.conv``, ``features.1.pointwise.bn`` and so on for the thirteen blocks, and
``classifier`` for the head.

Source: Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
Applications, 2017, table 1, width multiplier 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autosparse.models.registry import zoo_model

# outputs and stride of the thirteen separable blocks
_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)


class ConvBnRelu(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (b, inputs, h, w) to (b, outputs, h / stride, w / stride)."""
        return self.relu(self.bn(self.conv(x)))  # type: ignore[no-any-return]


class SeparableBlock(nn.Module):
    """A depthwise 3x3 convolution, then a pointwise one."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = ConvBnRelu(inputs, inputs, 3, stride, groups=inputs)
        self.pointwise = ConvBnRelu(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (b, inputs, h, w) to (b, outputs, h / stride, w / stride)."""
        return self.pointwise(self.depthwise(x))  # type: ignore[no-any-return]


class MobileNetV1(nn.Module):
    """A stem, thirteen separable blocks, average pooling and a linear head."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvBnRelu(3, 32, 3, stride=2)]
        inputs = 32
        for outputs, stride in _BLOCKS:
            layers.append(SeparableBlock(inputs, outputs, stride))
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (b, 3, h, w) to logits (b, classes)."""
        x = self.avgpool(self.features(x))
        return self.classifier(torch.flatten(x, 1))  # type: ignore[no-any-return]


@zoo_model(input_shape=(3, 224, 224), classes=1000)
def mobilenet_v1(classes: int) -> nn.Module:
    """MobileNet v1, width 1: 4.2 million parameters, 0.57 GMAC at 224."""
    return MobileNetV1(classes)
