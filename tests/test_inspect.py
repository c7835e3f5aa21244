"""Looking at a store: the table's and the page's numbers are the data's, and the page needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cli import assert_refused
from test_report import check
from tiny_store import moving_square, write_store

from jowa.cli import run
from jowa.data import inspect
from jowa.data.overview import facts, is_packaged_rom, overview, text_table
from jowa.data.store import EpisodeStore, EpisodeWriter
from jowa.evaluation.pages.data_page import action_shares, contact_sheet, render, returns_over_time
from jowa.games import ACTION_NAMES, legal_actions, packaged_rom

PONG_ROM = hashlib.md5(packaged_rom("Pong").read_bytes()).hexdigest()
LENGTHS = (12, 30, 7, 21)


def write_part(folder: Path, game: str, part: str, first: int, lengths=LENGTHS, **provenance: object) -> None:
    with EpisodeWriter(folder, game, provenance=dict(provenance), part=part, allow_mixed=True) as writer:
        for number, length in enumerate(lengths, first):
            writer.append(*moving_square(game, number, length), terminated=number % 4 > 0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    """Pong of two runs of three checkpoints, Boxing without any, Freeway of one episode."""
    folder = tmp_path_factory.mktemp("looks") / "<b>data&"
    for number, (run_number, checkpoint) in enumerate((r, c) for r in (1, 2) for c in (5, 10, 15)):
        write_part(
            folder, "Pong", f"rlu-{run_number}-{checkpoint:05d}", 4 * number, source="rlu", run=run_number,
            checkpoint=checkpoint, rom_md5=PONG_ROM, sticky=True, rewards="raw",
        )  # fmt: skip
    write_part(folder, "Boxing", "one", 0, source="mine", sticky=True, rewards="clipped", rom_md5="0" * 32)
    write_part(folder, "Boxing", "two", 4, source="<script>", sticky=False, rom_md5="1" * 32, protocol={"a_b": True})
    write_part(folder, "Freeway", "only", 1, (9,))
    return EpisodeStore(folder)


def test_the_numbers_are_the_datas(store):
    pong = overview(store, "Pong")
    table = store.tables["Pong"]
    assert (pong.parts, pong.episodes, pong.transitions) == (6, 24, 6 * sum(LENGTHS))
    files = [path for path in (store.folder / "Pong").rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert pong.bytes == sum(path.stat().st_size for path in files)
    assert pong.bytes_per_frame == pong.bytes / pong.transitions
    assert np.array_equal(pong.returns, table.returns)
    assert (pong.sticky, pong.roms, pong.sources) == ("yes", (PONG_ROM,), ("rlu",))
    boxing, freeway = overview(store, "Boxing"), overview(store, "Freeway")
    assert boxing.sticky == "mixed" and len(boxing.roms) == 2
    assert boxing.sources == ("<script>", "mine (clipped rewards)")
    assert (freeway.sticky, freeway.roms, freeway.sources) == ("unknown", (), ("unknown",))
    assert facts(store.parts("Pong"), "checkpoint") == [5, 10, 15] and facts(store.parts("Pong"), "nothing") == [None]
    assert is_packaged_rom("Pong", PONG_ROM) and not is_packaged_rom("Boxing", PONG_ROM)


def test_the_table_is_a_line_a_game_and_one_for_all(store):
    overviews = [overview(store, game) for game in store.games]
    lines = text_table(overviews).splitlines()
    assert len(lines) == 2 + len(store.games)
    pong = overviews[store.games.index("Pong")]
    low, mean, high = pong.returns.min(), pong.returns.mean(), pong.returns.max()
    cells = next(line for line in lines if line.startswith("Pong")).split()
    assert cells == [
        "Pong", "6", "24", "420", f"{pong.bytes / 1e6:.1f}", f"{pong.bytes / 420:.0f}", f"{low:.1f}", f"{mean:.1f}",
        f"{high:.1f}", "yes", PONG_ROM[:8], "rlu",
    ]  # fmt: skip
    boxing = next(line for line in lines if line.startswith("Boxing"))
    assert "mixed" in boxing and "2 ROMs" in boxing and boxing.endswith("<script>, mine (clipped rewards)")
    total = lines[-1].split()
    transitions = sum(one.transitions for one in overviews)
    assert total[:4] == ["all", "9", "33", f"{transitions}"]
    assert total[5] == f"{sum(one.bytes for one in overviews) / transitions:.0f}"
    # Words begin and numbers end in one column.
    assert all(line.startswith(word) for line, word in zip(lines, ("game", *store.games, "all"), strict=True))
    assert lines[0].index("sticky") == boxing.index("mixed")
    assert lines[0].index("transitions") + len("transitions") == boxing.index(" 140 ") + 4
    assert len(text_table(overviews[:1]).splitlines()) == 2


def test_returns_by_checkpoint_or_by_episode(store, tmp_path):
    table = store.tables["Pong"]
    over_time = returns_over_time(store, "Pong")
    assert over_time.axis == "checkpoint" and over_time.places.tolist() == [5, 10, 15]
    checkpoints = np.array([store.parts("Pong")[part].provenance["checkpoint"] for part in table.parts])
    for place, checkpoint in enumerate((5, 10, 15)):
        returns = table.returns[checkpoints == checkpoint]
        assert len(returns) == 2 * len(LENGTHS)
        assert over_time.mean[place] == pytest.approx(returns.mean())
        assert over_time.low[place] == pytest.approx(np.quantile(returns, 0.1))
        assert over_time.high[place] == pytest.approx(np.quantile(returns, 0.9))
    each = returns_over_time(store, "Boxing")
    assert each.axis == "episode" and each.places.tolist() == list(range(8))
    assert np.array_equal(each.mean, store.tables["Boxing"].returns)
    write_store(tmp_path, ("Pong",), (3,) * 90)
    spans = returns_over_time(EpisodeStore(tmp_path), "Pong")
    assert spans.places.tolist() == [3 * number + 1 for number in range(30)]
    returns = EpisodeStore(tmp_path).tables["Pong"].returns
    assert spans.mean == pytest.approx(returns.reshape(30, 3).mean(1))


def test_action_shares(store):
    shares = action_shares(store, "Pong")
    assert list(shares) == [ACTION_NAMES[number] for number in legal_actions("Pong")]
    actions = store.column("Pong", "actions")
    assert shares == {ACTION_NAMES[number]: np.mean(actions == number) for number in legal_actions("Pong")}
    assert sum(shares.values()) == pytest.approx(1)


def test_actions_that_are_not_legal_are_shown_too(tmp_path):
    with EpisodeWriter(tmp_path, "Freeway", provenance={}) as writer:
        frames, _, rewards = moving_square("Freeway", 0, 4)
        writer.append(frames, np.array([2, 2, 2, 5], np.uint8), rewards, terminated=True)
    np.save(tmp_path / "Freeway" / "part-00000" / "actions.npy", np.array([2, 2, 2, 17], np.uint8))
    assert action_shares(EpisodeStore(tmp_path), "Freeway") == {
        "NOOP": 0.0, "UP": 0.75, "DOWN": 0.0, "DOWNLEFTFIRE": 0.25,
    }  # fmt: skip


def test_a_contact_sheet_shows_the_frames(store):
    frames = store.read_frames("Pong", np.array([0, 5, 11]))
    with Image.open(io.BytesIO(contact_sheet(frames, scale=1, gap=4))) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (84, 3 * 84 + 2 * 4, 2)
    for number, frame in enumerate(frames):
        left = number * 88
        assert np.array_equal(pixels[:, left : left + 84, 0], frame) and (pixels[:, left : left + 84, 1] == 255).all()
    assert not pixels[:, 84:88, 1].any()


def test_the_page_is_whole_and_fetches_nothing(store):
    html = render(store)
    text = check(html).text
    flat = " ".join(text.split())
    for expected in (
        "Pong", "Boxing", "Freeway", "9 parts", "checkpoint, all runs together", "Every episode's", "Provenance",
        "rlu-2-00015", "5, 10, 15", f"{PONG_ROM}, as in ale-py", "mine (clipped rewards)", "<b>data&",
        "a b yes", store.fingerprint("Pong"), "(lowest return)", "(median return)", "(highest return)",
        "420 agent steps in 24 episodes; 6 of them stop before the game ended",
        "9 agent steps in 1 episode; all of them end with the game",
        "<script>", "RIGHTFIRE", "7 to 30 agent steps, 18 on average",
    ):  # fmt: skip
        assert expected in flat, expected
    assert "<script>" not in html and not re.search(r"\bnan\b", text)
    assert html.count("<svg") == 9
    table = store.tables["Pong"]
    best = int(table.returns.argmax())
    assert re.search(rf"Episode \d+ \(highest return\): {table.returns[best]:.0f} points", flat)


@pytest.mark.parametrize(("game", "rows"), [("Freeway", 1), ("Boxing", 3)])
def test_the_pages_pictures_are_frames_of_the_episodes_named(store, game, rows):
    html = render(EpisodeStore(store.folder, [game]))
    row = r'src="data:image/png;base64,([^"]+)".*?Episode (\d+)[^:]*: (\S+) points in (\d+)'
    shown = re.findall(row, html, re.DOTALL)
    assert len(shown) == rows == html.count("<img")
    table = store.tables[game]
    for address, number, points, length in shown:
        episode = int(number)
        assert float(points.replace("−", "-")) == table.returns[episode] and int(length) == table.lengths[episode]
        with Image.open(io.BytesIO(base64.b64decode(address))) as picture:
            pixels = np.asarray(picture)[::2, ::2, 0]
        frames = store.read_frames(game, table.starts[episode] + np.arange(table.lengths[episode]))
        for place, step in enumerate(np.linspace(0, len(frames) - 1, 8).round().astype(int)):
            assert np.array_equal(pixels[:, place * 88 : place * 88 + 84], frames[step])
    if rows == 3:
        returns = [table.returns[int(number)] for _, number, _, _ in shown]
        assert returns == [table.returns.min(), np.sort(table.returns)[len(table) // 2], table.returns.max()]


@pytest.fixture
def call(monkeypatch, capsys):
    """The entry point as its command line runs it: (exit code, stdout, stderr)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["jowa.data.inspect", *arguments])
        code = 0
        try:
            run(inspect.main, inspect.InspectConfig, "inspect")
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return call


def test_the_command_prints_the_table_and_writes_the_page_once(call, tiny_data: Path, tmp_path: Path):
    store = EpisodeStore(tiny_data)
    code, text, errors = call(f"path={tiny_data}")
    assert (code, errors) == (0, "") and text == text_table([overview(store, game) for game in store.games]) + "\n"
    out = tmp_path / "looks"
    code, text, _ = call(f"path={tiny_data}", "games=[Pong]", f"out={out}")
    assert code == 0 and f"{out / 'data.html'}" in text and "Breakout" not in text
    page = (out / "data.html").read_text()
    assert_refused(call(f"path={tiny_data}", f"out={out}"), "not overwritten", "out")
    assert (out / "data.html").read_text() == page == render(EpisodeStore(tiny_data, ["Pong"]))
    assert "Breakout" not in page


def test_mistakes_are_one_sentence(call, tiny_data: Path, tmp_path: Path):
    assert_refused(call(f"path={tmp_path}/nowhere"), "nowhere")
    assert_refused(call(f"path={tiny_data}", "games=[Boxing]"), "Boxing")
    assert_refused(call(f"path={tiny_data}", "games=[Boxign]"), "did you mean 'Boxing'?")
    assert_refused(call(f"path={tiny_data}", "games=[Pong,Pong]"), "games names a game twice")
    for missing in (f"path={tmp_path}/nowhere", f"path={tiny_data} games=[Boxing]"):
        _, _, errors = call(*missing.split())
        assert "set path to" in errors and "data.path" not in errors
    (tmp_path / "file").write_text("")
    assert_refused(call(f"path={tiny_data}", f"out={tmp_path}/file"), "out")
