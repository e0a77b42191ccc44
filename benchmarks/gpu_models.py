"""BERT-base as a plain module, random weights: what GPU kernels are held to beside ResNet-50."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Layer(nn.Module):
    """Attention and two linear layers, each added to its input and normalised after it."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)
        self.output_norm = nn.LayerNorm(width, eps=1e-12)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.down_norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = (
            each(x).view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)
            for each in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        x = self.output_norm(x + self.output(mixed.reshape(batch, tokens, width)))
        normed: Tensor = self.down_norm(x + self.down(functional.gelu(self.up(x))))
        return normed


class Bert(nn.Module):
    """Tokens in, states out."""

    def __init__(
        self,
        *,
        layers: int = 12,
        width: int = 768,
        inner: int = 3072,
        heads: int = 12,
        words: int = 30_522,
        most_tokens: int = 512,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.places = nn.Embedding(most_tokens, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList([Layer(width, inner, heads) for _ in range(layers)])

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x: Tensor = self.norm(self.words(tokens) + self.places(places))
        for layer in self.layers:
            x = layer(x)
        return x


def bert_base() -> nn.Module:
    """Gives BERT-base, in evaluation mode."""
    torch.manual_seed(0)
    return Bert().eval()
