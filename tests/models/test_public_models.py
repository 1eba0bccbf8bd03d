"""Models of transformers and timm, small and from random weights: values and gradients against eager.

No package is compiled: torch computes each spec. Runs where both libraries are installed (`pip install
'.[models]'`); they are no dependency, so CI leaves it out.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree

from fusegen.models import FusegenBackend

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
timm = pytest.importorskip("timm", reason="timm is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("specs_by_torch")]

#: In timm, the size of a model's image, and what makes it small.
TIMM: dict[str, tuple[int, dict[str, Any]]] = {
    "resnet18": (64, {}),
    "regnety_002": (64, {}),
    "mobilenetv3_small_050": (64, {}),
    "convnextv2_atto": (64, {}),
    "poolformer_s12": (64, {}),
    "swin_tiny_patch4_window7_224": (
        56,
        {"img_size": 56, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4)},
    ),
    "davit_tiny": (64, {"embed_dims": (16, 32), "depths": (1, 1), "num_heads": (2, 4)}),
    "edgenext_xx_small": (64, {}),
    "cait_xxs24_224": (64, {"img_size": 64, "depth": 2}),
}
LANGUAGE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
}
#: In transformers, what differs from LANGUAGE.
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "Llama": {"num_key_value_heads": 2},
    "Gemma2": {"num_key_value_heads": 2, "head_dim": 8, "query_pre_attn_scalar": 8},
    "Qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "Phi": {"resid_pdrop": 0.0, "embd_pdrop": 0.0},
    "Bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "GPT2": {
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    },
    "T5": {"d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 4, "d_kv": 8},
}
HEADS = {"Bert": "ForMaskedLM", "GPT2": "LMHeadModel", "T5": "ForConditionalGeneration"}


def outcome(run: Callable[..., Any], model: nn.Module, inputs: dict[str, Tensor]) -> list[Tensor]:
    out = run(**inputs)
    found = [out.loss, out.logits] if hasattr(out, "loss") else [out]
    tensors = [t for t in _pytree.tree_leaves(found) if isinstance(t, Tensor)]
    torch.autograd.backward(tensors, [torch.cos(t.detach()) for t in tensors])
    return [
        *(t.detach() for t in tensors),
        *(p.grad for p in model.parameters() if p.grad is not None),
    ]


def held_against_eager(model: nn.Module, inputs: dict[str, Tensor], share: float) -> None:
    """Compare a model with itself fused; at least a share of what ops can compute must be fused."""
    exact = copy.deepcopy(model).double()
    wide = {k: t.double() if t.is_floating_point() else t for k, t in inputs.items()}
    truth = outcome(exact, exact, wide)
    plain, fused = copy.deepcopy(model), copy.deepcopy(model)
    eager = outcome(plain, plain, inputs)
    used = FusegenBackend(everything=True)
    found = outcome(torch.compile(fused, backend=used), fused, inputs)
    # A gradient that is zero but for rounding, as of a bias before a batch norm, says nothing by itself.
    scale = max(float(t.abs().max()) for t in truth[2:])
    for got, other, true in zip(found, eager, truth, strict=True):
        error, usual = (float((t - true).abs().max()) for t in (got, other))
        assert error <= 4 * usual + 1e-5 * max(scale, float(true.abs().max()))
    report = used.report
    assert not [region.reason for region in report.regions if region.reason]
    nodes = sum(len(region.ops) for region in report.fused)
    alone = sum(n for (_, why), n in report.left.items() if why.startswith("nothing beside"))
    assert nodes >= share * (nodes + alone)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name: str) -> None:
    torch.manual_seed(0)
    given = TRANSFORMERS[name]
    basis = {"vocab_size": 100} if name in ("GPT2", "T5") else LANGUAGE
    special = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1}
    if name == "T5":
        special["decoder_start_token_id"] = 0
        given = {**given, "dropout_rate": 0.0}
    config = getattr(transformers, f"{name}Config")(
        **basis, **given, **special, attn_implementation="eager", use_cache=False
    )
    model = getattr(transformers, name + HEADS.get(name, "ForCausalLM"))(config).train()
    tokens = torch.randint(2, 100, (2, 12))
    held_against_eager(model, {"input_ids": tokens, "labels": tokens.roll(1, 1)}, 0.6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str, training: bool) -> None:
    torch.manual_seed(0)
    size, small = TIMM[name]
    model = timm.create_model(name, num_classes=10, drop_path_rate=0.0, **small).train(training)
    held_against_eager(model, {"x": torch.randn(2, 3, size, size)}, 0.4)
