"""Play that is measured: every way of playing through all episodes, kept in a folder, whatever interrupts it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jowa import __version__
from jowa.envs.environments import identity
from jowa.evaluation.play.ledger import Ledger, close_ledger, key_of, read_ledger
from jowa.evaluation.play.modes import Planners, Rules, Seeds, play_shared
from jowa.evaluation.play.rollout import Rollout
from jowa.models.agent_files import Agent, weights_hash
from jowa.training.distribution import Distribution
from jowa.training.new_game import trained_games


@dataclass(frozen=True)
class Wanted:
    """What shall be played: each way of playing with its games' planners, each game's seeds, and the rules."""

    planners: Mapping[str, Planners]
    seeds: Seeds
    rules: Rules

    def what_decides(self, agent: Agent) -> dict[str, Any]:
        """All that the episodes depend on: by it an interrupted evaluation is known again."""
        return {
            "jowa": __version__,
            "weights": weights_hash(agent),
            "seeds": {game: list(wanted) for game, wanted in self.seeds.items()},
            "protocol": asdict(self.rules.protocol),
            "precision": self.rules.execution.precision,
            "planners": {
                mode: {game: asdict(planner) for game, planner in own.items()} for mode, own in self.planners.items()
            },
            "environments": {game: identity(game, self.rules.protocol) for game in self.seeds},
        }


def play_wanted(agent: Agent, wanted: Wanted, folder: Path, distribution: Distribution) -> dict[str, Rollout]:
    """Every way of playing, without the episodes that the folder's ledger has already; all processes get all of them.

    The folder's ledger is whole then. The agent is on the distribution's device.
    """
    kept = distribution.from_main(lambda: read_ledger(folder))
    if kept and distribution.is_main:
        print(f"Going on in {folder}: {len(kept)} episodes are there already.", file=sys.stderr)
    ledger = Ledger(folder, distribution.rank)
    with _told_what_is_kept(folder, distribution):
        rollouts = {}
        for mode, planners in wanted.planners.items():
            rollouts[mode] = play_shared(mode, agent, wanted.seeds, planners, wanted.rules, distribution, kept, ledger)
            kept = kept | {key_of(episode): episode for episode in rollouts[mode].episodes}
    keys = [(mode, game, seed) for mode in wanted.planners for game, own in wanted.seeds.items() for seed in own]
    distribution.on_main(lambda: close_ledger(folder, keys))
    return rollouts


@contextlib.contextmanager
def _told_what_is_kept(folder: Path, distribution: Distribution) -> Iterator[None]:
    """Says on Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        if distribution.is_main:
            kept = len(read_ledger(folder))
            print(f"\n{kept} finished episodes are kept in {folder}; the same command goes on.", file=sys.stderr)
        raise


def unseen_games(agent: Agent, games: Sequence[str]) -> tuple[str, ...]:
    """The games that the agent was never trained on, as far as it is known what it was trained on."""
    trained = trained_games(agent)
    return tuple(game for game in games if trained and game not in trained)
