"""Where a `Module` keeps a submodule or parameter: as an attribute, or in containers if its name has dots."""

from __future__ import annotations

from collections.abc import Iterator

from fusegen.spec.model import Step

__all__ = ["containers", "keeping", "kept_at", "kept_sizes", "text_of"]


def kept_at(step: Step) -> str:
    """Return the text of a step's submodule: `self.norm`, `self.block.norm`, `getattr(self.mlp, "0")`."""
    return text_of(step.place)


def kept_sizes(label: str) -> str:
    """Return the attribute of `Module` with the sizes of the parts that a step takes."""
    return f"_sizes_of_{label}"


def text_of(place: str) -> str:
    """Return the text of a submodule or a parameter at a place."""
    text = "self"
    for part in place.split("."):
        text = f'getattr({text}, "{part}")' if part.isdigit() else f"{text}.{part}"
    return text


def keeping(place: str, made: str, add: str = "add_module") -> str:
    """Return the line of a constructor that keeps a submodule, or, with `register_parameter`, a parameter."""
    outer, _, last = place.rpartition(".")
    if last.isdigit():
        return f'{text_of(outer)}.{add}("{last}", {made})'
    return f"{text_of(place)} = {made}"


def containers(place: str, made: set[str]) -> Iterator[str]:
    """Yield the lines that make the containers around a place, and add them to those that are made."""
    parts = place.split(".")
    for count in range(1, len(parts)):
        path = ".".join(parts[:count])
        if path not in made:
            made.add(path)
            yield keeping(path, "nn.Module()")
