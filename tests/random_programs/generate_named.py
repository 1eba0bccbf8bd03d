"""Specs of named values from a seed: parts, several outputs and products, any dims, masks, calls of ops.

`Generator` follows the dims of one activation; here each value has a name, and the reference says its shape.
"""

from __future__ import annotations

import math
import re
from typing import Any

from random_programs.formula_of_values import FormulaOfValues
from random_programs.named_draft import MOST, SIZES, NamedDraft, Shapes
from random_programs.program import Program
from random_programs.reference import OWN_DIMS

_TRIES = 6
_POINTWISE = ("gelu", "swish", "mish", "tanh", "softplus", "relu", "square", "hardswish", "elu")
_OF_ROWS = ("softmax", "log_softmax", "layer_norm", "rms_norm", "normalize")
_REDUCE = ("sum", "mean", "amax", "amin", "var", "std", "norm", "logsumexp")
#: Formulas of so many parts.
_OF_PARTS = {
    2: ("softplus({0}) * tanh({1})", "swish({1}) * {0}", "clamp({0}, max=1) * ({1} + 1)"),
    3: ("{0} * sigmoid({1}) + {2}", "tanh({2}) * {0} - {1}"),
    4: ("sigmoid({0}) * tanh({2}) - {1} * {3}",),
}
_BESIDE = {1: "x * {0}", 2: "x * (1 + {0}) + {1}", 3: "tanh(x * {2} + {0}) * {1}"}


class NamedGenerator(NamedDraft):
    """Draws one program; see `NamedDraft`."""

    def program(self) -> Program:
        """Return the program.

        Raises:
            CrashError: where a spec on the way to it ended in a traceback.
        """
        rng = self.rng
        self.begin()
        for _ in range(rng.choice((1, 2, 2, 3, 3, 4, 5))):
            for _ in range(_TRIES):
                if self.tried(self._steps) or self.ended:
                    break
            if self.ended:
                break
        while not self.document["chain"] or not self.tried(list):
            self.tried(self._pointwise)
        if rng.random() < 0.6:
            self._return_several()
        return self.made({**self.document, "order": rng.choice((1, 1, 1, 2))})

    def _steps(self) -> list[Any]:
        kinds = {
            self._formula: 5,
            self._pointwise: 2,
            self._of_rows: 5,
            self._reduced: 3,
            self._parts: 5,
            self._beside: 3,
            self._again: 3,
            self._masked: 2,
            self._rope: 3,
            self._product: 2,
            self._loss: 1,
            self._gate: 1,
            self._squeezed: 2,
            self._dropout: 2,
            self._batch_norm: 3,
            self._alone: 2,
            self._largest: 1 if not self.document["chain"] else 0,
        }
        return self.rng.choices([*kinds], [*kinds.values()])[0]()

    def _named(self, word: str, given: dict[str, Any]) -> list[Any]:
        return [{word: {"name": self.fresh("v"), **given}}]

    def dims(self, rank: int) -> Any:
        """Return a dim, or several, neighbours or not."""
        rng = self.rng
        if not self.document["dims"] or rank < 2 or rng.random() < 0.35:
            return -1
        if rng.random() < 0.5:
            return rng.choice((rng.randrange(rank), -1 - rng.randrange(rank)))
        return sorted(rng.sample(range(rank), rng.randrange(1, rank)))

    def _formula(self) -> list[Any]:
        given: dict[str, Any] = {"formula": FormulaOfValues(self).text()}
        alike = [n for n, s in self.values.items() if s == self.here and n != "x"]
        if alike and self.rng.random() < 0.25:
            given["formula"] = re.sub(r"\bx\b", self.rng.choice(alike), given["formula"])
        rows = (*_REDUCE, *_OF_ROWS, "max", "min")
        if self.document["dims"] and any(f"{word}(" in given["formula"] for word in rows):
            given["dim"] = self.dims(len(self.here[0]))
        return self._named("expr", given)

    def _pointwise(self) -> list[Any]:
        word = self.rng.choice(_POINTWISE)
        return self._named(word, {}) if self.rng.random() < 0.6 else [word]

    def _of_rows(self) -> list[Any]:
        word = self.rng.choice(_OF_ROWS)
        given: dict[str, Any] = {"dim": self.dims(len(self.here[0]))}
        if word.endswith("norm"):
            given["eps"] = self.rng.choice((1e-5, 0.01))
            if given["dim"] == -1 and self.rng.random() < 0.5:
                given["weight"] = self.tensor([s[-1:] for s in self.here], "col", of_rows=True)
        return self._named(word, given)

    def _reduced(self) -> list[Any]:
        word, given = self.rng.choice(_REDUCE), {"dim": self.dims(len(self.here[0]))}
        steps = self._named(word, {**given, "keepdim": True})
        if self.rng.random() < 0.5:  # go on in full
            alike = [n for n, s in self.values.items() if n != "x" and len(s[0]) > 1]
            if alike:
                other, name = self.rng.choice(alike), steps[0][word]["name"]
                steps += self._expr(f"{other} * tanh({name})")
        return steps

    def _expr(self, formula: str, **more: Any) -> list[Any]:
        return [{"expr": {"name": self.fresh("w"), "formula": formula, **more}}]

    def _cut(self, shapes: Shapes, dim: int) -> tuple[Any, int]:
        """Return the parts of a dim, equal or of sizes, and how many of them are as wide as the first."""
        rng, sizes = self.rng, [s[dim] for s in shapes]
        equal = [n for n in (2, 3, 4) if all(size % n == 0 for size in sizes)]
        stem = self.fresh("p")
        if equal and rng.random() < 0.55:
            count = rng.choice(equal)
            names = [f"{stem}_{n}" for n in range(count)]
            if sizes[0] == sizes[1] and rng.random() < 0.3:
                return dict.fromkeys(names, sizes[0] // count), count
            return names, count
        first = rng.randrange(1, min(sizes)) if min(sizes) > 1 else 1
        if 2 * first < min(sizes) and rng.random() < 0.6:
            return {f"{stem}_0": first, f"{stem}_1": first, f"{stem}_2": -1}, 2
        return {f"{stem}_0": first, f"{stem}_1": -1}, 1

    def _parts(self) -> list[Any]:
        dim = self._part_dim()
        parts, alike = self._cut(self.here, dim)
        names = list(parts)
        text = "tanh({0}) * {0}" if alike == 1 else self.rng.choice(_OF_PARTS[alike])
        given: dict[str, Any] = {"parts": parts}
        if isinstance(parts, list) and len(parts) == 2 and dim == -1 and self.rng.random() < 0.3:
            given["alternating"] = True
        elif dim != -1 or self.rng.random() < 0.5:
            given["dim"] = dim
        steps = self._expr(text.format(*names), **given)
        if alike < len(names):
            steps += self._expr(f"gelu({names[-1]})")
        return steps

    def _part_dim(self) -> int:
        rank = len(self.here[0])
        some = self.document["dims"] and self.rng.random() < 0.6
        return self.rng.choice((self.rng.randrange(rank), -1)) if some else -1

    def _beside(self) -> list[Any]:
        """Take parts of an operand, or of the product of one."""
        rng, dim = self.rng, self._part_dim()
        rank, count = len(self.here[0]), rng.choice((2, 3))
        names = [f"{self.fresh('q')}_{n}" for n in range(count)]
        shapes = [list(s) for s in self.here]
        place = dim % rank
        for d in range(rank):
            if d != place and rng.random() < 0.4:
                shapes = [[*s[:d], 1, *s[d + 1 :]] for s in shapes]
        parts: Any = names
        if rng.random() < 0.3:
            parts = dict.fromkeys(names, 1)
            shapes = [[*s[:place], count, *s[place + 1 :]] for s in shapes]
        else:
            shapes = [[*s[:place], s[place] * count, *s[place + 1 :]] for s in shapes]
        given = {"parts": parts, "dim": dim if self.document["dims"] else -1}
        if not self.document["dims"]:
            del given["dim"]
        text = _BESIDE[count].format(*names)
        fixed = self.here[0][-1] == self.here[1][-1]
        if fixed and place == rank - 1 and isinstance(parts, list) and rng.random() < 0.4:
            before = next((n for n, s in self.values.items() if s == self.here and n != "x"), None)
            if before is None:
                return []
            start = self.tensor([(*s[:-1], 5) for s in shapes], "full")
            product = self._linear(start, 5, shapes[0][-1])
            text = re.sub(r"\bx\b", before, text)
            return [product, *self._expr(text, **given, of=product["linear"]["name"])]
        kept = [d for d in range(rank) if any(s[d] != 1 for s in shapes)]
        declared = (
            {"dims": sorted({*kept, place})}
            if self.document["dims"] and rng.random() < 0.7
            else "full"
        )
        whole = self.tensor([tuple(s) for s in shapes], declared)
        return self._expr(text, **given, of=whole)

    def _again(self) -> list[Any]:
        names = [n for n, s in self.values.items() if n != "x" and len(s[0]) == len(self.x[0])]
        if not names:
            return []
        name = self.rng.choice(names)
        return self._expr(self.rng.choice(("{0}", "tanh({0})", "{0} * sigmoid({0})")).format(name))

    def _alone(self) -> list[Any]:
        """Go on from an operand alone, perhaps from its product, and from the value before it."""
        last = self.document["chain"][-1:]
        given = next(iter(last[0].values())) if last and isinstance(last[0], dict) else None
        before = given.get("name") if isinstance(given, dict) else None
        if before not in self.values:
            return []
        name = self.operand_like(self.here, float)
        declared = self.document["operands"][name]
        if declared.get("kind") not in (None, "full") or name in self.held:
            return []
        if OWN_DIMS not in name and len(self.inputs[name][0]) < len(self.here[0]):
            return []
        text = self.rng.choice(("swish({0})", "tanh({0}) * {0}", "softplus({0}) + softmax({0})"))
        steps = self._expr(text.format(name))
        width = self.here[0][-1]
        wide = len(self.inputs[name][0]) and self.inputs[name][0][-1] == width
        if wide and width == self.here[1][-1] and self.rng.random() < 0.5:
            steps += [self._linear("", width, width)]
        ((_, made),) = steps[-1].items()
        together = self._expr(f"{before} * tanh({made['name']})")
        together[0]["expr"]["name"] += "b"
        return [*steps, *together]

    def _masked(self) -> list[Any]:
        mask = self.operand_like(self.here, bool)
        return self._named("masked_fill", {"mask": mask, "value": self.rng.choice((0.0, -3.0))})

    def _rope(self) -> list[Any]:
        rng, widths = self.rng, [s[-1] for s in self.here]
        factors = [f for f in (1.0, 1.0, 0.5, 0.25) if all(w * f % 2 == 0 for w in widths)]
        factors = [f for f in factors if all(w % round(2 / f) == 0 for w in widths)]
        if not factors:
            return []
        factor, per_pair = rng.choice(factors), rng.random() < 0.3
        given: dict[str, Any] = {"interleaved": rng.random() < 0.5}
        if factor != 1:
            given["partial_rotary_factor"] = factor
        if per_pair:
            given["per_pair"] = True
        keep = [rng.random() < 0.5 for _ in self.here[0]]
        tables = []
        for _ in range(2):
            shapes = [
                (
                    *(n if k else 1 for n, k in zip(s[:-1], keep, strict=False)),
                    round(s[-1] * factor) // (2 if per_pair else 1),
                )
                for s in self.here
            ]
            tables.append(self.tensor(shapes, {"kind": "full", "gradient": False}))
        if rng.random() < 0.5:
            text = "".join(f", {n}={str(v).lower()}" for n, v in given.items())
            return self._expr(f"rope(x, {tables[0]}, {tables[1]}{text})")
        return self._named("rope", {"cos": tables[0], "sin": tables[1], **given})

    def _linear(self, of: str, wide: int, out: int) -> dict[str, Any]:
        name = self.fresh("m")
        self.held[f"{name}_weight"] = (out, wide)
        given: dict[str, Any] = {"name": name, "in_features": wide, "out_features": out}
        if of:
            given["of"] = of
        if self.rng.random() < 0.3:
            given["bias"] = False
        else:
            self.held[f"{name}_bias"] = (out,)
        return {"linear": given}

    def _product(self) -> list[Any]:
        rng = self.rng
        names = [n for n, s in self.values.items() if s[0][-1:] == s[1][-1:] and len(s[0]) >= 2]
        if not names:
            return []
        of = rng.choice((*names, "x")) if "x" in names else rng.choice(names)
        given = "" if of == "x" else of
        out = rng.choice((*SIZES, 2, 6, 12, self.values[of][0][-1]))
        if math.prod(self.values[of][0][:-1]) * out > MOST:
            return []
        return [self._linear(given, self.values[of][0][-1], out)]

    def _gate(self) -> list[Any]:
        word = self.rng.choice(("glu", "geglu", "swiglu", "reglu"))
        given: dict[str, Any] = {"gate_first": True} if self.rng.random() < 0.5 else {}
        dim = self._part_dim()
        if any(
            shape[dim] % 2 for shape in self.here
        ):  # the reference would cut it in unequal halves
            return []
        return self._named(word, given | ({"dim": dim} if dim != -1 else {}))

    def _squeezed(self) -> list[Any]:
        """Multiply an earlier value by a gate, the product of a mean, which is smaller, and name it again."""
        rng, here = self.rng, self.here
        rank, width = len(here[0]), here[0][-1]
        alike = [n for n, s in self.values.items() if n != "x" and s == here]
        if rank < 2 or not self.document["dims"] or width != here[1][-1] or not alike:
            return []
        dims = sorted(rng.sample(range(rank - 1), rng.randrange(1, rank)))
        gate = {"name": self.fresh("g")}
        steps = [
            *self._named("mean", {"dim": dims, "keepdim": True}),
            self._linear("", width, width),
            {rng.choice(("sigmoid", "gelu")): gate},
            *self._expr(f"x * {rng.choice(alike)}"),
        ]
        again = rng.choice(
            ("", "tanh({0})", "{0} * {0}", "x + {0}", "{0} * softmax({0})", "{0} * {1}")
        )
        if again:
            beside = self.operand_like(here, float)
            steps += [
                {"expr": {"name": self.fresh("z"), "formula": again.format(gate["name"], beside)}}
            ]
        return steps

    def _dropout(self) -> list[Any]:
        word = self.rng.choice(("dropout", "dropout", "alpha_dropout"))
        return [{word: {"name": self.fresh("d"), "p": self.rng.choice((0.1, 0.5, 0.8))}}]

    def _batch_norm(self) -> list[Any]:
        """Return a batch norm, whose Module must know the channels."""
        first, second = self.here
        if not 2 <= len(first) <= 5 or first[1] != second[1]:
            return []
        if len(first) > 2 and not self.document["dims"]:
            return []
        name, momentum = self.fresh("bn"), self.rng.choice((0.1, 0.3))
        for held in ("weight", "bias", "running_mean", "running_var"):
            self.held[f"{name}_{held}"] = (first[1],)
        return [{"batch_norm": {"name": name, "features": first[1], "momentum": momentum}}]

    def _loss(self) -> list[Any]:
        rng, rank = self.rng, len(self.here[0])
        self.ended = rng.random() < 0.7
        if rng.random() < 0.4:
            word = rng.choice(("mse_loss", "l1_loss", "smooth_l1_loss", "kl_div"))
            target = self.operand_like(self.here, float)
            steps = self._named(word, {"target": target, "reduction": "none"})
        else:
            dim = 1 if self.document["dims"] else rank - 1
            if rank > 2 and (not self.document["dims"] or self.multiplied):
                return []
            word = rng.choice(("cross_entropy", "nll_loss"))
            shapes = [(*s[:dim], *s[dim + 1 :]) for s in self.here]
            target = self.tensor(
                shapes, {"kind": "row", "dtype": rng.choice(("int64", "int32"))}, "target"
            )
            classes = tuple(s[dim] for s in self.here)
            self.inputs[target] = (*self.inputs[target][:2], classes)
            steps = self._named(word, {"target": target, "reduction": "none"})
            weight = self.tensor(shapes, "row", "row_p")
            steps += self._named("mul", {"other": weight})
            steps[-1]["mul"]["name"] += "w"
        return [*steps, "sum"] if self.ended and rng.random() < 0.6 else steps

    def _largest(self) -> list[Any]:
        if len(self.here[0]) > 2 and not self.document["dims"]:
            return []
        given = {"dim": self.rng.choice((-1, 1)), "keepdim": self.rng.random() < 0.5}
        steps = self._named(self.rng.choice(("argmax", "argmin")), given)
        (word,) = steps[0]
        self.document["outputs"] = [steps[0][word]["name"], "v_last"]
        return [*steps, {"expr": "input"}, {"swish": {"name": "v_last"}}]

    def _return_several(self) -> None:
        """Return some values beside the last one, those that may be returned."""
        last = self.document["chain"][-1]
        given = next(iter(last.values())) if isinstance(last, dict) else None
        if not isinstance(given, dict) or "name" not in given or "outputs" in self.document:
            return
        names = [n for n in self.values if n not in ("x", "input", given["name"])]
        self.rng.shuffle(names)
        outputs: list[Any] = [given["name"]]
        for name in names[: self.rng.choice((1, 2, 3))]:
            for entry in ({"name": name, "dtype": "float32"}, name):
                if isinstance(entry, dict) and self.rng.random() < 0.6:
                    continue
                wanted = [*outputs, entry]
                self.rng.shuffle(wanted)
                if self.accepted({**self.document, "outputs": wanted}):
                    outputs = wanted
                    break
        if len(outputs) > 1:
            self.document["outputs"] = outputs
