"""What the planning benchmark measures against, counts and computes is what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from plan_counts import Operations, host_syncs, plan_operations, random_contexts, small_twin, token_operations
from plan_expanded import ExpandedDream
from plan_roofline import H200, Machine, Search, Sizes, ideal_seconds
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
