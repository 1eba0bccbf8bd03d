"""Random models: a graph of layers and of values that meet, from a seed."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from random_models.layers import IMAGES, ROWS


class RandomModel(nn.Module):
    """Layers one after the other; some add, multiply or gate with an earlier value."""

    def __init__(self, draw: random.Random, size: int, images: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.joined: list[tuple[str, int]] = []
        for number in range(draw.randrange(3, 8)):
            self.layers.append(draw.choice(IMAGES if images else ROWS)(draw, size))
            how = draw.choice(["", "", "add", "add", "mul", "gate", "scaled"])
            self.joined.append((how, draw.randrange(number + 1)))
        self.gain = nn.Parameter(torch.rand(1) + 0.5)
        self.head = nn.Linear(size, 3) if draw.random() < 0.5 else None
        self.images = images

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for layer, (how, place) in zip(self.layers, self.joined, strict=True):
            new, old = layer(values[-1]), values[place]
            if how == "add":
                new = new + old
            elif how == "mul":
                new = new * old
            elif how == "gate":
                new = new * torch.sigmoid(old) + old
            elif how == "scaled":
                new = old + self.gain * new
            values.append(new)
        out = values[-1]
        if self.head is None:
            return out
        return self.head(out.mean((-2, -1)) if self.images else out)


def made(seed: int) -> tuple[nn.Module, Tensor]:
    """Return a model in float64 and its input: the same for the same seed."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    images, size = draw.random() < 0.45, draw.choice([4, 8, 12, 33, 64])
    model = RandomModel(draw, size, images).double()
    if images:
        shape: tuple[int, ...] = (draw.choice([2, 3]), size, *draw.choice([(5, 7), (8, 8), (4, 9)]))
    else:
        shape = (draw.choice([2, 5]), draw.choice([3, 7, 16]), size)
    return model.train(draw.random() < 0.7), torch.randn(shape, dtype=torch.float64)
