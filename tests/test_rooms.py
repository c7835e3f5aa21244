"""The folder layout is the architecture: a room imports only rooms that come before it, as README lists them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EVALUATION = ("statistics", "play", "diagnostics", "films", "results", "cards", "pages", "comparison")


def rooms() -> list[str]:
    """The folders of jowa/ in README's order."""
    layout = (ROOT / "README.md").read_text("utf-8").split("## How it is built")[1].split("```")[1]
    return re.findall(r"^  (\w+)/ ", layout, re.MULTILINE)


def imports(file: Path) -> set[str]:
    """The modules and rooms that it imports from jowa, in whatever form."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{file} imports relatively: write the whole name"
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name for name in found if name.startswith("jowa.") and is_module(name)}


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def is_entry_point(file: Path) -> bool:
    return '__name__ == "__main__"' in file.read_text("utf-8")


def test_every_folder_is_in_readme() -> None:
    folders = {path.name for path in (ROOT / "jowa").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert set(rooms()) == folders
    inner = {path.name for path in (ROOT / "jowa/evaluation").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert set(EVALUATION) == inner


@pytest.mark.parametrize(("within", "depth"), [("jowa", 1), ("jowa/evaluation", 2)])
def test_rooms_import_none_that_come_later(within: str, depth: int) -> None:
    order = rooms() if depth == 1 else list(EVALUATION)
    prefix = within.split("/")
    looked_at = 0
    for file in (ROOT / within).glob("*/**/*.py"):
        room = file.relative_to(ROOT).parts[depth]
        if is_entry_point(file):
            continue
        for name in imports(file):
            parts = name.split(".")
            if parts[:depth] == prefix and len(parts) > depth and parts[depth] in order:
                looked_at += 1
                assert order.index(parts[depth]) <= order.index(room), f"{file.relative_to(ROOT)} imports {name}"
    assert looked_at > 50


def test_no_room_imports_an_entry_point() -> None:
    entries = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in (ROOT / "jowa").rglob("*.py")
        if is_entry_point(file)
    }
    assert "jowa.evaluate" in entries
    assert "jowa.data.record" in entries
    for file in (ROOT / "jowa").glob("*/**/*.py"):
        if not is_entry_point(file):
            assert not imports(file) & entries, file.relative_to(ROOT)
