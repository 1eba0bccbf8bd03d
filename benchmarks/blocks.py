"""The blocks of `examples/` in sizes that people train, for fused_models.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from convolutional import ConvNeXtBlock, Excite, MobileBlock, ResNetBlock
from language import BertBlock, GPT2Block, T5Block
from llama import GemmaBlock, LlamaBlock
from sequences import LSTM, MambaBlock
from unet import UNet
from vision_transformers import DiTBlock, SwinBlock, ViTBlock

__all__ = ["BLOCKS", "Block"]


class Stack(nn.Module):
    """Blocks one after the other, with the same further inputs."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
        """Return what the last block returns."""
        for block in self.blocks:
            x = block(x, *rest)
        return x


@dataclass(frozen=True)
class Block:
    """A model that is timed.

    Args:
        title: what it is, in words.
        make: makes it.
        inputs: the shapes of its inputs, as `--inputs` takes them.
    """

    title: str
    make: Callable[[], nn.Module]
    inputs: str


def _many(count: int, make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: Stack(*(make() for _ in range(count)))


def _resnet() -> nn.Module:
    return Stack(ResNetBlock(64, 256), ResNetBlock(256, 256), ResNetBlock(256, 256))


def _mobilenet() -> nn.Module:
    gate = Excite(160, nn.ReLU, nn.Hardsigmoid)
    return MobileBlock(40, nn.Hardswish, gate)


def _efficientnet() -> nn.Module:
    return MobileBlock(40, nn.SiLU, Excite(160, nn.SiLU, nn.Sigmoid), 0.2)


#: Hidden sizes from 1024, sequences of 2048 where a model has such, and what is left of images of 224 x 224.
BLOCKS = {
    "Llama": Block(
        "4 blocks of width 2048", _many(4, lambda: LlamaBlock(2048, 16, 8)), "4x2048x2048"
    ),
    "Gemma": Block("2 blocks of width 2048", _many(2, lambda: GemmaBlock(2048, 16)), "2x2048x2048"),
    "BERT": Block("4 blocks of width 1024", _many(4, lambda: BertBlock(1024, 16)), "16x512x1024"),
    "GPT-2": Block("2 blocks of width 1024", _many(2, lambda: GPT2Block(1024, 16)), "4x2048x1024"),
    "T5": Block("2 blocks of width 1024", _many(2, lambda: T5Block(1024, 16, 64)), "4x2048x1024"),
    "ViT": Block("4 blocks of width 1024", _many(4, lambda: ViTBlock(1024, 16)), "64x196x1024"),
    "DiT": Block(
        "4 blocks of width 1152", _many(4, lambda: DiTBlock(1152, 16)), "32x256x1152,32x1152"
    ),
    "Swin": Block(
        "2 blocks of 128 channels",
        lambda: Stack(SwinBlock(56, 128, 0, 7), SwinBlock(56, 128, 3, 7)),
        "64x56x56x128",
    ),
    "ConvNeXt": Block(
        "3 blocks of 128 channels", _many(3, lambda: ConvNeXtBlock(128)), "64x128x56x56"
    ),
    "ResNet": Block("3 blocks of 256 channels", _resnet, "64x64x56x56"),
    "MobileNetV3": Block("3 blocks of 40 channels", _many(3, _mobilenet), "128x40x56x56"),
    "EfficientNet": Block("3 blocks of 40 channels", _many(3, _efficientnet), "128x40x56x56"),
    "Mamba": Block(
        "2 blocks of width 1024", _many(2, lambda: MambaBlock(1024, 16, 64)), "2x2048x1024"
    ),
    "LSTM": Block("16 positions of width 1024", lambda: LSTM(1024), "2048x16x1024"),
    "U-Net": Block("3 blocks of 128 channels", lambda: UNet(128, 512), "16x3x64x64,16x512"),
}
