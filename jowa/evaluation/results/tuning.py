"""The planner's context, width and horizon for each game, chosen on episodes that are never reported."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jowa.envs.protocol import ProtocolConfig
from jowa.errors import UserError
from jowa.evaluation.play.episode import Episode
from jowa.evaluation.play.ledger import read_ledger
from jowa.evaluation.play.modes import Planners, Seeds
from jowa.evaluation.results.reading import decode
from jowa.planning.config import PlannerConfig, check_planner

TUNED = "tuned.json"


@dataclass(frozen=True)
class Setting:
    """What is tuned: context in frames given, width in futures kept, horizon in agent steps looked ahead."""

    context: int
    width: int
    horizon: int

    @property
    def label(self) -> str:
        """Names the setting in the ledger."""
        return f"context {self.context}, width {self.width}, horizon {self.horizon}"

    @property
    def imagined(self) -> int:
        """Steps a decision imagines at most."""
        return self.width + (self.horizon - 1) * self.width**2

    def of(self, planner: PlannerConfig) -> PlannerConfig:
        """The planner with this setting."""
        return replace(planner, context=self.context, width=self.width, horizon=self.horizon)


@dataclass(frozen=True)
class Choice:
    """One game's setting, its mean raw return on the tuning episodes, and how many settings did equally well."""

    setting: Setting
    mean_return_points: float
    equals: int


@dataclass(frozen=True)
class Tuning:
    """What a tuning found, and on which episodes of which agent."""

    folder: str
    weights: str
    protocol: ProtocolConfig
    planner: PlannerConfig
    first_seed: int
    episodes: int
    games: Mapping[str, Choice]

    @property
    def seeds(self) -> range:
        """Those of each game's tuning episodes."""
        return range(self.first_seed, self.first_seed + self.episodes)

    def applied_to(self, planners: Planners, seeds: Seeds, blocks: int) -> dict[str, PlannerConfig]:
        """The games' planners with what was chosen for each, to play the episodes `seeds`.

        Raises:
            UserError: a game wasn't tuned, or an episode to be reported was one of those tuned on.
        """
        missing = [game for game in planners if game not in self.games]
        if missing:
            raise UserError(f"tuned={self.folder} knows {', '.join(self.games)}, not {missing[0]}: tune it too.")
        seen = sorted({seed for wanted in seeds.values() for seed in wanted} & set(self.seeds))
        if seen:
            raise UserError(
                f"tuned={self.folder} was chosen on the episodes {self.seeds[0]} to {self.seeds[-1]}, which can't be "
                f"reported too (episode {seen[0]}): choose another seed."
            )
        for key in ("name", "gamma", "use_termination", "tie_tolerance"):
            tuned = getattr(self.planner, key)
            differing = [value for planner in planners.values() if (value := getattr(planner, key)) != tuned]
            if differing:
                raise UserError(
                    f"tuned={self.folder} was chosen with planner.{key}={tuned}, not {differing[0]}: give the same, or "
                    "tune again."
                )
        chosen = {game: self.games[game].setting.of(planner) for game, planner in planners.items()}
        for planner in chosen.values():
            check_planner(planner, blocks)
        return chosen

    def facts(self, weights: str, protocol: ProtocolConfig, reported: Iterable[Episode]) -> dict[str, Any]:
        """For the results: on which episodes, whether of this very agent under these very rules, and how many of the
        episodes `reported` equal one tuned on in game, return and length. Different seeds alone make none differ.
        """
        tuned = {_outcome(one) for one in read_ledger(Path(self.folder)).values()}
        return {
            "first_seed": self.first_seed,
            "episodes": self.episodes,
            "same_weights": weights == self.weights,
            "same_protocol": protocol == self.protocol,
            "repeated_episodes": sum(_outcome(one) in tuned for one in reported),
        }


def grid(contexts: Sequence[int], widths: Sequence[int], horizons: Sequence[int], blocks: int) -> list[Setting]:
    """All combinations that fit into the model's `blocks` frames, those that imagine least first."""
    every = {Setting(context, width, horizon) for context in contexts for width in widths for horizon in horizons}
    fitting = [setting for setting in every if setting.context + setting.horizon <= blocks]
    return sorted(fitting, key=lambda setting: (setting.imagined, setting.context, setting.width))


def choose(returns: Mapping[Setting, Sequence[float]]) -> Choice:
    """The setting of the highest mean raw return; of equal ones the first, in the grid's order the cheapest."""
    means = {setting: float(np.mean(values)) for setting, values in returns.items()}
    best = max(means.values())
    winners = [setting for setting, mean in means.items() if mean == best]
    return Choice(winners[0], best, len(winners))


def read_tuning(path: Path) -> Tuning:
    """What `jowa.tune` wrote into a folder. Raises UserError when it isn't there, unfinished or damaged."""
    file = path / TUNED
    try:
        tuning: Tuning = decode(Tuning, json.loads(file.read_bytes()), "")
    except OSError as error:
        raise UserError(f"tuned={path} holds no {TUNED}: give the folder that jowa.tune printed.") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({error}): tune again.") from error
    return replace(tuning, folder=str(path))


def _outcome(episode: Episode) -> tuple[str, float, int]:
    return episode.game, episode.episode_return, episode.agent_steps
