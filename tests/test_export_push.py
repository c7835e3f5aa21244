"""Uploads of exports: with push=true only, once, after the folder is whole; each refusal of the hub is one sentence."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from export_calls import export_agent
from test_cli import assert_refused

ADDRESS = "https://huggingface.co/me/mine"


class FakeHub:
    """The hub library's HfApi, as far as it is used; `asked` are the calls it got."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.fails: dict[str, Exception] = {}
        self.files: set[str] = set()

    def __call__(self) -> FakeHub:
        return self

    def _answer(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self.asked.append((name, arguments, keywords))
        if name in self.fails:
            raise self.fails[name]

    def create_repo(self, *arguments: Any, **keywords: Any) -> str:
        self._answer("create_repo", arguments, keywords)
        return ADDRESS

    def upload_folder(self, *arguments: Any, **keywords: Any) -> None:
        self.files = {path.name for path in Path(keywords["folder_path"]).iterdir()}
        self._answer("upload_folder", arguments, keywords)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A hub that somebody is logged in to."""
    fake = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", fake)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_token")
    return fake


def refusal(status: int, text: str) -> Exception:
    error = Exception(text)
    error.response = SimpleNamespace(status_code=status)  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize("private", [True, False])
def test_push_makes_a_model_and_uploads_the_folder_once(
    private: bool, hub: FakeHub, smoke_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "hub"
    line = [f"ckpt={smoke_run}", f"out={out}", "push=true", "repo=me/mine", *([] if private else ["private=false"])]
    code, text, errors = export_agent(*line)
    assert (code, errors) == (0, "")
    (made, sent) = hub.asked
    assert made == ("create_repo", ("me/mine",), {"repo_type": "model", "private": private, "exist_ok": False})
    assert sent[0] == "upload_folder" and sent[1] == () and set(sent[2]) == {
        "repo_id", "folder_path", "repo_type", "commit_message"
    }  # fmt: skip
    assert (sent[2]["repo_id"], sent[2]["folder_path"], sent[2]["repo_type"]) == ("me/mine", out, "model")
    assert hub.files == {path.name for path in out.iterdir()} and "README.md" in hub.files
    seen = "private" if private else "public"
    assert text.splitlines()[-1] == f"All of it was uploaded to {ADDRESS} ({seen})."
    assert "nothing was uploaded" not in text


@pytest.mark.parametrize("more", [(), ("repo=me/mine",), ("repo=me/mine", "private=false"), ("push=false",)])
def test_without_push_the_hub_is_not_asked(
    more: tuple[str, ...], hub: FakeHub, smoke_run: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    code, text, _ = export_agent(f"ckpt={smoke_run}", f"out={tmp_path / 'hub'}", *more)
    assert code == 0 and hub.asked == []
    last = text.splitlines()[-1]
    assert "nothing was uploaded" in last and ("push=true" in last) == any("repo" in word for word in more)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("create_repo", refusal(409, "Conflict"), ("has a model me/mine already", "nothing was uploaded")),
        ("create_repo", refusal(401, "Unauthorized"), ("may not make me/mine", "nothing was uploaded")),
        ("create_repo", refusal(403, "Forbidden"), ("may not make me/mine", "nothing was uploaded")),
        ("create_repo", ConnectionError("no route\nto host"), ("(no route)", "nothing was uploaded")),
        ("create_repo", ConnectionError(), ("(ConnectionError)", "nothing was uploaded")),
        ("upload_folder", ConnectionError("reset"), (f"{ADDRESS} was made, but the upload failed (reset)",)),
    ],
)
def test_what_the_hub_refuses_leaves_the_folder(
    name: str, error: Exception, words: tuple[str, ...], hub: FakeHub,
    smoke_run: Path, tmp_path: Path,
) -> None:  # fmt: skip
    hub.fails[name] = error
    out = tmp_path / "hub"
    result = export_agent(f"ckpt={smoke_run}", f"out={out}", "push=true", "repo=me/mine")
    assert_refused(result, *words, f"`hf upload me/mine {out}`")
    assert (out / "README.md").is_file()


def test_who_cannot_push_learns_it_first(
    hub: FakeHub, smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = [f"ckpt={smoke_run}", f"out={tmp_path / 'hub'}", "push=true", "repo=me/mine"]
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert_refused(export_agent(*line), "hf auth login")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert_refused(export_agent(*line), "pip install 'jowa[hub]'")
    assert hub.asked == [] and not any(tmp_path.iterdir())
