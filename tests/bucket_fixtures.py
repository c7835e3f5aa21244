"""An emulated bucket with the sample files, for tests of downloading and of fetching."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bucket_server import BucketServer

from jowa.data import fetching
from jowa.data.raw_files import FOLDER
from jowa.data.sources import rlu
from jowa.data.sources.bucket import Bucket, Patience

SAMPLES = Path(__file__).parent / "samples" / "rlu"
FILES = [SAMPLES / "Assault" / rlu.file_name(1, checkpoint) for checkpoint in (0, 1)]
NAMES = [f"{FOLDER}/Assault/{path.name}" for path in FILES]


@pytest.fixture(scope="module")
def contents() -> list[bytes]:
    return [path.read_bytes() for path in FILES]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens there: a test that forgets its server must not ask Google's."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")


@pytest.fixture
def server(contents: list[bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketServer]:
    with BucketServer(dict(zip(NAMES, contents, strict=True))) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.host)
        yield server


def bucket(attempts: int = 5, timeout: float = 5.0) -> Bucket:
    return Bucket(fetching.BUCKET, Patience(attempts, 0.001, timeout))


def fetch_one(name: str, path: Path, **changes: Any) -> None:
    """Download one of the bucket's objects, as it is now."""
    bucket(**changes).download(bucket().objects(name)[name], path)
