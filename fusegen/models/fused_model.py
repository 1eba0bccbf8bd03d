"""`fusegen.fuse`: a model with its regions fused ahead of time; a folder that is shipped and loaded."""

from __future__ import annotations

import copy
import json
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn

from fusegen.base.errors import UserError
from fusegen.models.backend import FusegenBackend, report_of_backend
from fusegen.models.call_once import Inputs, call_once, copied
from fusegen.models.chains import fused_chain
from fusegen.models.compiled import compiled
from fusegen.models.fusion_report import Report
from fusegen.models.hook_guards import with_hook_guards
from fusegen.models.module_state import TensorState
from fusegen.toolchain.model_cache import default_folder

__all__ = ["fuse", "load_fused", "report"]

Model = TypeVar("Model", bound=nn.Module)

#: The back end of each fused model or function. A copy of such a model is a plain one.
_BACKENDS: weakref.WeakKeyDictionary[Any, FusegenBackend] = weakref.WeakKeyDictionary()
#: What a folder of packages remembers: the options that decide which packages there are.
_OPTIONS = "options.json"


@overload
def fuse(
    model: Model,
    example_inputs: Inputs,
    *,
    folder: str | Path | None = None,
    order: int | None = None,
    everything: bool = False,
    rest: str = "eager",
    background: bool = False,
) -> Model: ...


@overload
def fuse(
    model: str | Sequence[Any] | Callable[..., Any],
    example_inputs: Inputs | None = None,
    *,
    folder: str | Path | None = None,
    order: int | None = None,
    everything: bool = False,
    rest: str = "eager",
    background: bool = False,
) -> Callable[..., Any]: ...


def fuse(
    model: Any,
    example_inputs: Inputs | None = None,
    *,
    folder: str | Path | None = None,
    order: int | None = None,
    everything: bool = False,
    rest: str = "eager",
    background: bool = False,
) -> Any:
    """Return the model with what can be fused computed by packages; they are built now, or in the background.

    A formula (`fuse("x * tanh(softplus(x))")`) or a chain (`fuse(["gelu", {"softmax": {"dim": -1}}])`) gives
    a function of x: the `apply` of its package. A function of tensors gives that function, fused.

    The result has the same class, parameters, buffers, `state_dict` and hooks. It shares them and all
    submodules with the model, so `train` and `eval` of one set the submodules of both. What is not fused runs
    as before, and `fusegen.report(result)` says why. A copy of the result (`deepcopy`, `pickle`) is a plain
    model: call `fuse` or `load_fused` again.

    Args:
        model: the model, in the mode (`train` or `eval`) that it is fused for first. The other mode is fused
            when it is first called. Or a function, a formula, or the steps of a chain.
        example_inputs: a tensor, positional inputs, or keyword inputs as a mapping. A formula or a chain
            needs none; a tensor then says for which dtype it is built.
        folder: where the packages are kept, to be shipped; by default a cache, `FUSEGEN_MODELS` or
            ~/.cache/fusegen/models.
        order: how many derivatives: 1, or 2 and 3 for double backward. By default 1, and none for calls
            without gradients (`torch.no_grad`), unless packages with a derivative are there.
        everything: fuse what the estimate says is slower, too.
        rest: what runs the other ops: "eager", torch's own kernels, or "inductor".
        background: return at once. The model runs as eager until its packages are built; a folder is whole
            when `fusegen.wait_for_builds` returns.

    Raises:
        UserError: if an option is not valid, or torch captured nothing of the model.
    """
    where = Path(folder) if folder is not None else default_folder()
    backend = FusegenBackend(where, order, everything, rest, background)
    if isinstance(model, str | list | tuple):
        if background:
            raise UserError("a formula or a chain has no eager form to run while it is built")
        given = example_inputs if isinstance(example_inputs, Tensor) else None
        dtypes = [str(given.dtype).removeprefix("torch.")] if given is not None else []
        return fused_chain(model, where, order or 1, dtypes)
    _check(model)
    if example_inputs is None:
        raise UserError("fuse needs example inputs: fusegen.fuse(model, x)")
    if not isinstance(model, nn.Module):
        function = torch.compile(model, backend=with_hook_guards(backend))
        _run(function, None, example_inputs, backend)
        _BACKENDS[function] = backend
        return function
    fused = _with_backend(model, backend)
    _run(fused, fused, example_inputs, backend)
    if not backend.report.graphs:
        raise UserError(
            "torch.compile captured nothing of this model: it leaves out what torch.compiler.disable marks, "
            "functions with a loop around what it cannot capture, as a Sequential with such a module, and "
            "with rest='inductor' functions that call nn.LSTM, nn.GRU or nn.RNN; TORCH_LOGS=graph_breaks in "
            "the environment says what it is"
        )
    if folder is not None:
        where.mkdir(parents=True, exist_ok=True)
        options = {"order": order, "everything": everything, "rest": rest}
        (where / _OPTIONS).write_text(json.dumps(options) + "\n")
    return fused


def _check(model: object) -> None:
    """Refuse what is no model.

    Raises:
        UserError: with what to give instead.
    """
    if isinstance(model, type):
        raise UserError(f"fuse takes a model, not its class: make one, {model.__name__}(...)")
    if isinstance(model, torch.jit.ScriptModule | torch.jit.ScriptFunction):
        raise UserError("fuse takes a model in Python: give it the one that torch.jit was given")
    if not callable(model):
        raise UserError(
            "fuse takes a model, a function, a formula in quotes or a list of steps, not "
            f"{type(model).__name__}"
        )


def load_fused(model: Model, folder: str | Path) -> Model:
    """Return the model with what `fuse` built in a folder; no compiler is needed.

    What the folder does not hold runs as before.

    Args:
        model: a model as it was given to `fuse`.
        folder: the folder that was given to `fuse`.

    Raises:
        UserError: if the folder holds no packages.
    """
    where = Path(folder)
    if not (where / "generated").is_dir() or not (where / _OPTIONS).is_file():
        raise UserError(f"{where} holds no packages; make them with fusegen.fuse(..., folder=...)")
    options = json.loads((where / _OPTIONS).read_text())
    return _with_backend(model, FusegenBackend(where, **options, build=False))


def report(model: Any = None) -> Report:
    """Return what was fused and what was not, with the reason.

    Args:
        model: a model or function that `fuse` or `load_fused` returned; without one, everything that
            `torch.compile(..., backend="fusegen")` compiled in this process.

    Raises:
        UserError: if the model was not made by `fuse` or `load_fused`.
    """
    if model is None:
        return report_of_backend()
    backend = _BACKENDS.get(model) if callable(model) else None
    if backend is None:
        raise UserError(
            "this was not made of a model or function by fusegen.fuse or fusegen.load_fused; of "
            'torch.compile(..., backend="fusegen") call fusegen.report() after the model has run'
        )
    return backend.report


def _run(
    function: Callable[..., Any], model: nn.Module | None, inputs: Inputs, backend: FusegenBackend
) -> None:
    """Call a function once, so that its graphs are fused; what the call changes is put back."""
    backend.changed = TensorState()
    try:
        call_once(function, model, copied(inputs), backend.changed)
    finally:
        backend.changed = None


def _with_backend(model: Model, backend: FusegenBackend) -> Model:
    """Return a model that shares all with another, and is compiled."""
    fused = copy.copy(model)
    fused.__dict__ = dict(model.__dict__)
    guarded = with_hook_guards(backend)
    fused._compiled_call_impl = compiled(fused, guarded, with_recurrent=backend.rest == "eager")
    _BACKENDS[fused] = backend
    return fused
