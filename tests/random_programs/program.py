"""A random program: a spec, and what it is called with."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Program:
    """A spec and the sizes that it is called with.

    Args:
        name: the package's name.
        document: the spec, as YAML data.
        shape: the activation's.
        other: another shape of it, of which no size is that of a vector.
        numbers: the values of its arguments.
        positive: the operands that hold positive numbers alone.
        seed: of the numbers in its tensors.
        tensors: the shapes of its inputs beside x, for `shape` and for `other`; None if they follow from the
            chain's layout. With them it is called by its Module alone, which may have several chains.
    """

    name: str
    document: Mapping[str, Any]
    shape: tuple[int, ...]
    other: tuple[int, ...]
    numbers: Mapping[str, float] = field(default_factory=dict)
    positive: tuple[str, ...] = ()
    seed: int = 0
    tensors: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        """The spec's text."""
        return spec_text(self.document)

    def save(self, path: Path) -> None:
        """Write it to a file: the spec, and before it what it is called with, as a comment."""
        called = {n: _plain(getattr(self, n)) for n in _CALLED}
        if self.tensors is not None:
            called["tensors"] = dict(self.tensors)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {json.dumps(called)}\n{self.text}")

    @classmethod
    def read(cls, path: Path) -> Program:
        """Return the program that `save` wrote to a file."""
        text = path.read_text()
        called = json.loads(text.splitlines()[0].removeprefix("# "))
        fields = {n: tuple(v) if isinstance(v, list) else v for n, v in called.items()}
        return cls(name=path.stem, document=yaml.safe_load(text), **fields)


#: What `Program.save` writes beside the spec.
_CALLED = ("shape", "other", "numbers", "positive", "seed")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def spec_text(document: Mapping[str, Any]) -> str:
    """Return a spec as YAML."""
    plain = copy.deepcopy(dict(document))  # no object twice: an alias is an error
    return yaml.dump(plain, Dumper=_Plain, sort_keys=False, default_flow_style=None, width=200)


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True
