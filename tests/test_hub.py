"""Agents named by `ckpt=hub:…`, from a cache as the hub's library keeps it."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from tiny_store import final_weights, finetune_run

from jowa.errors import UserError
from jowa.models.agent_files import WEIGHTS
from jowa.models.hub import AGENT_FILES, hub_folder
from jowa.recording.config import names_agent
from jowa.training.checkpoint import latest_checkpoint
from jowa.training.starting_point import open_agent

REVISION = "0123456789abcdef0123456789abcdef01234567"


def cache_agent(folder: Path, cache: Path) -> None:
    """What is downloaded of a folder on the hub, as me/agent in a cache: snapshots of links to blobs."""
    model = cache / "models--me--agent"
    for name in ("blobs", "refs", f"snapshots/{REVISION}"):
        (model / name).mkdir(parents=True)
    (model / "refs" / "main").write_text(REVISION)
    for number, name in enumerate(AGENT_FILES):
        if (folder / name).is_file():
            shutil.copy(folder / name, model / "blobs" / str(number))
            (model / "snapshots" / REVISION / name).symlink_to(Path("../../blobs") / str(number))


@pytest.fixture
def cached(smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The smoke run's agent as me/agent in the hub's cache. Nothing may be downloaded."""
    cache_agent(latest_checkpoint(smoke_run), tmp_path / "cache")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def test_an_agent_in_the_cache_is_opened(cached: Path, smoke_run: Path) -> None:
    for name in ("hub:me/agent", f"hub:me/agent@{REVISION}"):
        start = open_agent(name, "nano")
        assert (start.checkpoint / WEIGHTS).read_bytes() == final_weights(smoke_run)
    assert open_agent("hub:me/agent").folder == Path("runs/me--agent")
    assert names_agent("hub:me/agent")


def test_it_is_finetuned_like_any_other(cached: Path, smoke_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    before = sorted(cached.rglob("*"))
    from_hub = finetune_run(tiny_data, tmp_path / "hub", Path("hub:me/agent"))
    assert final_weights(from_hub) == final_weights(finetune_run(tiny_data, tmp_path / "run", smoke_run))
    assert sorted(cached.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [("hub:me/other", "me/other isn't in the hub's cache"), ("hub:a b", "write hub:<owner>/<name>"),
     ("hub:", "write hub:"), ("hub:me/agent@v2", "me/agent isn't in the hub's cache")],
)  # fmt: skip
def test_what_the_hub_does_not_have(cached: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_agent(name)


def test_patterns_ask_for_all_that_is_exported_of_an_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def snapshot_download(*_: object, allow_patterns: list[str], **__: object) -> str:
        asked.extend(allow_patterns)
        return "somewhere"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert hub_folder("hub:me/agent") == Path("somewhere")
    assert {"agent.json", "weights.safetensors", "lpips.safetensors", "published_buffers.safetensors"} <= set(asked)
    assert {"config.yaml", "results.json"} <= set(asked) and "README.md" not in asked
