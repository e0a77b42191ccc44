"""VGG with batch normalisation, with torchvision's parameter names.

Source: Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition,
2015, table 1, column D.
Differs: batch normalisation after every convolution, and average pooling to 7x7 before the head, so
that other input sizes work.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autosparse.models.registry import zoo_model

# outputs of the convolutions of each stage; a 2x2 max-pooling ends every stage
_VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def _features(stages: tuple[tuple[int, ...], ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = 3
    for stage in stages:
        for outputs in stage:
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=1),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
            inputs = outputs
        layers.append(nn.MaxPool2d(2, stride=2))
    return nn.Sequential(*layers)


class Vgg(nn.Module):
    """Stages of 3x3 convolutions, then three linear layers."""

    def __init__(self, stages: tuple[tuple[int, ...], ...], classes: int) -> None:
        super().__init__()
        self.features = _features(stages)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (b, 3, h, w), h and w at least 32, to logits (b, classes)."""
        x = self.avgpool(self.features(x))
        return self.classifier(torch.flatten(x, 1))  # type: ignore[no-any-return]


@zoo_model(input_shape=(3, 224, 224), classes=1000)
def vgg16_bn(classes: int) -> nn.Module:
    """VGG-16 with batch normalisation: 138 million parameters, 15.5 GMAC at 224."""
    return Vgg(_VGG16, classes)
