"""Reads the YAML of a spec: text -> plain data, with the line of every part.

This is a safe subset of YAML. Only true and false are booleans (no, off and yes are words), 1e-5 is a number,
010 is not octal, a key may not be given twice, and there are no tags, anchors or aliases. The result has only
mappings, lists, text, numbers, booleans and null.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fusegen.base.errors import SpecError

__all__ = ["Document", "Place", "read"]

#: The place of a part in the data: the keys and indices that lead to it.
Place = tuple[str | int, ...]

_MAX_DEPTH = 16
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|nan)", re.IGNORECASE)


@dataclass(frozen=True)
class Document:
    """The data of a spec's text, with lines for messages.

    Args:
        data: the data.
        lines: the 1-based line of each part, by its place.
        file: where the text came from, if from a file.
        empty: the places with nothing after their ':' or '-'.
    """

    data: Any
    lines: Mapping[Place, int]
    file: Path | None
    empty: Collection[Place] = ()

    def line(self, place: Place) -> int:
        """Return the line of a part, or of the nearest part around it."""
        while place not in self.lines:
            place = place[:-1]
        return self.lines[place]

    def error(self, place: Place, message: str) -> SpecError:
        """Return the error to raise for a part."""
        return SpecError(message, self.file, self.line(place))


def read(text: str, file: Path | None = None) -> Document:
    """Return the data of one YAML document.

    Args:
        text: the YAML.
        file: where it came from, for messages.

    Raises:
        SpecError: if it is not YAML, is empty, or uses features that specs do not have.
    """
    reader = _Reader(yaml.parse(text, Loader=yaml.SafeLoader), file)
    try:
        return reader.document()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"not YAML: the character {chr(error.character)!r} is not allowed"
        raise SpecError(message, file, line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = min(mark.line, text.rstrip().count("\n")) + 1 if mark else 1
        problem = error.problem or "it cannot be read"
        message = f"not YAML: {problem}" + (f" {error.context}" if error.context else "")
        if "'\\t'" in problem:
            message = "not YAML: a tab; indent and separate with spaces"
        elif "mapping values are not allowed" in problem:
            message = (
                "not YAML: a ':' too many here; check the indentation, or put the text in quotes"
            )
        raise SpecError(message, file, line) from None


class _Reader:
    """Builds the data from the parser's events."""

    def __init__(self, events: Iterator[Any], file: Path | None) -> None:
        self._events = events
        self._file = file
        self._lines: dict[Place, int] = {}
        self._empty: set[Place] = set()

    def document(self) -> Document:
        next(self._events)  # the start of the stream
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            raise SpecError("the file is empty: a spec needs a chain", self._file, 1)
        event = next(self._events)
        self._lines[()] = _line(event)
        data = self._value(event, ())
        next(self._events)  # the end of the document
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._error(event, "a second document; a file holds one spec")
        return Document(data, self._lines, self._file, frozenset(self._empty))

    def _next(self) -> Any:
        return next(self._events)

    def _value(self, event: Any, place: Place) -> Any:
        if isinstance(event, yaml.AliasEvent) or event.anchor:
            raise self._error(
                event, "anchors (&) and aliases (*) are not part of the spec language"
            )
        if event.tag:
            raise self._error(event, f"tags ({event.tag}) are not part of the spec language")
        if len(place) > _MAX_DEPTH:
            raise self._error(event, "nested too deeply")
        if isinstance(event, yaml.ScalarEvent):
            if event.implicit[0] and not event.value:
                self._empty.add(place)
            return self._scalar(event) if event.implicit[0] else event.value
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(place)
        return self._mapping(place)

    def _sequence(self, place: Place) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            here = (*place, len(items))
            self._lines[here] = _line(event)
            items.append(self._value(event, here))
        return items

    def _mapping(self, place: Place) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._error(event, "a key must be a word")
            key: str = event.value
            if key in entries:
                raise self._error(event, f"{key!r} is given twice")
            here = (*place, key)
            self._lines[here] = _line(event)
            entries[key] = self._value(self._next(), here)
        return entries

    def _scalar(self, event: Any) -> Any:
        """Return the value of an unquoted word."""
        text: str = event.value
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text) and len(text) <= 18:
            return int(text)
        if _FLOAT.fullmatch(text):
            number = float(text)
            if not math.isfinite(number):
                raise self._error(event, f"{text[:40]} is too large for a double")
            return number
        if _NOT_FINITE.fullmatch(text):
            raise self._error(event, f"a number must be finite, not {text}")
        return text

    def _error(self, event: Any, message: str) -> SpecError:
        return SpecError(message, self._file, _line(event))


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
