"""Selections: whole episodes of some runs, the same for the same seed, and training on nothing else."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import assert_refused
from tiny_store import GAMES, final_weights, moving_square, pretrain_config, pretrain_run

import jowa
from jowa import pretrain
from jowa.cli import load_config, run
from jowa.data import select
from jowa.data.selection import Rules, Selection, check_rules, choose, read_selection, write_selection
from jowa.data.sequences import SequenceDataset
from jowa.data.split import held_out_episodes
from jowa.data.store import EpisodeStore, EpisodeWriter
from jowa.errors import UserError
from jowa.models.agent_files import read_description
from jowa.training.checkpoint import latest_checkpoint

RUNS, CHECKPOINTS = (1, 2, 3), (1, 2, 10)
LENGTHS = (9, 14, 5, 21)
"""Agent steps of the episodes of each run's each checkpoint."""
EPISODES = len(RUNS) * len(CHECKPOINTS) * len(LENGTHS)
OF_ONE_RUN = len(CHECKPOINTS) * sum(LENGTHS)


def write_part(folder: Path, game: str, part: str, first: int, **provenance: object) -> None:
    with EpisodeWriter(folder, game, provenance=dict(provenance), part=part) as writer:
        for number, length in enumerate(LENGTHS, first):
            writer.append(*moving_square(game, number, length), terminated=True)


def write_runs(folder: Path, game: str) -> None:
    parts = [(run, checkpoint) for run in RUNS for checkpoint in CHECKPOINTS]
    for number, (run_number, checkpoint) in enumerate(parts):
        name = f"run{run_number}-{checkpoint:05d}"
        write_part(folder, game, name, number * len(LENGTHS), run=run_number, checkpoint=checkpoint)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two games of three runs of three checkpoints of four episodes."""
    folder = tmp_path_factory.mktemp("runs") / "data"
    for game in GAMES:
        write_runs(folder, game)
    return folder


@pytest.fixture(scope="module")
def store(folder: Path) -> EpisodeStore:
    return EpisodeStore(folder)


def provenance_of(store: EpisodeStore, game: str, key: str) -> np.ndarray:
    """Of every episode."""
    return np.array([store.parts(game)[part].provenance[key] for part in store.tables[game].parts])


@settings(max_examples=80, deadline=None)
@given(
    runs=st.sampled_from([1, 2, 3, None]),
    transitions=st.integers(1, 2 * OF_ONE_RUN),
    seed=st.integers(0, 2**40),
    replacement=st.booleans(),
)
def test_whole_episodes_of_the_chosen_runs_until_there_are_enough(store, runs, transitions, seed, replacement):
    rules = Rules(runs, transitions, seed, replacement)
    if runs == 1 and transitions > OF_ONE_RUN and not replacement:
        with pytest.raises(UserError, match=rf"transitions={transitions}, .* hold {OF_ONE_RUN}.*replacement=true"):
            choose(store, "Pong", rules)
        return
    chosen = choose(store, "Pong", rules)
    lengths = store.tables["Pong"].lengths[chosen.episodes]
    assert chosen.transitions == lengths.sum() >= transitions
    assert chosen.transitions - lengths.max() < transitions, "no episode more than it takes"
    assert set(chosen.runs) <= set(RUNS) and len(chosen.runs) == (runs or len(RUNS))
    assert set(provenance_of(store, "Pong", "run")[chosen.episodes]) <= set(chosen.runs)
    assert chosen.episodes.tolist() == sorted(chosen.episodes.tolist())
    if not replacement:
        assert chosen.distinct == len(chosen.episodes)


def test_every_run_checkpoint_and_episode_has_the_same_chance(store):
    """Of 600 seeds; one run of three, then about half of its episodes."""
    runs, episodes = Counter(), np.zeros(EPISODES)
    for seed in range(600):
        chosen = choose(store, "Pong", Rules(1, OF_ONE_RUN // 2, seed))
        runs.update(chosen.runs)
        episodes[chosen.episodes] += 1
    # Binomials: expected 200 and about 110, standard deviations 11.5 and 9.5.
    assert all(150 < runs[number] < 250 for number in RUNS)
    assert episodes.min() > 70 and episodes.max() < 150


def test_drawing_with_replacement_draws_every_episode_alike(store):
    counts = np.bincount(choose(store, "Pong", Rules(None, 200_000, 3, True)).episodes, minlength=EPISODES)
    expected = counts.sum() / EPISODES
    assert expected > 400
    # Chi-squared with 35 degrees of freedom exceeds 80 once in 50 000 times.
    assert ((counts - expected) ** 2 / expected).sum() < 80


def test_a_seed_means_the_same_whatever_other_games_there_are(folder, store):
    alone = EpisodeStore(folder, ["Pong"])
    rules = Rules(2, 100, seed=5)
    first, second = choose(store, "Pong", rules), choose(alone, "Pong", rules)
    assert first.runs == second.runs and first.episodes.tolist() == second.episodes.tolist()
    others = [choose(store, "Pong", replace(rules, seed=seed)) for seed in range(20)]
    assert len({(one.runs, tuple(one.episodes)) for one in others}) > 15
    assert first.episodes.tolist() != choose(store, "Breakout", rules).episodes.tolist()


def test_the_choice_never_changes(store):
    """A selection is named by its seed: these numbers may not change with a version of anything."""
    chosen = choose(store, "Pong", Rules(2, 100, seed=0))
    drawn = choose(store, "Pong", Rules(2, 100, seed=0, replacement=True))
    assert chosen.runs == drawn.runs == (2, 3)
    assert chosen.episodes.tolist() == [12, 13, 14, 18, 22, 26, 29, 30, 31, 35]
    assert drawn.episodes.tolist() == [15, 17, 19, 24, 27, 29]


def test_the_best_of_the_data(store):
    table = store.tables["Pong"]
    top = choose(store, "Pong", Rules(None, 100, quality="top"))
    rest = np.setdiff1d(np.arange(EPISODES), top.episodes)
    assert table.returns[top.episodes].min() >= table.returns[rest].max() and len(set(table.returns)) > 5
    checkpoints = provenance_of(store, "Pong", "checkpoint")
    last = choose(store, "Pong", Rules(None, 3 * sum(LENGTHS), quality="last"))
    assert set(checkpoints[last.episodes]) == {10} and len(last.episodes) == 3 * len(LENGTHS)
    more = choose(store, "Pong", Rules(2, 2 * sum(LENGTHS) + 1, quality="last"))
    assert sorted(checkpoints[more.episodes])[0] == 2 and len(more.episodes) == 2 * len(LENGTHS) + 1


def test_data_without_runs_and_checkpoints_are_one_run(tmp_path):
    write_part(tmp_path, "Pong", "a", 0)
    write_part(tmp_path, "Pong", "b", 4)
    store = EpisodeStore(tmp_path)
    chosen = choose(store, "Pong", Rules(1, 2 * sum(LENGTHS)))
    assert chosen.runs == (None,) and len(chosen.episodes) == 2 * len(LENGTHS)
    with pytest.raises(UserError, match="runs=2, but Pong has 1"):
        choose(store, "Pong", Rules(2, 10))
    with pytest.raises(UserError, match=r"quality=last needs checkpoints.*Pong"):
        choose(store, "Pong", Rules(1, 10, quality="last"))
    write_part(tmp_path, "Pong", "c", 8, run=7)
    assert choose(EpisodeStore(tmp_path), "Pong", Rules(2, 10)).runs == (7, None)


@pytest.mark.parametrize(
    ("rules", "key"),
    [
        (Rules(runs=0), "runs"),
        (Rules(transitions=0), "transitions"),
        (Rules(seed=-1), "seed"),
        (Rules(quality="best"), "quality"),
        (Rules(quality="top", replacement=True), "replacement=false"),
    ],
)
def test_rules_nothing_can_be_chosen_by(rules, key):
    with pytest.raises(UserError, match=key):
        check_rules(rules)


def save(store: EpisodeStore, path: Path, rules: Rules) -> Path:
    write_selection(path, Selection({game: choose(store, game, rules) for game in store.games}), {"seed": rules.seed})
    return path


@pytest.mark.parametrize("replacement", [False, True])
def test_a_file_holds_the_selection_and_is_not_overwritten(store, tmp_path, replacement):
    rules = Rules(2, 150, seed=1, replacement=replacement)
    path = save(store, tmp_path / "some.json", rules)
    selection = read_selection(path, store)
    for game in GAMES:
        chosen = choose(store, game, rules)
        assert selection.games[game].episodes.tolist() == chosen.episodes.tolist()
        assert selection.games[game].runs == chosen.runs and selection.games[game].transitions == chosen.transitions
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"out=.*not overwritten"):
        save(store, path, rules)
    assert path.read_bytes() == before == save(store, tmp_path / "again.json", rules).read_bytes()


def test_a_selection_of_other_data_is_refused(tmp_path):
    for game in GAMES:
        write_runs(tmp_path / "data", game)
    store = EpisodeStore(tmp_path / "data", ["Pong"])
    path = save(store, tmp_path / "some.json", Rules(2, 50))
    with pytest.raises(UserError, match=r"data\.selection=.* no episodes of Breakout.*data\.games"):
        read_selection(path, EpisodeStore(tmp_path / "data"))
    write_part(tmp_path / "data", "Breakout", "more", 50, run=1, checkpoint=50)
    read_selection(path, EpisodeStore(tmp_path / "data", ["Pong"]))
    write_part(tmp_path / "data", "Pong", "more", 50, run=1, checkpoint=50)
    with pytest.raises(UserError, match=r"data\.selection=.*other data of Pong.*jowa\.data\.select"):
        read_selection(path, EpisodeStore(tmp_path / "data", ["Pong"]))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path, content: path.unlink(),
        lambda path, content: path.write_text("{"),
        lambda path, content: path.write_text("[]"),
        lambda path, content: path.write_bytes(b"\xff\xfe\x00"),
        lambda path, content: path.write_text(json.dumps({**content, "format": 99})),
        lambda path, content: path.write_text(json.dumps({"format": 1})),
        lambda path, content: content["games"]["Pong"].pop("episodes") and path.write_text(json.dumps(content)),
        lambda path, content: content["games"]["Pong"].update(episodes=[0.5]) or path.write_text(json.dumps(content)),
        lambda path, content: content["games"]["Pong"].update(episodes=[]) or path.write_text(json.dumps(content)),
        lambda path, content: (
            content["games"]["Pong"].update(episodes=[EPISODES]) or path.write_text(json.dumps(content))
        ),
        lambda path, content: content["games"]["Pong"].update(episodes=[-1]) or path.write_text(json.dumps(content)),
        lambda path, content: content["games"]["Pong"]["episodes"].pop() and path.write_text(json.dumps(content)),
    ],
)
def test_a_file_that_is_no_selection_is_one_sentence(store, tmp_path, damage):
    path = save(store, tmp_path / "some.json", Rules(2, 100))
    damage(path, json.loads(path.read_text()))
    with pytest.raises(UserError, match=r"^data\.selection=.*python -m jowa\.data\.select"):
        read_selection(path, store)


@pytest.mark.parametrize("holdout", [0.0, 0.3])
@pytest.mark.parametrize("replacement", [False, True])
def test_training_takes_the_chosen_episodes_and_never_a_held_out_one(store, tmp_path, holdout, replacement):
    rules = Rules(2, 120, seed=4, replacement=replacement)
    selection = read_selection(save(store, tmp_path / "some.json", rules), store)
    training = SequenceDataset(store, split="training", holdout=holdout, stride=4, selection=selection)
    held_out = SequenceDataset(store, split="held_out", holdout=holdout, stride=4, selection=selection)
    for game in GAMES:
        lengths = store.tables[game].lengths
        kept_out = held_out_episodes(game, store.episode_names(game), holdout)
        expected = Counter(number for number in selection.games[game].episodes.tolist() if not kept_out[number])
        assert Counter(training.episodes[game].tolist()) == expected
        assert replacement == (max(expected.values()) > 1)
        assert held_out.episodes[game].tolist() == np.flatnonzero(kept_out).tolist()
        assert training.counts[game] == sum(-(-int(lengths[number]) // 4) * times for number, times in expected.items())
    # What the batches hold: every row of a chosen episode, as often as it was chosen, and no other.
    batch = training.batch(np.arange(len(training)))
    assert int(batch.valid[:, :4].sum()) == sum(summary.transitions for summary in training.describe())
    shares = {game: Counter() for game in GAMES}
    windows = training._index.locate(np.arange(len(training)))
    for position, game in enumerate(GAMES):
        mine = windows.games == position
        shares[game].update(windows.rows[mine][:, :4][windows.valid[mine][:, :4]].tolist())
        table = store.tables[game]
        rows = Counter()
        for number in training.episodes[game]:
            rows.update(range(table.starts[number], table.starts[number] + table.lengths[number]))
        assert shares[game] == rows


def test_a_selection_of_held_out_episodes_alone_is_refused(store, tmp_path):
    selection = read_selection(save(store, tmp_path / "some.json", Rules(1, 1)), store)
    kept_out = int(np.flatnonzero(held_out_episodes("Pong", store.episode_names("Pong"), 0.3))[0])
    one = replace(selection.games["Pong"], episodes=np.array([kept_out]))
    only = Selection({"Pong": one}, "some.json")
    with pytest.raises(UserError, match=r"some\.json has only held-out episodes of Pong.*data\.holdout"):
        SequenceDataset(store, ["Pong"], split="training", holdout=0.3, selection=only)


@pytest.fixture
def call(monkeypatch, capsys):
    """The entry point as its command line runs it: (exit code, stdout, stderr)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["jowa.data.select", *arguments])
        code = 0
        try:
            run(select.main, select.SelectConfig, "select")
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return call


def test_the_command_writes_what_it_prints(call, folder, store, tmp_path):
    out = tmp_path / "new" / "some.json"
    arguments = [f"path={folder}", "runs=2", "transitions=100", "seed=3", f"out={out}"]
    code, text, errors = call(*arguments)
    assert (code, errors) == (0, "") and f"data.selection={out}" in text
    content = json.loads(out.read_text())
    assert content["jowa_version"] == jowa.__version__
    assert content["settings"] == {
        "path": str(folder), "games": [], "runs": 2, "transitions": 100, "seed": 3, "replacement": False,
        "quality": "all",
    }  # fmt: skip
    for game in GAMES:
        entry, chosen = content["games"][game], choose(store, game, Rules(2, 100, 3))
        assert entry["fingerprint"] == store.fingerprint(game) and entry["runs"] == list(chosen.runs)
        assert entry["episodes"] == chosen.episodes.tolist() and entry["transitions"] == chosen.transitions
        (line,) = [line for line in text.splitlines() if line.startswith(game)]
        assert line.split()[1:] == [
            f"{chosen.runs[0]},", str(chosen.runs[1]), str(len(chosen.episodes)), str(EPISODES),
            str(chosen.transitions), str(store.transitions(game)),
        ]  # fmt: skip
    assert out.stat().st_size < 4000
    assert_refused(call(*arguments), "out=", "not overwritten")
    assert json.loads(out.read_text()) == content


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["games=[Pnog]"], ["'Pnog'", "Pong"]),
        (["games=[Boxing]"], ["Boxing", "set path to"]),
        (["transitions=0"], ["transitions"]),
        (["runs=4"], ["runs=4", "has 3"]),
        (["runs=1", "transitions=100000"], ["transitions=100000"]),
        (["quality=good"], ["quality"]),
        (["transitons=3"], ["'transitons'", "did you mean 'transitions'?"]),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(call, folder, tmp_path, arguments, words):
    out = tmp_path / "folder" / "some.json"
    assert_refused(call(f"path={folder}", f"out={out}", *arguments), *words)
    assert not out.parent.exists()


def test_a_run_trains_on_its_selection_and_resumes_with_no_other(folder, store, tmp_path):
    one, other = (save(store, tmp_path / f"{seed}.json", Rules(2, 120, seed)) for seed in (0, 1))
    # The same choice in a file of another name is the same data.
    again = save(store, tmp_path / "again.json", Rules(2, 120, 0))
    small = ["stage1.steps=2", "stage2.steps=0", "training.picture_every=100"]
    out = pretrain_run(folder, tmp_path / "run", *small, f"data.selection={one}")
    facts = read_description(latest_checkpoint(out))
    selection = read_selection(one, store)
    assert facts["selection"] == {game: selection.fingerprint(game) for game in GAMES}
    whole = pretrain_run(folder, tmp_path / "whole", *small)
    assert final_weights(whole) != final_weights(out)
    for changes in ([f"data.selection={other}"], []):
        with pytest.raises(UserError, match=r"data\.selection"):
            pretrain_run(folder, out, *small, "resume=auto", "stage1.steps=4", *changes)
    pretrain_run(folder, out, *small, "resume=auto", "stage1.steps=4", f"data.selection={again}")
    straight = pretrain_run(folder, tmp_path / "straight", *small, "stage1.steps=4", f"data.selection={one}")
    assert final_weights(out) == final_weights(straight)


def test_the_plan_tells_of_the_selection(folder, store, tmp_path, capsys):
    path = save(store, tmp_path / "some.json", Rules(2, 150, replacement=True))
    chosen = read_selection(path, store).games["Pong"]
    pretrain.main(pretrain_config(folder, tmp_path / "run", "dry_run=true", f"data.selection={path}"))
    text = capsys.readouterr().out
    episodes = f"{len(chosen.episodes)} episodes ({chosen.distinct} different ones)"
    assert f"selected: {episodes}, {chosen.transitions} transitions" in text
    with pytest.raises(UserError, match=r"data\.selection=nowhere can't be read \(there is no such file\)"):
        pretrain.main(pretrain_config(folder, tmp_path / "run", "dry_run=true", "data.selection=nowhere"))


def test_a_selection_that_does_not_fit_leaves_no_run(folder, tmp_path):
    config = load_config(
        pretrain.PretrainConfig, "pretrain",
        ["+exp=smoke", f"data.path={folder}", f"out={tmp_path}/run", "data.selection=nowhere"],
    )  # fmt: skip
    with pytest.raises(UserError, match=r"data\.selection=nowhere"):
        pretrain.main(config)
    assert not (tmp_path / "run").exists()
