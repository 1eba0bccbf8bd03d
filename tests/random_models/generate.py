"""Random models: a graph of layers and of values that meet, from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from random_models.layers import IMAGES, ROWS

#: What a model may show of a value. The derivative of the root is infinite at the largest of each row.
SHOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "itself": lambda value: value,
    "root": lambda value: (value.amax(-1, keepdim=True) - value).sqrt(),
    "length": lambda value: value.norm(dim=-1),
    "share": lambda value: value / value.sum(-1, keepdim=True),
}


class RandomModel(nn.Module):
    """Layers one after the other; some add, multiply or gate with an earlier value.

    Attributes:
        shown: what the model returns beside its value: what of which value.
        used: the places of the results that a loss is computed of.
    """

    shown: Sequence[tuple[str, int]] = ()
    used: Sequence[int] = (0,)

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

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
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
        if self.head is not None:
            out = self.head(out.mean((-2, -1)) if self.images else out)
        return out, *(SHOWN[what](values[place]) for what, place in self.shown)


def made(seed: int) -> tuple[RandomModel, Tensor]:
    """Return a model in float64 and its input: the same for the same seed."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    images, size = draw.random() < 0.45, draw.choice([4, 8, 12, 33, 64])
    model = RandomModel(draw, size, images).double()
    if images:
        shape: tuple[int, ...] = (draw.choice([2, 3]), size, *draw.choice([(5, 7), (8, 8), (4, 9)]))
    else:
        shape = (draw.choice([2, 5]), draw.choice([3, 7, 16]), size)
    model.train(draw.random() < 0.7)
    last = len(model.layers)
    model.shown = [
        (draw.choice([*SHOWN]), draw.randint(1, last)) for _ in range(draw.choice([0, 0, 1, 2]))
    ]
    plain = [0, *(n for n, (what, _) in enumerate(model.shown, 1) if what == "itself")]
    model.used = draw.sample(plain, draw.randint(1, len(plain)))
    return model, torch.randn(shape, dtype=torch.float64)
