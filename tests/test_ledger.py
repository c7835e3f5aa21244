"""The ledger and its folder: no finished episode is lost or played twice, no evaluation touches another one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jowa.errors import UserError
from jowa.evaluation.play.episode import Episode
from jowa.evaluation.play.ledger import Ledger, close_ledger, key_of, read_ledger
from jowa.evaluation.play.modes import share
from jowa.evaluation.results.folder import opened

EPISODES = [Episode("Pong", seed, mode, -21.0 + seed, 800 + seed, True, False) for mode in "ab" for seed in range(4)]
KEYS = [key_of(episode) for episode in EPISODES]


def keep(folder: Path, episodes: Sequence[Episode], rank: int = 0) -> None:
    ledger = Ledger(folder, rank)
    for episode in episodes:
        ledger.keep(episode)


def test_any_number_of_processes_in_any_order_leave_the_same_ledger(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "three").mkdir()
    keep(tmp_path / "one", EPISODES)
    for rank in (2, 0, 1):
        keep(tmp_path / "three", EPISODES[rank::3][::-1], rank)
    for folder in (tmp_path / "one", tmp_path / "three"):
        assert read_ledger(folder) == dict(zip(KEYS, EPISODES, strict=True))
        close_ledger(folder, KEYS)
        assert [path.name for path in folder.iterdir()] == ["episodes.jsonl"]
        assert list(read_ledger(folder).values()) == EPISODES
        close_ledger(folder, KEYS)
    one, three = ((tmp_path / name / "episodes.jsonl").read_bytes() for name in ("one", "three"))
    assert one == three and one.count(b"\n") == len(EPISODES)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_a_kill_within_a_line_costs_that_line_alone(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("killed")
    keep(folder, EPISODES)
    (path,) = folder.iterdir()
    content = path.read_bytes()
    cut %= len(content) + 1
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n") + (content[:cut].endswith(b"}"))
    assert list(read_ledger(folder).values()) == EPISODES[:whole]
    keep(folder, EPISODES[whole:])
    assert list(read_ledger(folder).values()) == EPISODES


@pytest.mark.parametrize("line", ['{"game": "Pong"}', '{"game": 1, "seed": 0}', "[1]}", "{}"])
def test_a_line_of_something_else_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "episodes.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=r"episodes.jsonl, line 1"):
        read_ledger(tmp_path)


def test_values_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    keep(tmp_path, EPISODES[:1])
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text().replace("800", '"800"'))
    with pytest.raises(UserError, match="line 1"):
        read_ledger(tmp_path)


@given(st.integers(1, 5), st.integers(0, 7), st.integers(0, 7))
def test_the_processes_share_all_episodes_evenly(ranks: int, pongs: int, boxings: int) -> None:
    seeds = {"Pong": list(range(pongs)), "Boxing": list(range(boxings))}
    shares = [share(seeds, rank, ranks) for rank in range(ranks)]
    for game, wanted in seeds.items():
        assert sorted(seed for one in shares for seed in one[game]) == wanted
    sizes = [sum(map(len, one.values())) for one in shares]
    assert max(sizes) - min(sizes) <= 1


def test_the_same_settings_go_on_in_the_unfinished_folder_and_no_others(tmp_path: Path) -> None:
    def folder(asked: dict, anew: bool = False) -> str:
        with opened(tmp_path, None, asked, anew) as found:
            return found.name

    one, other = {"seed": 0, "planner": {"width": 2}}, {"seed": 0, "planner": {"width": 3}}
    assert [folder(one), folder(other), folder(one), folder(one, anew=True)] == ["001", "002", "001", "003"]
    (tmp_path / "001" / "results.json").write_text("{}")
    assert [folder(one), folder(other)] == ["003", "002"]
    with opened(tmp_path, None, one, False) as held:
        assert held.name == "003" and folder(one) == "004", "one that is being worked on is left alone"
    assert not list(tmp_path.glob("*/.lock"))


def test_a_named_folder_is_new_or_the_same_evaluations(tmp_path: Path) -> None:
    out, same = tmp_path / "out", {"seed": 0, "protocol": {"frame_skip": 4}}

    def claim(asked: dict, anew: bool = False) -> None:
        with opened(tmp_path / "unused", str(out), asked, anew) as found:
            assert found == out

    claim(same)
    assert json.loads((out / "evaluation.json").read_text()) == same
    claim(same)
    with pytest.raises(UserError, match=r"differs in protocol\.frame_skip"):
        claim({"seed": 0, "protocol": {"frame_skip": 3}})
    with pytest.raises(UserError, match="isn't empty"):
        claim(same, anew=True)
    with opened(tmp_path, str(out), same, False), pytest.raises(UserError, match="another process"):
        claim(same)
    (out / "results.json").write_text("{}")
    with pytest.raises(UserError, match="isn't empty"):
        claim(same)
    assert not (tmp_path / "unused").exists()


def test_somebody_elses_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="isn't empty"), opened(tmp_path, str(tmp_path), {}, False):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="out"), opened(tmp_path / "file", None, {}, False):
        pass
