"""What the planning benchmark measures against, counts and computes is what it says."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import imagine
from plan_counts import Operations, host_syncs, plan_operations, random_contexts, small_twin, token_operations
from plan_expanded import ExpandedDream
from plan_profile import shares
from plan_roofline import H200, Machine, Search, Sizes, ideal_seconds
from rounds import Rounds
from test_dream import make_model

from jowa.models.world_action_model import ModelConfig, WorldActionModel
from jowa.planning.beam_search import BeamSearch
from jowa.planning.tree_dream import TreeDream

BASE = ModelConfig(layers=12, heads=12, width=768, q_networks=3, q_width=1792)
"""The paper's 150M."""


@pytest.fixture(scope="module")
def narrow() -> WorldActionModel:
    """As many layers, heads and networks as 150M has."""
    with torch.device("meta"):
        base = WorldActionModel(BASE, 2048)
    return small_twin(base, torch.device("cpu"))


@pytest.mark.parametrize(("width", "horizon", "frames"), [(1, 3, 4), (2, 2, 6), (3, 3, 5)])
def test_expanded_caches_choose_as_the_tree_does(width: int, horizon: int, frames: int) -> None:
    model = make_model()
    expanded, planner = ExpandedDream(model), BeamSearch(width, horizon)
    for seed in range(2):  # the second plan in the first one's memory
        context, legal = random_contexts(model, 3, frames, seed)
        legal[0, 5:] = False
        found, expected = (planner.plan(dream, context, legal) for dream in (expanded, TreeDream(model)))
        assert found.actions.equal(expected.actions) and found.frames.equal(expected.frames)
        torch.testing.assert_close(found.scores, expected.scores)


def test_only_the_last_expansion_can_be_expanded() -> None:
    model = make_model()
    dream = ExpandedDream(model)
    context, _ = random_contexts(model, 1, 2)
    root = dream.reset(context).ids
    dream.expand(root, root)
    with pytest.raises(ValueError, match="last expansion"):
        dream.expand(root, root)


def test_operations_a_token_and_as_environments_grow(narrow: WorldActionModel) -> None:
    assert narrow.config.layers == 12
    assert 12 * 11 < token_operations(narrow, width=2, horizon=2, frames=3) <= 170
    assert len({plan_operations(narrow, count, 2, 2, 2).total() for count in (1, 2, 16)}) == 1


def test_operations_are_those_below_composite_ones_without_views() -> None:
    layer, x = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout()).eval(), torch.zeros(2, 3, 4)
    with torch.no_grad(), Operations() as operations:
        layer(x).flatten(1)[:, :2].unbind(0)
    assert operations.found == {"addmm": 1}


def test_a_plan_never_makes_the_host_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(codes=9)
    assert host_syncs(model, width=2, horizon=3, frames=2) == 0
    reset = TreeDream.reset.__wrapped__

    def waiting(self: TreeDream, *arguments: object) -> object:
        nodes = reset(self, *arguments)
        nodes.q[nodes.q > 0]
        return nodes

    monkeypatch.setattr(TreeDream, "reset", waiting)
    with pytest.raises(NotImplementedError, match="meta"):
        host_syncs(model, width=2, horizon=3, frames=2)


@pytest.mark.parametrize(("width", "table"), [(2, (305, 2276, 3359, 3810)), (4, (295, 1812, 2435, 2663))])
def test_the_ideal_is_the_specification_s_table(width: int, table: tuple[int, ...]) -> None:
    """Of 150M on an H200 with two steps ahead and 6 frames, for 1, 16, 64 and 256 environments."""
    with torch.device("meta"):
        sizes = Sizes.of(WorldActionModel(BASE, 2048), number_bytes=2)
    searches = [Search(environments, width, 2, 6) for environments in (1, 16, 64, 256)]
    found = [search.environments / ideal_seconds(sizes, search, H200) for search in searches]
    assert found == pytest.approx(table, rel=3e-3)


def test_bytes_or_arithmetic_whichever_takes_longer() -> None:
    assert Machine(bandwidth=10, flops=100).seconds(moved=20, done=100) == 2
    assert Machine(bandwidth=10, flops=100).seconds(moved=20, done=300) == 3


@pytest.mark.parametrize(
    ("benchmark", "options", "words"),
    [
        ("plan", "--horizon 3", "--horizon 3 together exceed the 8 frames"),
        ("plan", "--widths 2 0", "--widths: must be at least 1, not 0"),
        ("plan", "--widths 19", "--widths: 19 is more than the 18 actions"),
        ("draft", "--ckpt none --widths 19", "--widths: 19 is more than the 18 actions"),
        ("imagine", "--width 19", "--width: 19 is more than the 18 actions"),
        ("plan", "--environments 0", "--environments: must be at least 1"),
        ("plan", "--context 0", "--context: must be at least 1"),
        ("plan", "--rounds 0", "--rounds: must be at least 1"),
        ("plan", "--threads two", "--threads: must be a whole number, not 'two'"),
        ("plan", "--json {tmp}/nowhere/x.json", "--json: {tmp}/nowhere is no folder"),
        ("plan", "--json {tmp}/kept.json", "--json: {tmp}/kept.json is there already"),
        ("plan", "--device tpu", "--device=tpu is no device"),
        ("plan", "--backend indictor", "--backend indictor is none"),
        ("plan", "--flops 1e12", "--bandwidth and --flops go together"),
        ("plan", "--flops nan --bandwidth 1", "--flops: must be above 0 and finite, not nan"),
        ("draft", "--widths 0", "--widths: must be at least 1"),
        ("draft", "--ckpt {tmp}/nope", "{tmp}/nope"),
        ("draft", "--context 7", "--context 7 and 2 steps ahead exceed the 8 frames"),
        ("draft", "--rounds 0", "--rounds: must be at least 1"),
        ("draft", "--environments 0", "--environments: must be at least 1"),
        ("draft", "--rows -1", "--rows: must be at least 0, not -1"),
        ("imagine", "--ckpt {tmp}/nope", "{tmp}/nope"),
        ("imagine", "--horizon 8", "--horizon 8 leaves no frame"),
        ("imagine", "--rounds 0", "--rounds: must be at least 1"),
        ("imagine", "--singly 0", "--singly: must be at least 1"),
        ("imagine", "--uncached -1", "--uncached: must be at least 0"),
        ("imagine", "--starts 0", "--starts: must be at least 1"),
        ("train", "--batch 12 --micro 5", "--micro 5 must divide --batch 12"),
        ("train", "--batch 0", "--batch: must be at least 1"),
        ("train", "--device tpu", "--device=tpu is no device"),
        ("evaluate", "--ckpt {tmp}/nope", "{tmp}/nope"),
        ("evaluate", "--ckpt {tmp}/nope nonsense=1", "Unknown configuration key 'nonsense'"),
        ("evaluate", "--ckpt x --episodes 2 --commands 3", "--commands 3 is more than --episodes 2"),
        ("adapt", "--models 41M", "--models: invalid choice: '41M'"),
        ("adapt", "--models nano --rank 5000", "--rank 5000 is more than the trunk's width"),
        ("data", "--out {tmp}/kept.json", "--out: {tmp}/kept.json is a file"),
        ("data", "--out {tmp} --seconds 0", "--seconds: must be above 0"),
        ("data_scale", "--frames {tmp}/nope", "set --frames to the folder"),
    ],
)
def test_options_that_cannot_work_are_refused_in_a_sentence(
    benchmark: str, options: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kept.json").touch()
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(benchmark).main(options.format(tmp=tmp_path).split())
    said = capsys.readouterr()
    assert ended.value.code == 2 and not said.out, "nothing was measured"
    assert words.format(tmp=tmp_path) in said.err.splitlines()[-1]


def test_no_more_starts_are_counted_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """In two starts a second the speeds tell through how many of them a way went."""
    monkeypatch.setattr(Rounds, "median", lambda self, name: 1.0)
    monkeypatch.setattr(Rounds, "times", lambda self, name, *others: 1.0)
    model = make_model(codes=4, blocks=4)
    asked = {"dreamed": 5, "drafted": 1, "uncached": 3}
    found = imagine.compare(model, *random_contexts(model, 2, 3), BeamSearch(2, 1), asked, 1)
    for name, gone_through in {"dreamed": 2, "drafted": 1, "uncached": 2}.items():
        assert found[f"sequences/s {name}"] == gone_through
        assert found[f"{name}, times at once"] == 2 / gone_through
        assert found[f"equal codes, {name}"] == f"{4 * gone_through} of {4 * gone_through}"


def test_shares_of_a_plan_s_seconds_name_its_operations() -> None:
    model = make_model(codes=4, blocks=4)
    context, legal = random_contexts(model, 2, 3)
    found = shares(lambda: BeamSearch(2, 1).plan(TreeDream(model), context, legal), 2, torch.device("cpu"))
    assert sum(found.values()) == pytest.approx(1)
    assert set(found) == {"matrix products", "attention", "between operations", "other operations"}
    assert min(found.values()) > 0
