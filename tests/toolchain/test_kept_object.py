"""The object that bindings share is kept for the next folder of packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from shared.tiny_packages import Workshop, answer, kernel

from fusegen.toolchain import kept_object
from fusegen.toolchain.compile_errors import CompileError


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    shop = Workshop(tmp_path, monkeypatch)
    monkeypatch.setenv("FUSEGEN_OBJECTS", str(tmp_path / "objects"))
    return shop


def compiled(shop: Workshop, log: Path, folder: str) -> int:
    """Build in a new folder; return how often what bindings share was compiled."""
    log.write_text("")
    shop.out = shop.out.parent / folder
    shop.build(shop.spec("a", kernel(1)))
    assert answer(shop.out / "a" / "_cpu.so") == 1
    lines = log.read_text().splitlines()
    return sum(line.startswith("start") and str(shop.shared) in line for line in lines)


def test_a_second_folder_compiles_nothing_of_it(shop: Workshop, tmp_path: Path) -> None:
    log = shop.compiler()
    assert [compiled(shop, log, name) for name in ("one", "two")] == [1, 0]
    shop.shared.write_text("// another text\n")
    assert [compiled(shop, log, name) for name in ("two", "three")] == [1, 0]
    assert len(list((tmp_path / "objects").iterdir())) == 2


def test_other_flags_make_another_object(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    log = shop.compiler()
    monkeypatch.setenv("FUSEGEN_NATIVE", "0")
    assert [compiled(shop, log, name) for name in ("one", "two")] == [1, 0]
    monkeypatch.setenv("FUSEGEN_NATIVE", "1")
    assert [compiled(shop, log, name) for name in ("two", "three")] == [1, 0]


def test_it_can_be_turned_off_and_on_again_without_compiling(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = shop.compiler()
    monkeypatch.setenv("FUSEGEN_OBJECTS", "0")
    assert [compiled(shop, log, name) for name in ("one", "two")] == [1, 1]
    assert not (tmp_path / "objects").exists()
    monkeypatch.setenv("FUSEGEN_OBJECTS", str(tmp_path / "objects"))
    assert compiled(shop, log, "two") == 0


@pytest.mark.parametrize("content", [b"", b"short", b"\x7fELF" * 50])
def test_what_is_damaged_is_compiled_again(content: bytes, shop: Workshop, tmp_path: Path) -> None:
    log = shop.compiler()
    assert compiled(shop, log, "one") == 1
    (kept,) = (tmp_path / "objects").iterdir()
    kept.write_bytes(content)
    assert [compiled(shop, log, name) for name in ("two", "three")] == [1, 0]


def test_a_folder_that_cannot_be_written_is_done_without(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = shop.compiler()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FUSEGEN_OBJECTS", str(tmp_path / "file"))
    assert [compiled(shop, log, name) for name in ("one", "two")] == [1, 1]


def test_an_error_of_the_compiler_is_shown_and_not_kept(shop: Workshop, tmp_path: Path) -> None:
    shop.shared.write_text("int wrong = ;\n")
    with pytest.raises(CompileError, match="expected primary-expression"):
        shop.build(shop.spec("a", kernel(1)))
    assert not (tmp_path / "objects").exists()


def test_a_folder_is_meant_from_where_the_build_was_called(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = shop.compiler()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUSEGEN_OBJECTS", "here")
    assert [compiled(shop, log, name) for name in ("one", "two")] == [1, 0]
    assert len(list((tmp_path / "here").iterdir())) == 1


def test_those_not_used_for_longest_are_removed_and_nothing_of_others(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number:032x}.o" for number in range(kept_object._MOST + 1)]
    theirs = tmp_path / "letter.o"
    theirs.write_text("")
    os.utime(theirs, (0, 0))
    for number, path in enumerate(paths[:-1]):
        kept_object.keep(path, b"%d" % number)
        os.utime(path, (number, number))
    assert kept_object.find(paths[0]) == b"0"  # which is using it
    kept_object.keep(paths[-1], b"new")
    assert {*tmp_path.iterdir()} == {theirs, *paths} - {paths[1]}


def test_builds_at_once_keep_one_whole_object(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fusegen.toolchain import kept_object as k\n"
        "for n in range(200):\n"
        "    k.keep(Path(sys.argv[1]), bytes(50000))\n"
        "    assert k.find(Path(sys.argv[1])) == bytes(50000)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "objects" / f"{1:032x}.o")]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert [path.name for path in (tmp_path / "objects").iterdir()] == [f"{1:032x}.o"]
