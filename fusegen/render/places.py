"""Where a `Module` keeps a submodule: as an attribute, or in containers, as a dotted name says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fusegen.spec.model import Step

__all__ = ["containers", "keeping", "kept_at"]


def kept_at(step: Step) -> str:
    """Return the text of a step's submodule: `self.norm`, `self.block.norm`, `getattr(self.mlp, "0")`."""
    return _text(step.place)


def keeping(step: Step, made: str) -> str:
    """Return the line of a constructor that keeps a step's submodule."""
    return _keeping(step.place, made)


def containers(step: Step, before: Iterable[Step]) -> Iterator[str]:
    """Yield the lines that make the containers of a step's submodule, if no step before it has them."""
    made = {path for other in before for path in _around(other.place)}
    for path in _around(step.place):
        if path not in made:
            yield _keeping(path, "nn.Module()")


def _around(place: str) -> list[str]:
    """Return the paths of the containers around a place, the outer ones first."""
    parts = place.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _text(place: str) -> str:
    text = "self"
    for part in place.split("."):
        text = f'getattr({text}, "{part}")' if part.isdigit() else f"{text}.{part}"
    return text


def _keeping(place: str, made: str) -> str:
    outer, _, last = place.rpartition(".")
    if last.isdigit():
        return f'{_text(outer)}.add_module("{last}", {made})'
    return f"{_text(place)} = {made}"
