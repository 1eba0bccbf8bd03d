"""What names of a spec may be: they become names in Python, in C++ and in a `torch.nn.Module`."""

from __future__ import annotations

import keyword
import re

from fusegen.formula_functions import FUNCTIONS

__all__ = ["MAX_LENGTH", "package_problem", "problem"]

#: The longest name, in characters.
MAX_LENGTH = 64

_CPP = frozenset(
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
#: Macros and variables of the C, C++ and CUDA headers and of the compilers.
_MACROS = frozenset(
    """
    assert errno linux unix stdin stdout stderr NULL EOF NAN INFINITY HUGE_VAL HUGE_VALF I offsetof
    major minor signbit isnan isinf isfinite threadIdx blockIdx blockDim gridDim warpSize
    """.split()  # noqa: SIM905
)
#: Names that the templates' own code has where a spec's names stand beside them; a test compares them
#: with the templates.
_KERNEL = frozenset(
    """
    BLOCKS HOLDERS ITEMS K S T THREADS V access accesses across activation ahead all_rows allows
    alone apart args at base begin behind beside block block_items blocks body bytes c channel
    channel_run channels cluster_items col column columns count cycle down dtype dynamic each end
    exchange exists fetch first first_column first_of_block flight fold follow from full further gap
    grid group groups held here holds i inner item items j kept kernel known lanes last launch light
    load matrix mine more most n needs next of offset one out own part partial piece place places
    plan policy power r register_each rescale resident row row_at row_count row_goes_on run runs
    sample scalar shared singly soon square stage start step store stored strand strands stream
    stride sums task team thread threads tile tiles tiling to total v visit walk warp whole wide
    widest width workspace y
    """.split()  # noqa: SIM905
)
#: Endings that the templates give to a spec's names.
_ENDINGS = (
    *("_", "_v", "_out", "_sum", "_sums", "_row", "_total", "_whole", "_partial", "_all"),
    *(
        "_raw",
        "_next",
        "_near",
        "_warp",
        "_thread",
        "_fitted",
        "_blocks",
        "_memory",
        "_spread",
        "_terms",
        "_half",
        "_gap",
        "_behind",
        "_from",
        "_following",
        "_place",
        "_staged",
        "_held",
    ),
)
#: Public attributes of `torch.nn.Module` (torch 2.13); a test compares them with torch's.
_MODULE = frozenset(
    """
    T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda
    double dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter
    get_submodule half ipu load_state_dict modules mtia named_buffers named_children named_modules
    named_parameters parameters register_backward_hook register_buffer register_forward_hook
    register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
    register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module
    register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_
    set_extra_state set_submodule share_memory state_dict to to_empty train training type xpu
    zero_grad
    """.split()  # noqa: SIM905
)
#: Functions of formulas that are good names for a step: `batch_norm: {name: norm}`.
_ROW_FUNCTIONS = ("log_softmax", "logsumexp", "norm", "softmax", "std", "var")
_REASONS = {
    **dict.fromkeys(FUNCTIONS, "it is a function of formulas"),
    **dict.fromkeys(_MODULE, "it is an attribute of every torch.nn.Module"),
    **dict.fromkeys(_MACROS, "it is a macro or variable of C++ or CUDA"),
    **dict.fromkeys(_KERNEL, "the kernels' own code uses it"),
    **dict.fromkeys(_CPP, "it is a keyword of C++"),
    **dict.fromkeys(keyword.kwlist, "it is a keyword of Python"),
    **dict.fromkeys(("rows", "cols"), "it is the activation's own extent"),
    **dict.fromkeys(
        ("self", "seed", "batch_weights", "fold_", "device", "dtype"), "fusegen's modules use it"
    ),
    "x": "it is the activation",
    "input": "it is what the chain starts from",
    "pi": "it is a constant of formulas",
    "expr": "it is what an inline formula is called",
}


def problem(name: str, *, in_kernels: bool = True, label: bool = False) -> str | None:
    """Return what is wrong with the name of an argument, operand or step, or None if nothing is.

    Args:
        name: the name.
        in_kernels: whether it reaches the kernels; sizes and shapes are the constructor's alone.
        label: whether it is a step's, which may also be called as a function of rows is, although formulas
            cannot mention it then.
    """
    shown = repr(name if len(name) <= MAX_LENGTH else name[:MAX_LENGTH] + "...")
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
        return f"{shown} is no name: a letter, then letters a-z, digits and _"
    if len(name) > MAX_LENGTH:
        return f"the name {shown} is longer than {MAX_LENGTH} characters"
    if name.startswith("_") or "__" in name:
        return f"{shown} may neither start with _ nor contain __; choose another name"
    if name.startswith(("grad_", "tangent_")):
        return f"{shown} is what fusegen calls a derivative; choose another name"
    if in_kernels and (name.endswith(_ENDINGS) or name.startswith(("kept_", "reduced_", "lanes_"))):
        return f"{shown} may clash with a name in the kernels; choose another one"
    if label and name in _ROW_FUNCTIONS:
        return None
    if name in _REASONS and (in_kernels or name not in _KERNEL):
        return f"{shown} cannot be a name here: {_REASONS[name]}"
    return None


def package_problem(name: str) -> str | None:
    """Return what is wrong with the name of a spec's file, which becomes a package's, or None."""
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or "__" in name or name.endswith("_"):
        return (
            f"{name!r} cannot name a package: it starts with a letter a-z, then come lower-case letters, "
            "digits and single _"
        )
    if len(name) > MAX_LENGTH:
        return f"{name!r} is longer than {MAX_LENGTH} characters; rename the file"
    if keyword.iskeyword(name) or name in _CPP:
        return f"{name!r} is a keyword of Python or C++; rename the file"
    return None
