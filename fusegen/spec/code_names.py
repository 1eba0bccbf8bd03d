"""Names of a spec -> names in the generated C++, with another name if the spec's would clash there.

Users name arguments, operands and steps as they like. A kernel also has names of C++, of headers, and of the
templates. This module alone decides the C++ names, and keeps every name that does not clash. In Python
(`apply`, `Module`, messages) a spec's names are always the user's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from fusegen.base import paths
from fusegen.spec.model import EXPR, OPERATORS, Step

__all__ = ["CPP_KEYWORDS", "code_names"]

CPP_KEYWORDS = frozenset(
    """
    alignas alignof and and_eq asm atomic_cancel atomic_commit atomic_noexcept auto bitand bitor
    bool break case catch char char16_t char32_t char8_t class co_await co_return co_yield compl
    concept const const_cast consteval constexpr constinit continue decltype default delete do
    double dynamic_cast else enum explicit export extern false float for friend goto if inline int
    long mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected
    public reflexpr register reinterpret_cast requires restrict return short signed sizeof static
    static_assert static_cast struct switch synchronized template this thread_local throw true try
    typedef typeid typename typeof union unsigned using virtual void volatile wchar_t while xor
    xor_eq
    """.split()  # noqa: SIM905
)
#: Macros, and variables of CUDA, that begin with a small letter; a test compares them with the compilers'.
_MACROS = frozenset(
    """
    alloca assert assert_perror errno fpclassify half isascii isfinite isgreater isinf isless isnan isnormal
    issubnormal isunordered linux major makedev math_errhandling minor offsetof sched_priority signbit stderr
    stdin stdout strdupa strndupa toascii unix threadIdx blockIdx blockDim gridDim warpSize
    """.split()  # noqa: SIM905
)
#: Patterns of other macros: FUSEGEN_FN, M_PIf, N, be16toh, isalpha_l.
_MACRO_FORMS = re.compile(
    r"[A-Z][A-Z0-9]*_\w*|[^a-z]+|cuda[A-Z]\w*|pthread_\w*|"
    r"(be|le)\d+toh|hto[bl]e\d+|is[a-z]+_l|toascii_l"
)
#: Words with a meaning in the schemas of torch's dispatcher.
_SCHEMA = frozenset(
    ("Tensor", "Scalar", "Generator", "Device", "Layout", "Stream", "str", "NoneType")
)
#: The chain's result; prefixes and suffixes that the lowering adds to names, as the templates do.
_LOWERING = ("y", "reduced_\0", "grad_\0", "tangent_\0", "\0_row", "\0_blocks", "\0_fitted")
#: Prefixes of operators and of their kernels' structs.
_OPERATORS = ("fusegen", "user_", *(name.replace("_", "") for name in OPERATORS))
_OWN_NAME = "user_"


@dataclass(frozen=True)
class _Taken:
    """Names that are taken in generated C++.

    Args:
        words: whole names.
        before: prefixes that the templates add to names.
        after: suffixes that they add.
        numbered: prefixes that the templates add to numbers.
    """

    words: frozenset[str]
    before: tuple[str, ...]
    suffixes: tuple[str, ...]
    numbered: frozenset[str]

    def has(self, name: str) -> bool:
        """Return whether a name may clash with one in generated C++."""
        flat = name.lower().replace("_", "")
        return (
            name in self.words
            or name.rstrip("0123456789") in self.numbered
            or name.startswith((*self.before, "_"))
            or name.endswith(self.suffixes)
            or _PARTS.search(name) is not None
            or "__" in name
            or _MACRO_FORMS.fullmatch(name) is not None
            or not name.isascii()
            or flat.startswith(_OPERATORS)
            or name.startswith(_OWN_NAME)
        )


#: The endings of what packages call parts of a tensor (`program.ending`), and the gaps between its rows.
_PARTS = re.compile(r"_(half|gap|part\d*)$")


@cache
def _taken() -> _Taken:
    """Return the names in the templates' code: every word outside comments."""
    found: set[str] = set(_LOWERING)
    for path in sorted(paths.templates().rglob("*")):
        if path.suffix in (".h", ".cuh"):
            found |= _words("\n".join(re.findall(r"#\s*define(?:.|\\\n)*", path.read_text())))
        elif path.suffix == ".j2" and not path.name.endswith((".py.j2", ".md.j2", ".html.j2")):
            found |= _words(path.read_text())
    return _Taken(
        words=frozenset({w for w in found if "\0" not in w} | CPP_KEYWORDS | _MACROS | _SCHEMA),
        before=tuple(sorted({w.rstrip("\0") for w in found if w.endswith("_\0")})),
        suffixes=tuple(sorted({w.lstrip("\0") for w in found if w.startswith("\0_")})),
        numbered=frozenset(w.rstrip("\0") for w in found if w.endswith("\0")),
    )


def _words(text: str) -> set[str]:
    """Return the words of a template's code, with a NUL in place of a template expression inside a word."""
    text = re.sub(r"(?s)\{#.*?#\}|//[^\n]*", " ", text)
    # Of the template engine's expressions, only the literal text.
    text = re.sub(r"(?s)\{%(.*?)%\}", lambda m: f" {_literals(m[1])} ", text)
    text = re.sub(r"(?s)\{\{(.*?)\}\}", lambda m: f"\0 {_literals(m[1])} \0", text)
    return set(re.findall(r"\0[A-Za-z_]\w*|[A-Za-z_]\w*\0?", text))


def _literals(expression: str) -> str:
    """Return the texts in an expression; one that begins or ends in _ is glued to something."""
    found = re.findall('"([^"]*)"', expression)
    return " ".join(re.sub(r"^(?=_)", "\0", re.sub(r"(?<=_)$", "\0", text)) for text in found)


def code_names(arguments: Iterable[str], steps: Sequence[Step]) -> dict[str, str]:
    """Return the name in generated C++ of each name of a spec.

    Args:
        arguments: the names of its arguments and operands.
        steps: its steps; one with its op's name keeps that name.
    """
    own = [
        s.label
        for s in steps
        if not re.fullmatch(rf"{s.op.name if s.op else EXPR}(_\d+)?", s.label)
    ]
    labels = _called(own, ())
    made = [
        f"{labels.get(step.label, step.label)}_{part}"
        for step in steps
        for part in (*step.state.values(), *(step.op.tracked.values() if step.op else ()))
    ]
    return labels | _called(arguments, {*labels.values(), *made})


def _called(names: Iterable[str], others: Collection[str]) -> dict[str, str]:
    """Return what names are called where others are taken."""
    kept = list(dict.fromkeys(names))
    taken = _taken()
    found = {n: n for n in kept if not taken.has(n) and n not in others}
    used = {*kept, *others}
    for name in kept:
        if name in found:
            continue
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        plain = re.sub("_+", "_", plain).strip("_") or "name"
        base = candidate = f"{_OWN_NAME}{plain}"
        base += "_" if _PARTS.search(base) else ""  # a part's number would be one of its own
        count = 1
        while candidate in used or candidate.endswith(taken.suffixes) or _PARTS.search(candidate):
            count += 1
            candidate = f"{base}{count}"
        used.add(candidate)
        found[name] = candidate
    return found
