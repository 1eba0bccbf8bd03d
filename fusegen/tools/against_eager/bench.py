"""`fusegen bench model.py:Class`: times and memory of a model in eager, torch.compile and fused."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from fusegen.base.errors import UserError
from fusegen.models import FusegenBackend
from fusegen.models.call_once import copied
from fusegen.tools.against_eager.original import Original, one_line, through
from fusegen.tools.bench import timing

__all__ = ["PASSES", "Timed", "bench", "compile_all", "prepared"]


@dataclass
class Timed:
    """One pass of a model.

    Args:
        dtype: the dtype.
        name: which pass.
        ms: the median of each subject, in milliseconds.
        peak: the most bytes that each subject's pass allocates beside what is there before; on CUDA alone.
        wall: the milliseconds of a pass when many follow one another, as in training: the longer of what the
            host and the GPU need; on CUDA alone.
    """

    dtype: str
    name: str
    ms: dict[str, float]
    peak: dict[str, int] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)


@dataclass
class _Subject:
    """A copy of the model, how it is called, and what trains it."""

    model: nn.Module
    call: Callable[..., Any]
    optimizer: torch.optim.Optimizer | None

    def forward(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run a forward pass without gradients."""
        with torch.no_grad():
            return self.call(*args, **kwargs)

    def backward(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Run a forward and a backward pass, into no gradients of a pass before."""
        self.model.zero_grad(set_to_none=True)
        for leaf in _pytree.tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                leaf.grad = None
        outs = [t for t in _pytree.tree_leaves(self.call(*args, **kwargs)) if isinstance(t, Tensor)]
        live = [o for o in outs if o.requires_grad]
        torch.autograd.backward(live, [o.detach() for o in live])

    def step(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Run a training step. The learning rate is 0, so that all steps compute the same."""
        assert self.optimizer is not None
        self.backward(args, kwargs)
        self.optimizer.step()


#: Each pass: its name, what runs it, and whether the model trains.
PASSES: dict[str, tuple[Callable[..., Any], bool]] = {
    "forward": (_Subject.forward, False),
    "forward + backward": (_Subject.backward, True),
    "training step (AdamW)": (_Subject.step, True),
}


def bench(
    original: Original,
    backends: Mapping[str, FusegenBackend | str | None],
    dtype: torch.dtype,
    say: Callable[[str], None],
    rounds: int | None = None,
    deadline: timing.Deadline | None = None,
) -> list[Timed]:
    """Time each pass: all subjects in turns, in one process; medians.

    Args:
        original: the model.
        backends: the back end of each subject by its name; None is eager.
        dtype: the dtype.
        say: told what happens.
        rounds: how often each subject is timed.
        deadline: begins nothing after it but the first pass of eager and of fusegen's own backends; it notes
            what it leaves out.

    Raises:
        UserError: if the model itself fails on the inputs.
    """
    clock, until = timing.clock(original.device), deadline or timing.Deadline()
    given = original.given(dtype)
    subjects = {name: _subject(original, backend, dtype) for name, backend in backends.items()}
    found: list[Timed] = []
    for name, (run, train) in PASSES.items():
        if run is _Subject.step and not any(p.requires_grad for p in original.model.parameters()):
            continue
        named = str(dtype).removeprefix("torch.")
        shown = f"{named}: {name}"
        if found and until.leaves(shown):
            continue
        calls = {}
        for label in sorted(subjects, key=lambda label: _may_wait(backends[label])):
            subject = subjects[label]
            if _may_wait(backends[label]) and until.leaves(f"{shown} of {label}"):
                continue
            subject.model.train(train)
            prepare = functools.partial(_prepared, run, subject, given, train)
            try:
                prepare()()
            except Exception as error:  # whatever the model's own code raises, or torch.compile
                if backends[label] is None:
                    raise UserError(f"{original.title} fails: {one_line(error)}") from error
                say(f"{label} fails, its times are left out: {one_line(error)}")
                del subjects[label]
                continue
            calls[label] = prepare
        say(shown)
        calls = {label: calls[label] for label in backends if label in calls}
        ms = timing.medians(calls, clock, rounds, until, shown)
        timed = Timed(named, name, ms)
        if original.device == "cuda":
            timed.peak = {label: _peak(call) for label, call in calls.items()}
            timed.wall = timing.walls(calls)
        found.append(timed)
    return found


def compile_all(
    original: Original,
    backends: Mapping[str, FusegenBackend | str | None],
    dtype: torch.dtype,
    say: Callable[[str], None],
) -> None:
    """Compile what `bench` would, without timing, so that it finds it in the caches."""
    for name in ("forward", "forward + backward"):
        for label, prepare in prepared(original, backends, dtype, name).items():
            try:
                prepare()()
            except Exception as error:  # as in `bench`
                say(f"{label} fails: {one_line(error)}")


def prepared(
    original: Original,
    backends: Mapping[str, FusegenBackend | str | None],
    dtype: torch.dtype,
    name: str,
) -> dict[str, timing.Prepare]:
    """Return what prepares a call of a pass, one of `PASSES`, for each back end's own copy of the model."""
    (run, train), given = PASSES[name], original.given(dtype)
    found: dict[str, timing.Prepare] = {}
    for label, backend in backends.items():
        subject = _subject(original, backend, dtype)
        subject.model.train(train)
        found[label] = functools.partial(_prepared, run, subject, given, train)
    return found


def _may_wait(backend: FusegenBackend | str | None) -> bool:
    """Whether a subject is timed only if there is time: it is neither eager nor fused by fusegen alone."""
    return not (
        backend is None or (isinstance(backend, FusegenBackend) and backend.rest == "eager")
    )


def _subject(
    original: Original, backend: FusegenBackend | str | None, dtype: torch.dtype
) -> _Subject:
    model = original.copy(dtype, train=True)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0) if trained else None
    return _Subject(model, model if backend is None else through(model, backend), optimizer)


def _prepared(
    run: Callable[..., Any], subject: _Subject, given: Any, train: bool
) -> Callable[[], object]:
    """Return a call on inputs of its own, and let go of the gradients of the call before."""
    subject.model.zero_grad(set_to_none=True)
    args, kwargs = copied((given.args, given.kwargs))
    for leaf in _pytree.tree_leaves((args, kwargs)):
        if isinstance(leaf, Tensor):
            leaf.requires_grad_(train and leaf.is_floating_point())
    return functools.partial(run, subject, args, kwargs)


def _peak(prepare: timing.Prepare) -> int:
    """Return the most bytes that a call allocates beside what is there before."""
    call = prepare()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - before)
