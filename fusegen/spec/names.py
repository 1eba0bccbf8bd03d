"""Which names a spec may use: any identifier of Python.

Names become parameters of `apply` and `Module`, and some become attributes of `Module`.
`fusegen.spec.code_names` decides their names in C++.
"""

from __future__ import annotations

import keyword
import re
import unicodedata

from fusegen.spec.code_names import CPP_KEYWORDS

__all__ = ["MAX_LENGTH", "package_problem", "problem"]

#: The longest name, in characters.
MAX_LENGTH = 64

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
_REASONS = {
    **dict.fromkeys(keyword.kwlist, "it is a keyword of Python"),
    **dict.fromkeys(("training", "seed", "batch_weights"), "it is a keyword argument of apply"),
    "self": "it is what Module's methods call the module",
    "x": "it is the activation",
    "input": "it is what the chain starts from",
}


def problem(name: str, *, attribute: bool = False, argument: bool = False) -> str | None:
    """Return what is wrong with the name of an argument, operand or step, or None.

    Args:
        name: the name.
        attribute: whether it is an attribute of the generated `Module`: a parameter, a submodule or a number.
        argument: whether it is an argument of the constructor.
    """
    shown = repr(name if len(name) <= MAX_LENGTH else name[:MAX_LENGTH] + "...")
    if len(name) > MAX_LENGTH:
        return f"the name {shown} is longer than {MAX_LENGTH} characters"
    if not name.isidentifier():
        return f"{shown} is no name: a letter or _, then letters, digits and _"
    plain = unicodedata.normalize("NFKC", name)
    if plain != name:
        return f"{shown} is {plain!r} to Python: write it so"
    if name.startswith("__"):
        return f"{shown} is changed by Python, as it starts with __: choose another name"
    reason = _REASONS.get(name)
    if reason is None and argument and name in ("device", "dtype"):
        reason = "it is a keyword argument of every constructor of parameters"
    if reason is None and attribute:
        if name in _MODULE:
            reason = "it is an attribute of every torch.nn.Module"
        elif name.startswith("_"):
            reason = "attributes of a torch.nn.Module that start with _ are torch's own"
    if reason is None:
        return None
    return f"{shown} cannot be a name here: {reason}; choose another, such as {_other(name)}"


def _other(name: str) -> str:
    """Return a valid name similar to an invalid one."""
    return f"{name.strip('_') or 'name'}_"


def package_problem(name: str) -> str | None:
    """Return what is wrong with the name of a spec's file, which names the package, or None."""
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or "__" in name or name.endswith("_"):
        return (
            f"{name!r} cannot name a package: it starts with a letter a-z, then come lower-case letters, "
            "digits and single _"
        )
    if len(name) > MAX_LENGTH:
        return f"{name!r} is longer than {MAX_LENGTH} characters; rename the file"
    if keyword.iskeyword(name) or name in CPP_KEYWORDS:
        return f"{name!r} is a keyword of Python or C++; rename the file"
    return None
