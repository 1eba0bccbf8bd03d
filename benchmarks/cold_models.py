"""Models of a few blocks that compute a loss, whose first training step `cold_start.py` measures."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from shared.model_zoo import Decoder, Gpt, Residual, RmsNorm

WIDTH, HEADS, BLOCKS, CHANNELS = 256, 8, 4, 64
WORDS, CLASSES = 1000, 100


class Language(nn.Module):
    """Tokens, blocks, a norm, and the loss of each next token."""

    def __init__(self, blocks: list[nn.Module], norm: nn.Module) -> None:
        super().__init__()
        self.tokens, self.blocks = nn.Embedding(WORDS, WIDTH), nn.Sequential(*blocks)
        self.norm, self.head = norm, nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the loss."""
        logits = self.head(self.norm(self.blocks(self.tokens(tokens[:, :-1]))))
        return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


class VitBlock(nn.Module):
    """A block of a ViT."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's value."""
        batch, length, _ = x.shape
        qkv = self.qkv(self.before(x)).reshape(batch, length, 3, HEADS, -1)
        mixed = functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.down(self.act(self.up(self.after(x))))


class Vit(nn.Module):
    """Patches, a token of the class, positions, blocks, and the loss of the class."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.places = nn.Parameter(torch.randn(1, 65, WIDTH) / 50)
        self.blocks = nn.Sequential(*(VitBlock() for _ in range(BLOCKS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor, classes: Tensor) -> Tensor:
        """Return the loss."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(len(x), -1, -1), x), 1) + self.places
        return functional.cross_entropy(self.head(self.norm(self.blocks(x))[:, 0]), classes)


class Resnet(nn.Module):
    """A stem, blocks, pooling, and the loss of the class."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, CHANNELS, 7, 2, 3, bias=False), nn.BatchNorm2d(CHANNELS)
        self.blocks = nn.Sequential(*(Residual(CHANNELS) for _ in range(BLOCKS)))
        self.head = nn.Linear(CHANNELS, CLASSES)

    def forward(self, images: Tensor, classes: Tensor) -> Tensor:
        """Return the loss."""
        x = functional.max_pool2d(functional.relu(self.norm(self.stem(images))), 3, 2, 1)
        return functional.cross_entropy(self.head(self.blocks(x).mean((2, 3))), classes)


class Tiny(nn.Module):
    """One region, after which what all builds share is there."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Return a loss."""
        return (self.norm(torch.tanh(self.linear(x)) + x) ** 2).mean()


def model_of(name: str) -> tuple[nn.Module, list[Tensor]]:
    """Return a model with its inputs."""
    torch.manual_seed(0)
    if name == "tiny":
        return Tiny(), [torch.randn(1024, WIDTH)]
    if name == "llama":
        blocks, norm = [Decoder(WIDTH, HEADS) for _ in range(BLOCKS)], RmsNorm(WIDTH)
        return Language(blocks, norm), [torch.randint(WORDS, (4, 129))]
    if name == "gpt":
        blocks, norm = [Gpt(WIDTH, HEADS) for _ in range(BLOCKS)], nn.LayerNorm(WIDTH)
        return Language(blocks, norm), [torch.randint(WORDS, (4, 129))]
    images, classes = torch.randn(4, 3, 64, 64), torch.randint(CLASSES, (4,))
    return (Vit() if name == "vit" else Resnet()), [images, classes]
