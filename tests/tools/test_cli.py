"""The command line: what it prints, and its exit codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from shared.command import fusegen, fusegen_here

from fusegen import __version__, load
from fusegen.base.dtypes import dtype_named
from fusegen.ops import registry
from fusegen.tools.bench.cells import one_of


def test_version() -> None:
    assert fusegen("--version").stdout.strip() == f"fusegen {__version__}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chain:\n  - swich\n", r"wrong.yaml:2: .*swish"),
        ("chain: [\n", r"wrong.yaml:"),
        ("chain:\n  - expr: 'x +'\n", r"wrong.yaml:2"),
        ("chain: []\n", r"wrong.yaml:"),
    ],
)
def test_a_users_mistake_is_one_message_and_exit_code_2(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    done = fusegen_here("build", "wrong.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert re.search(message, done.stderr)
    assert not (tmp_path / "generated" / "wrong").exists()


def test_a_missing_compiler_is_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "fine.yaml").write_text("chain:\n  - swish\n")
    done = fusegen_here("build", "fine.yaml", cwd=tmp_path, CXX="no-such-compiler")
    assert done.returncode == 2
    assert "install" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_refused_source_is_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "fine.yaml").write_text("chain:\n  - swish\n")
    done = fusegen_here("build", "fine.yaml", cwd=tmp_path, CXX="false")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("native")
def test_check_option_tells_what_is_stale(tmp_path: Path) -> None:
    spec = tmp_path / "stale.yaml"
    spec.write_text("chain:\n  - swish\n")
    assert (
        fusegen("build", "stale.yaml", "--backend", "cpu", "--verbose", cwd=tmp_path).returncode
        == 0
    )
    assert fusegen_here("build", "stale.yaml", "--check", cwd=tmp_path).returncode == 0
    spec.write_text("chain:\n  - tanh\n")
    done = fusegen_here("build", "stale.yaml", "--check", cwd=tmp_path)
    assert done.returncode == 1
    assert "-" in done.stdout
    assert "Math::tanh" in done.stdout
    removed = fusegen_here("clean", cwd=tmp_path)
    assert "_cpu.so" in removed.stdout
    assert not list(tmp_path.glob("generated/*/_cpu.so"))


def test_ops_lists_every_op() -> None:
    printed = fusegen_here("ops").stdout
    assert all(name in printed for name in registry())


def test_show_prints_the_programs() -> None:
    printed = fusegen_here("show", "matmul_gelu_softmax").stdout
    assert "softmax_sum: row = sum(softmax_exp over cols)" in printed
    assert "-> grad_linear_bias: col" in printed
    assert "element.h" in printed
    done = fusegen_here("show", "matmul_gelu_softmaxx")
    assert done.returncode == 2
    assert "did you mean specs/matmul_gelu_softmax.yaml?" in done.stderr


def test_check_verifies_built_packages(generated: Path) -> None:
    done = fusegen_here("check", "specs/residual_add_gelu.yaml", "--out", str(generated))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gradcheck" in done.stdout
    assert "FAILED" not in done.stdout


@pytest.mark.slow
def test_check_takes_the_dtypes_that_a_package_is_built_for(tmp_path: Path) -> None:
    (tmp_path / "narrow.yaml").write_text("order: 1\ndtypes: [float64, float32]\nchain: [relu]\n")
    built = ("build", "narrow.yaml", "--backend", "cpu", "--dtypes", "float32")
    assert fusegen_here(*built, cwd=tmp_path).returncode == 0
    done = fusegen_here("check", "narrow.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not run: the package is built without float64" in done.stdout
    assert re.findall(r"forward, (\w+)", done.stdout) == ["float32"]


def test_a_formula_keeps_its_brackets() -> None:
    assert "x clipped to [min_val, max_val]" in fusegen_here("ops").stdout


@pytest.mark.slow
def test_checking_what_is_not_built_is_exit_code_2(tmp_path: Path) -> None:
    done = fusegen_here("check", str(ROOT / "specs" / "residual_add_gelu.yaml"), cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "run `fusegen build residual_add_gelu`" in done.stderr


def test_an_out_that_is_a_file_is_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "fine.yaml").write_text("chain:\n  - swish\n")
    (tmp_path / "file").write_text("")
    done = fusegen_here("build", "fine.yaml", "--out", "file", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_code_and_paths_are_not_wrapped(tmp_path: Path) -> None:
    """A narrow terminal or a pipe: a diff still applies, a caret still points at its column."""
    long = "x" * 150
    (tmp_path / "fine.yaml").write_text(f"description: {long}\nchain:\n  - swish\n")
    done = fusegen_here("build", "fine.yaml", "--check", cwd=tmp_path, COLUMNS="40")
    assert done.returncode == 1
    assert long in done.stdout


def test_every_command_has_help_with_a_short_flag() -> None:
    listed = fusegen_here("-h")
    assert listed.returncode == 0
    commands = ("build", "show", "check", "bench", "tune", "import", "export", "ops", "clean")
    places = [listed.stdout.index(f"│ {command} ") for command in commands]
    assert places == sorted(places)  # what comes first is needed first
    for command in commands:
        done = fusegen_here(command, "-h")
        assert done.returncode == 0
        assert f"Usage: fusegen {command}" in done.stdout


def test_a_shell_completes_specs(tmp_path: Path) -> None:
    (tmp_path / "my_chain.yaml").write_text("chain:\n  - swish\n")
    (tmp_path / "my_folder").mkdir()
    done = fusegen(
        cwd=tmp_path,
        _FUSEGEN_COMPLETE="complete_bash",
        COMP_WORDS="fusegen show my",
        COMP_CWORD="2",
    )
    assert done.stdout.split() == ["my_chain", "my_chain.yaml", "my_folder/"]


def test_a_table_in_a_pipe_is_neither_wrapped_nor_padded(tmp_path: Path) -> None:
    (tmp_path / "fine.yaml").write_text("chain:\n  - swish\n")
    lines = fusegen("ops", COLUMNS="40").stdout.splitlines()
    assert lines[0] == f"{len(registry())} ops"
    (row,) = (line for line in lines if line.startswith("│ hardsigmoid "))
    assert "min(max(x / 6 + 1 / 2, 0), 1); the derivative at -3 and 3 is 0" in row
    assert "torch.nn.functional.hardsigmoid" in row


def test_ops_finds_what_a_word_means() -> None:
    assert "1 op\n" in fusegen_here("ops", "nn.LayerNorm").stdout
    printed = fusegen_here("ops", "softmax").stdout
    assert "log_softmax" in printed
    assert "gelu" not in printed
    done = fusegen_here("ops", "view")
    assert done.returncode == 2
    assert "stays with torch" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shape", "8x"), "--shape 8x: expected sizes, such as 8192x8192"),
        (("--shape", "8x8x8"), "tune takes rows and columns"),
        (("--dtype", "bf17"), "--dtype bf17: not known"),
        (("--device", "cpu", "--dtype", "int8"), "--dtype int8: not known"),
    ],
)
def test_tune_refuses_what_it_cannot_read(options: tuple[str, ...], message: str) -> None:
    done = fusegen_here("tune", "specs/scale_softmax.yaml", *options)
    assert done.returncode == 2
    assert message in done.stderr


def test_dtypes_have_the_names_that_people_use() -> None:
    assert [dtype_named(word) for word in ("fp32", "bf16", "half", "torch.float64", torch.float16)] == [
        "float32", "bfloat16", "float16", "float64", "float16",
    ]  # fmt: skip
    assert dtype_named("int8") == "int8"
    assert one_of("--dtype", ["fp32"], ("float32", "tf32")) == ["float32"]


def test_a_package_that_is_nowhere_names_the_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    with pytest.raises(ImportError, match="no such package in /generated"):
        load("nowhere")


def test_show_knows_the_packages_of_models_by_name(tmp_path: Path) -> None:
    """A report calls them so; their specs are in a cache."""
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "gelu_tanh_0123.yaml").write_text("chain:\n  - gelu\n  - tanh\n")
    done = fusegen_here("show", "gelu_tanh_0123", FUSEGEN_MODELS=str(tmp_path))
    assert "tanh: full = tanh(gelu)" in done.stdout
    assert f"{tmp_path}/generated/gelu_tanh_0123 is not there yet" in done.stdout
