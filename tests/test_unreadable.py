"""Data that can't be read now: one sentence about permissions for every verb, and never the advice to remove them."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import json
import sys
from itertools import product
from pathlib import Path

import pytest
from forking import exit_codes
from tiny_store import write_store

from jowa.cli import run

TESTS = Path(__file__).resolve().parent
PLACES = {
    "store": "",
    "game": "Pong",
    "part": "Pong/part-00000",
    "manifest": "Pong/part-00000/manifest.json",
    "column": "Pong/part-00000/actions.npy",
    "episodes": "Pong/part-00000/episodes.jsonl",
    "frames": "Pong/part-00000/frames",
    "description": "Pong/part-00000/frames/zarr.json",
    "shard": "Pong/part-00000/frames/c/0/0/0",
}
VERBS = {
    "inspect": "path={data} out={out}",
    "verify": "path={data}",
    "select": "path={data} runs=null transitions=20 out={out}/selection.json",
    "record": "game=Pong out={data} append=true steps=10",
    "import": "source=rlu path={samples} out={data} allow_mixed=true games=[Pong]",
}
CONTENTS = ("column", "frames", "description", "shard")
UNTOUCHED = {*(("select", place) for place in CONTENTS if place != "frames"),
             *((verb, place) for verb in ("record", "import") for place in (*CONTENTS, "episodes"))}  # fmt: skip
"""Who chooses or adds episodes reads no more than the manifests, and the sizes of the files they name."""


def call_without_privileges(folder: Path, found: Path) -> None:
    """Every verb on every place that can't be read, in a process of its own; what came of it goes to `found`."""
    # The administrator may read everything: capabilities 1 and 2, which let him, are laid down before any thread.
    libc, header, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0] &= ~0b110
    assert libc.capset(header, sets) == 0
    data = write_store(folder / "data", ("Pong",))
    outcomes = []
    for (place, name), (verb, line) in product(PLACES.items(), VERBS.items()):
        target = data / name
        mode = target.stat().st_mode
        target.chmod(0)
        words = line.format(data=data, out=folder / (place + verb), samples=folder / "rlu").split()
        outcomes.append((place, verb, *outcome(verb, words)))
        target.chmod(mode)
    found.write_text(json.dumps(outcomes))


def outcome(verb: str, words: list[str]) -> tuple[object, str, str]:
    """(code, stdout, stderr)"""
    module = importlib.import_module(f"jowa.data.{verb}")
    (schema,) = (value for key, value in vars(module).items() if key == f"{verb.capitalize()}Config")
    sys.argv = [verb, *words]
    code: object = 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            run(module.main, schema, verb)
        except SystemExit as end:
            code = end.code
        except Exception as error:
            code = repr(error)
    return code, out.getvalue(), errors.getvalue()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[object, str, str]]:
    """(code, stdout, stderr) by (place, verb)."""
    folder = tmp_path_factory.mktemp("unreadable")
    samples = folder / "rlu"
    (samples / "Pong").mkdir(parents=True)
    (samples / "Pong" / "run_1-00000-of-00050").symlink_to(TESTS / "samples/rlu/Assault/run_1-00000-of-00050")
    assert exit_codes(call_without_privileges, (folder, folder / "found"), timeout=120) == [0]
    return {(place, verb): (code, out, errors)
            for place, verb, code, out, errors in json.loads((folder / "found").read_text())}  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
@pytest.mark.parametrize(("verb", "place"), [(v, p) for v in VERBS for p in PLACES if (v, p) not in UNTOUCHED])
def test_it_is_one_sentence_about_permissions(outcomes: dict, place: str, verb: str) -> None:
    code, out, errors = outcomes[place, verb]
    _, found, sentence = errors.rpartition("jowa: ")
    assert code == 2 and found and sentence.count("\n") == 1, (code, out, errors)
    text = out + sentence
    assert "ermission" in text and "remove" not in text and "damaged" not in text, (out, errors)
    assert str(Path("data") / PLACES[place]).removesuffix("/zarr.json").removesuffix("/c/0/0/0") in text
