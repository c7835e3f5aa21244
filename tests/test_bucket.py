"""Downloading one object: resumed to the byte, bound to what was listed, and never taken on trust."""

from __future__ import annotations

import time
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from bucket_fixtures import NAMES, bucket, contents, fetch_one, no_network, server
from bucket_server import BucketServer, Fault

from jowa.data import fetching
from jowa.data.raw_files import FOLDER
from jowa.data.sources.bucket import Bucket, Patience, Stopped, Unavailable

__all__ = ["contents", "no_network", "server"]


def test_a_broken_download_goes_on_where_it_stopped(
    server: BucketServer, contents: list[bytes], tmp_path: Path
) -> None:
    server.fail(NAMES[0], Fault("drop", 300_000), Fault("end", 300_001), Fault("busy", 503), Fault("drop", 600_000))
    arrived: list[int] = []
    remote = bucket().objects(FOLDER)[NAMES[0]]
    bucket().download(remote, tmp_path / "there" / "file", arrived.append)
    assert server.downloads(NAMES[0]) == [0, 300_000, 300_001, 300_001, 600_000]
    assert (tmp_path / "there" / "file").read_bytes() == contents[0] and len(list(tmp_path.rglob("*"))) == 2
    assert sum(arrived) == len(contents[0])
    # Of what comes beyond the object's size nothing is written.
    server.fail(NAMES[0], Fault("drop", 300_000), Fault("long", 10_000_000))
    arrived.clear()
    bucket().download(remote, tmp_path / "second", arrived.append)
    assert max(accumulate(arrived)) == sum(arrived) == len(contents[0])


def test_a_long_download_may_break_off_often(
    server: BucketServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = np.random.default_rng(0).bytes(5 << 20)
    server.put("large", content)
    # Six failures in all, but with a MiB at least between them: fewer attempts are enough.
    server.fail("large", *(Fault("drop", (number << 20) - 1 + number) for number in range(1, 5)), Fault("drop"))
    fetch_one("large", tmp_path / "large", attempts=3)
    assert (tmp_path / "large").read_bytes() == content and len(server.downloads("large")) == 6
    server.fail("large", Fault("drop", 5_000), forever=True)
    with pytest.raises(Unavailable, match=r"the connection breaks .*, 3 times in a row"):
        fetch_one("large", tmp_path / "again", attempts=3)
    assert not (tmp_path / "again").exists()


def test_a_silent_server_is_not_waited_for(server: BucketServer, tmp_path: Path) -> None:
    server.fail(NAMES[0], Fault("silent", 30), None)
    begin = time.monotonic()
    fetch_one(NAMES[0], tmp_path / "file", timeout=0.3)
    server.fail(NAMES[1], Fault("silent", 30), forever=True)
    with pytest.raises(Unavailable, match=r"no answer in 0.2 s, 2 times"):
        fetch_one(NAMES[1], tmp_path / "other", attempts=2, timeout=0.2)
    assert time.monotonic() - begin < 10


def test_an_object_that_changes_is_fetched_anew(server: BucketServer, contents: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "file"
    before = bucket().objects(FOLDER)[NAMES[0]]
    server.fail(NAMES[0], Fault("drop", 100_000))
    with pytest.raises(Unavailable):
        bucket(attempts=1).download(before, path)
    (left,) = tmp_path.iterdir()
    assert left.name == f"file.{before.generation}.part" and left.read_bytes() == contents[0][:100_000]
    server.put(NAMES[0], contents[1])
    # Whoever lists anew knows of the new object; whoever listed before learns it from the server.
    fetch_one(NAMES[0], path)
    assert path.read_bytes() == contents[1] and server.downloads(NAMES[0]) == [0, 0]
    bucket().download(before, tmp_path / "second")
    assert (tmp_path / "second").read_bytes() == contents[1]
    del server.objects[NAMES[0]]
    with pytest.raises(Unavailable, match="no longer in the bucket"):
        bucket().download(before, tmp_path / "third")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "second"]


def test_a_stopped_bucket_waits_for_nothing(server: BucketServer, tmp_path: Path) -> None:
    stopped = Bucket(fetching.BUCKET, Patience(5, 1000.0, 5.0))
    remote = stopped.objects(FOLDER)[NAMES[0]]
    stopped.stop.set()
    for fault in (None, Fault("busy", 503)):
        server.fail(NAMES[0], fault)
        with pytest.raises(Stopped):
            stopped.download(remote, tmp_path / "file")


@pytest.mark.parametrize("status", [401, 403])
def test_an_object_that_is_refused_is_asked_for_once(status: int, server: BucketServer, tmp_path: Path) -> None:
    server.fail(NAMES[0], Fault("busy", status), forever=True)
    with pytest.raises(Unavailable, match=f"the server answers {status} [FU]"):
        fetch_one(NAMES[0], tmp_path / "file")
    assert server.downloads(NAMES[0]) == [0]
