"""Fetching from a bucket on this machine, well-behaved and other: what is stored is what a local import stores."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from bucket_fixtures import FILES, NAMES, SAMPLES, contents, no_network, server
from bucket_server import BucketServer, Fault
from forks import fork
from launch import ENVIRONMENT, command

from jowa.cli import run
from jowa.data import fetch, fetching
from jowa.data.fetching import WORK_FOLDER
from jowa.data.raw_files import FOLDER
from jowa.data.sources import rlu
from jowa.data.sources.parts import write_part
from jowa.data.store import EpisodeStore, EpisodeWriter, committed_parts
from jowa.errors import UserError
from jowa.games import legal_actions

PARTS = [rlu.part_name(1, checkpoint) for checkpoint in (0, 1)]
HASTE = ("backoff=0.001", "timeout=5")

__all__ = ["contents", "no_network", "server"]

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that an import of the local files makes."""
    store = tmp_path_factory.mktemp("imported")
    for checkpoint, path in enumerate(FILES):
        facts = rlu.provenance("Assault", 1, checkpoint)
        write_part(store, "Assault", PARTS[checkpoint], rlu.episodes(path, "Assault"), facts, False)
    return store


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """`python -m jowa.data.fetch` for the two files into tmp_path/out, unless said otherwise: code, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        usual = ["games=[Assault]", "checkpoints=[0-1]", f"out={tmp_path / 'out'}", *HASTE]
        monkeypatch.setattr(sys, "argv", ["fetch", *usual, *arguments])
        code = 0
        try:
            run(fetch.main, fetch.FetchConfig, "fetch")
        except SystemExit as end:
            code = int(end.code or 0)
        output, errors = capsys.readouterr()
        # The bar redraws itself with carriage returns; it's the sentences that count.
        return code, output, "".join(line for line in errors.splitlines(True) if line.startswith("jowa: "))

    return call


def tree(folder: Path) -> dict[str, str]:
    """Every file below, with its digest."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def assert_one_sentence(result: tuple[int, str, str], *words: str) -> None:
    code, _, errors = result
    assert code == 2 and errors.count("\n") == 1 and "Traceback" not in errors, errors
    for word in words:
        assert word in errors, errors


def assert_true_to_the_samples(store: Path) -> None:
    """Compare with what the program that wrote the sample files had."""
    opened = EpisodeStore(store, ["Assault"])
    table, episode = opened.tables["Assault"], 0
    for checkpoint in (0, 1):
        with np.load(SAMPLES / f"truth_Assault_{checkpoint}.npz") as truth:
            for number in (0, 1):
                rows = np.arange(table.starts[episode], table.starts[episode] + table.lengths[episode])
                read = opened.read("Assault", rows)
                assert np.array_equal(read.frames, truth[f"obs_{number}"][:-1])
                assert np.array_equal(read.actions, np.array(legal_actions("Assault"))[truth[f"actions_{number}"]])
                assert np.array_equal(read.rewards, truth[f"rewards_{number}"])
                assert read.ends[-1] == truth[f"terminal_{number}"] and not read.ends[:-1].any()
                episode += 1
    assert episode == len(table)


def test_an_emulated_bucket_gives_what_a_local_import_gives(
    call: Call, contents: list[bytes], imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    from google.cloud import storage

    server = emulator.create_server("localhost", 0, in_memory=True, default_bucket=fetching.BUCKET)
    with server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://localhost:{server._api._httpd.server_port}")
        uploads = storage.Client.create_anonymous_client().bucket(fetching.BUCKET)
        for name, content in zip(NAMES, contents, strict=True):
            uploads.blob(name).upload_from_string(content)
        code, table, errors = call()
    assert (code, errors) == (0, "")
    assert_true_to_the_samples(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(imported)
    assert "Assault" in table.splitlines()[1] and table.splitlines()[1].split()[1:] == ["2", "0", "2", "0", "4", "1562"]


FAULTS = {
    "drops": [Fault("drop", 100_000), Fault("drop", 200_001), Fault("reset", 280_000), Fault("end", 300_000)],
    "drops before the first byte": [Fault("drop"), Fault("drop")],
    "busy": [Fault("busy", 503), Fault("busy", 429), Fault("busy", 500)],
    "corrupt": [Fault("corrupt", 12_345), Fault("corrupt", 0), Fault("drop", 50_000), Fault("corrupt", 99_999)],
    "ignored range": [Fault("drop", 200_000), Fault("whole"), Fault("drop", 100_000)],
    "too much": [Fault("long", 10)],
    "everything": [Fault("busy", 503), Fault("drop", 70_000), Fault("corrupt", 80_000), Fault("reset", 9_000)],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS.keys())
def test_faults_that_pass(
    faults: list[Fault], server: BucketServer, call: Call, imported: Path, tmp_path: Path
) -> None:
    server.fail(NAMES[1], *faults)
    server.fail("list", Fault("busy", 503), Fault("drop"))
    server.fail("get", Fault("busy", 502))
    assert call()[0] == 0
    assert tree(tmp_path / "out") == tree(imported)
    # Each fault was met, and the first file came in one go.
    assert len(server.downloads(NAMES[1])) == len(faults) + 1 and server.downloads(NAMES[0]) == [0]


class Killer:
    """Kills a process with signal 9 when the server has sent so many bytes to it, slowly."""

    def __init__(self, process: BaseProcess, after: int) -> None:
        self.process, self.left = process, after

    def __call__(self, name: str, at: int) -> None:
        time.sleep(0.001 if name == NAMES[0] else 0.004)
        self.left -= 4096
        if self.left < 0:
            self.process.kill()


def test_killed_at_random_points_it_goes_on(
    server: BucketServer, contents: list[bytes], imported: Path, tmp_path: Path
) -> None:
    out, expected = tmp_path / "out", tree(imported)
    line = ["jowa.data.fetch", "games=[Assault]", "checkpoints=[0,1]", f"out={out}", *HASTE]
    total, random = sum(map(len, contents)), np.random.default_rng()
    # Bytes of what is left: twice within the first file, then while the first is imported and the second comes.
    shares = [*random.uniform(0.05, 0.4, 2), *random.uniform(0.1, 0.5, 2)]
    for share in shares:
        (fetching_on,) = fork(tmp_path / "said", *line)
        server.on_piece = Killer(fetching_on.process, int(share * total))
        fetching_on.end(60)
        server.on_piece = lambda name, at: None
        for part in committed_parts(out, "Assault"):
            there = {file: digest for file, digest in tree(out).items() if file.startswith(f"Assault/{part}/")}
            assert there == {file: digest for file, digest in expected.items() if file.startswith(f"Assault/{part}/")}
        total -= sum(path.stat().st_size for path in out.rglob("*.part"))
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(command(*line), env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (shares, done.stderr)
    assert tree(out) == expected, shares
    # No byte that a killed process had written down was asked for again.
    for name in NAMES:
        assert server.downloads(name) == sorted(server.downloads(name)), shares
    assert any(start for name in NAMES for start in server.downloads(name)), shares


def test_what_the_bucket_lacks_is_named_and_the_rest_is_there(
    server: BucketServer, call: Call, imported: Path, tmp_path: Path
) -> None:
    code, table, errors = call("checkpoints=[0,1,7]", "runs=[1,3]")
    assert code == 2 and errors.startswith("jowa: 4 of 6 files could not be had") and errors.count("\n") == 1
    lacking = [(1, 7), (3, 0), (3, 1), (3, 7)]
    named = [f"missing: {FOLDER}/Assault/{rlu.file_name(*file)}: it is not in the bucket" for file in lacking]
    assert [line for line in table.splitlines() if line.startswith("missing")] == named
    assert tree(tmp_path / "out") == tree(imported)
    # One that was in the list and is gone when its turn comes.
    server.fail(NAMES[1], Fault("busy", 404), forever=True)
    code, table, _ = call(f"out={tmp_path / 'other'}")
    assert code == 2 and f"missing: {NAMES[1]}: it changes while it is fetched" in table
    assert committed_parts(tmp_path / "other", "Assault") == (PARTS[0],)


def test_lasting_corruption_is_reported_and_nothing_wrong_is_stored(
    server: BucketServer, call: Call, imported: Path, tmp_path: Path
) -> None:
    server.fail(NAMES[0], Fault("corrupt", 4_000), forever=True)
    code, table, errors = call("attempts=3", f"keep_raw={tmp_path / 'raw'}")
    assert code == 2 and "1 of 2 files" in errors
    assert f"missing: {NAMES[0]}: its content arrives corrupted, 3 times in a row\n" in table
    assert committed_parts(tmp_path / "out", "Assault") == (PARTS[1],)
    assert [path.name for path in (tmp_path / "raw" / "Assault").iterdir()] == [FILES[1].name]
    assert server.downloads(NAMES[0]) == [0, 0, 0]
    server.faults.clear()
    assert call()[0] == 0 and tree(tmp_path / "out") == tree(imported)
    assert len(server.downloads(NAMES[1])) == 1


def test_a_file_that_is_no_data_is_reported(
    server: BucketServer, contents: list[bytes], call: Call, tmp_path: Path
) -> None:
    import gzip

    (third, fourth) = (f"{FOLDER}/Assault/{rlu.file_name(1, checkpoint)}" for checkpoint in (2, 3))
    server.put(NAMES[0], contents[0][:400_000])
    server.put(third, gzip.compress(b""))
    server.put(fourth, contents[1])
    code, table, errors = call("checkpoints=[0-3]")
    assert code == 2 and "2 of 4 files" in errors
    assert f"missing: {NAMES[0]}: it is as the bucket has it and yet can't be read: " in table
    assert f"missing: {third}: it is as the bucket has it and yet can't be read: " in table
    # Its first episode was whole, and isn't there all the same.
    assert committed_parts(tmp_path / "out", "Assault") == (PARTS[1], rlu.part_name(1, 3))
    assert sorted(path.name for path in tmp_path.glob("out/*")) == ["Assault"]


def test_kept_files_serve_later_runs(
    server: BucketServer, contents: list[bytes], call: Call, imported: Path, tmp_path: Path
) -> None:
    raw, keep = tmp_path / "raw", f"keep_raw={tmp_path / 'raw'}"
    assert call(keep)[0] == 0
    kept = [raw / "Assault" / path.name for path in FILES]
    assert [path.read_bytes() for path in kept] == contents
    server.requests.clear()
    assert call(keep, f"out={tmp_path / 'second'}")[0] == 0
    assert tree(tmp_path / "second") == tree(imported) == tree(tmp_path / "out")
    assert server.downloads(NAMES[0]) == server.downloads(NAMES[1]) == []
    # One has rotted, one is cut: both are fetched anew.
    kept[0].write_bytes(contents[0][:1000] + bytes([contents[0][1000] ^ 1]) + contents[0][1001:])
    kept[1].write_bytes(contents[1][:1000])
    rotten, cut = (path.read_bytes() for path in kept)
    # Until the right ones have come they are where they were, and they may be somebody's only ones.
    server.fail(NAMES[0], Fault("drop", 5_000), forever=True)
    assert call(keep, f"out={tmp_path / 'third'}", "attempts=2")[0] == 2
    assert kept[0].read_bytes() == rotten and kept[1].read_bytes() == contents[1]
    server.faults.clear()
    code, text, _ = call(keep, f"out={tmp_path / 'third'}")
    assert code == 0 and f"note: {kept[0]} wasn't what the bucket has; it is {kept[0]}.old now." in text
    assert tree(tmp_path / "third") == tree(imported) and [path.read_bytes() for path in kept] == contents
    assert [path.with_name(f"{path.name}.old").read_bytes() for path in kept] == [rotten, cut]
    kept[1].write_bytes(b"once more")
    assert call(keep, f"out={tmp_path / 'fourth'}")[0] == 0
    assert kept[1].with_name(f"{kept[1].name}.old").read_bytes() == cut
    assert kept[1].with_name(f"{kept[1].name}.old2").read_bytes() == b"once more"


def test_a_file_of_another_checkpoint_is_noted(
    server: BucketServer, contents: list[bytes], call: Call, tmp_path: Path
) -> None:
    server.put(NAMES[0], contents[1])
    code, text, _ = call()
    noted = [line for line in text.splitlines() if line.startswith("note: ")]
    assert code == 0 and len(noted) == 1 and FILES[0].name in noted[0] and "2 of 2 episodes name another" in noted[0]


def test_a_second_run_asks_the_bucket_nothing(server: BucketServer, call: Call, tmp_path: Path) -> None:
    assert call("checkpoints=[1]")[0] == 0
    assert server.downloads(NAMES[0]) == []
    assert call()[0] == 0
    assert server.downloads(NAMES[1]) == [0]
    before = tree(tmp_path / "out")
    server.requests.clear()
    code, table, errors = call()
    assert (code, errors, server.requests) == (0, "", []) and table.splitlines()[1].split()[1:4] == ["2", "2", "0"]
    assert tree(tmp_path / "out") == before


def test_a_dry_run_tells_and_fetches_nothing(
    server: BucketServer, contents: list[bytes], call: Call, tmp_path: Path
) -> None:
    call("checkpoints=[1]")
    (tmp_path / "raw" / "Assault").mkdir(parents=True)
    (tmp_path / "raw" / "Assault" / FILES[0].name).write_bytes(contents[0])
    server.requests.clear()
    code, text, errors = call("dry_run=true", "checkpoints=[0-2]", f"keep_raw={tmp_path / 'raw'}")
    assert (code, errors) == (0, "") and server.downloads(NAMES[0]) == []
    assert text.splitlines()[1].split() == ["Assault", "3", "1", "1", "0.6", "0.6"]
    assert f"3 files: 1 in the store, 1 to fetch ({len(contents[0])} bytes), 1 not in the bucket" in text
    assert f"not in the bucket: {FOLDER}/Assault/{rlu.file_name(1, 2)}" in text
    assert committed_parts(tmp_path / "out", "Assault") == (PARTS[1],)
    assert call("dry_run=true", f"out={tmp_path / 'new' / 'store'}")[0] == 0
    assert not (tmp_path / "new").exists()


def test_a_full_disk_is_one_sentence_and_leaves_whole_parts(
    server: BucketServer, call: Call, imported: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out" / WORK_FOLDER / "Assault"
    folder.mkdir(parents=True)
    full = folder / f"{FILES[1].name}.{server.generations[NAMES[1]]}.part"
    full.symlink_to("/dev/full")
    assert_one_sentence(call(), "The disk is full while writing", full.name, "finished parts are safe")
    assert committed_parts(tmp_path / "out", "Assault") == (PARTS[0],)
    full.unlink()
    assert call()[0] == 0 and tree(tmp_path / "out") == tree(imported)


def test_an_error_of_the_store_ends_the_download_ahead(
    server: BucketServer, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def refuse(*_: object) -> None:
        assert begun.wait(10)
        raise UserError("The store is full.")

    def slowly(name: str, at: int) -> None:
        if name == NAMES[1]:
            begun.set()
            time.sleep(0.1)

    server.on_piece = slowly
    monkeypatch.setattr(fetching, "write_part", refuse)
    begin = time.monotonic()
    assert_one_sentence(call(), "The store is full.")
    # The whole second file would take 8 seconds.
    assert time.monotonic() - begin < 5
    (left,) = (tmp_path / "out" / WORK_FOLDER).rglob("*.part")
    assert left.name == f"{FILES[1].name}.{server.generations[NAMES[1]]}.part"
    assert committed_parts(tmp_path / "out", "Assault") == ()


RUNS = [f"{FOLDER}/Assault/{rlu.file_name(number, 0)}" for number in (1, 2)]


@pytest.mark.parametrize("runs", [("[1]", "[2]"), ("[1-2]", "[1-2]")], ids=["other files", "the same files"])
@pytest.mark.parametrize("keep", [False, True])
def test_processes_fetch_into_one_store_at_once(
    runs: tuple[str, str], keep: bool, server: BucketServer, contents: list[bytes], tmp_path: Path
) -> None:
    """As the tasks of a cluster do; each file is fetched by one of them."""
    server.put(RUNS[1], contents[1])
    server.on_piece = lambda name, at: time.sleep(0.003)
    kept = [f"keep_raw={tmp_path / 'raw'}"] if keep else []
    line = ["jowa.data.fetch", "games=[Assault]", "checkpoints=[0]", f"out={tmp_path / 'out'}", *HASTE, *kept]
    forks = [fork(tmp_path / f"said-{number}", *line, f"runs={some}") for number, some in enumerate(runs)]
    done = [process.end() for (process,) in forks]
    assert [process.returncode for process in done] == [0, 0], done
    assert [server.downloads(name) for name in RUNS] == [[0], [0]]
    assert committed_parts(tmp_path / "out", "Assault") == ("rlu-1-00000", "rlu-2-00000")
    assert not (tmp_path / "out" / WORK_FOLDER).exists()
    if keep:
        assert sorted(path.name for path in (tmp_path / "raw" / "Assault").iterdir()) == [
            rlu.file_name(1, 0),
            rlu.file_name(2, 0),
        ]


def test_what_an_import_made_meanwhile_is_there(
    server: BucketServer, call: Call, tmp_path: Path, imported: Path
) -> None:
    def meanwhile(name: str, at: int) -> None:
        server.on_piece = lambda name, at: None
        shutil.copytree(imported / "Assault" / PARTS[0], tmp_path / "out" / "Assault" / PARTS[0])

    server.on_piece = meanwhile
    code, text, errors = call()
    assert (code, errors) == (0, "") and text.splitlines()[1].split()[1:4] == ["2", "1", "1"]
    assert tree(tmp_path / "out") == tree(imported)


def test_a_raw_file_that_a_killed_process_left_goes(
    server: BucketServer, contents: list[bytes], call: Call, imported: Path, tmp_path: Path
) -> None:
    """It was killed after the import, before the file was deleted."""
    assert call("checkpoints=[0]")[0] == 0
    left = tmp_path / "out" / WORK_FOLDER / "Assault" / FILES[0].name
    left.parent.mkdir(parents=True)
    left.write_bytes(contents[0])
    left.with_name(f"{left.name}.123.part").write_bytes(contents[0][:100])
    assert call("checkpoints=[0]")[0] == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["Assault"]


@pytest.mark.parametrize("status", [401, 403, 404, 400])
def test_a_bucket_that_refuses_is_one_sentence(status: int, server: BucketServer, call: Call) -> None:
    server.fail("list", Fault("busy", status), forever=True)
    assert_one_sentence(call(), "The bucket rl_unplugged can't be listed", f"answers {status}", "HTTPS_PROXY")
    assert len(server.requests) == 1


def test_no_server_is_one_sentence(call: Call) -> None:
    assert_one_sentence(
        call("attempts=2"), "can't be listed: the connection breaks (ConnectionError), 2 times in a row"
    )


def test_the_package_that_is_needed_is_named(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
    assert_one_sentence(call(), "google-cloud-storage", "pip install 'jowa[rlu]'")


MISTAKES = {
    "games=[Berzerk]": ("RL Unplugged has no Berzerk", "python -m jowa.data.record game=[Berzerk]"),
    "games=[Pong,Skiing]": ("no Skiing", "jowa.data.record"),
    "games=[Asault]": ("'Asault'", "did you mean 'Assault'?"),
    "games=[]": ("games must name at least one game",),
    "games=[Pong,Pong]": ("none twice",),
    "games=???": ("A value is missing: give games=…",),
    "runs=[0]": ("runs must hold numbers from 1 to 5", "'0'"),
    "runs=[1-6]": ("runs", "'1-6'"),
    "runs=[]": ("runs must name at least one",),
    "checkpoints=[50]": ("checkpoints must hold numbers from 0 to 49", "'50'"),
    "checkpoints=[9-3]": ("checkpoints", "'9-3'"),
    "checkpoints=[-1]": ("checkpoints", "'-1'"),
    "checkpoints=[all]": ("checkpoints", "'all'"),
    "checkpoints=7": ("'checkpoints'", "list"),
    "source=minari": ("source must be rlu",),
    "attempts=0": ("attempts=0",),
    "backoff=-1": ("backoff=-1",),
    "timeout=0": ("timeout=0",),
    "out=/proc/nothing": ("cannot write", "set out to"),
    "keep_raw=/proc/nothing": ("cannot write", "set keep_raw to"),
    "keep_rwa=x": ("'keep_rwa'", "did you mean 'keep_raw'?"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_before_any_work(
    mistake: str, server: BucketServer, call: Call, tmp_path: Path
) -> None:
    assert_one_sentence(call(mistake), *MISTAKES[mistake])
    assert not tree(tmp_path) and not any(name in NAMES for name, _ in server.requests)


def test_other_episodes_are_not_mixed_in_unasked(server: BucketServer, call: Call, tmp_path: Path) -> None:
    facts = {"source": "a test", "rom_md5": "another", "sticky": True}
    with EpisodeWriter(tmp_path / "out", "Assault", provenance=facts) as writer:
        writer.append(np.zeros((3, 84, 84), np.uint8), np.zeros(3, np.uint8), np.zeros(3, np.float32), True)
    assert_one_sentence(call(), "rom_md5", "allow_mixed=true")
    assert server.requests == []
    assert call("allow_mixed=true")[0] == 0
    assert len(committed_parts(tmp_path / "out", "Assault")) == 3
