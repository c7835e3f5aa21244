"""Which planner plays, and how far it looks ahead."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from jowa.errors import UserError
from jowa.published_scores import PUBLISHED_SIZES, official_evaluation

# The model needs PyTorch, and commands that only name a planner start without it.
if TYPE_CHECKING:
    from jowa.models.world_action_model import ModelConfig

CHOICES = ("return", "value", "visits")
PLANNERS = ("greedy", "beam", "mcts", "published")


@dataclass(frozen=True)
class PlannerConfig:
    """A planner's settings; each uses those that name it, and greedy play `context` only.

    Attributes:
        name: greedy, beam, mcts or published. The last is beam search in which a width, horizon or context of 0 stands
            for what the paper's authors set for the game and the model's size.
        width: beam: futures kept.
        horizon: beam, mcts: agent steps looked ahead; 0 is greedy play (beam only).
        context: all: real frames the model is given, the present one included; fewer at an episode's start.
        gamma: beam, mcts: discount an agent step.
        use_termination: beam, mcts: no value after a predicted end; false is the published behaviour.
        tie_tolerance: beam: futures this close to the best (points of discounted return) count as equal to it, and Q
            decides.
        simulations: mcts: steps imagined a decision. A beam imagines at most width + (horizon - 1) * width ** 2.
        temperature: mcts: of the softmax of Q that is the first guess of which actions are worth trying.
        choice: mcts: the first action played is that of highest return, of highest value (published) or of most visits.
    """

    name: str = "beam"
    width: int = 2
    horizon: int = 2
    context: int = 6
    gamma: float = 0.99
    use_termination: bool = True
    tie_tolerance: float = 0.0
    simulations: int = 6
    temperature: float = 0.9
    choice: str = "return"

    @property
    def depth(self) -> int:
        """Agent steps that are imagined ahead: the horizon, or 0 for greedy play."""
        return 0 if self.name == "greedy" else self.horizon

    def for_game(self, model: ModelConfig, game: str) -> PlannerConfig:
        """The settings that one game is played with by a model of that size.

        Raises:
            UserError: the model doesn't know the game; the published settings are asked for, and there are none for
                the game or the size; or the settings can't work with the model's frames.
        """
        from jowa.models.world_action_model import check_game_fits

        check_game_fits(model, game)
        settings = self._published(model.name, game) if self.name == "published" else self
        check_planner(settings, model.blocks)
        return settings

    def _published(self, size: str, game: str) -> PlannerConfig:
        """What the paper's authors set, where nothing else is asked for."""
        games = official_evaluation(size)
        if game not in games:
            known = f"{size} models have them for {', '.join(games)}" if games else f"{', '.join(PUBLISHED_SIZES)} have"
            raise UserError(
                f"planner=published has no settings for {game} with a {size} model ({known}): choose another planner."
            )
        published = games[game]
        return replace(
            self,
            name="beam",
            width=self.width or published.width,
            horizon=self.horizon or published.horizon,
            context=self.context or published.context,
        )


def check_planner(config: PlannerConfig, blocks: int | None = None) -> None:
    """Refuse settings that cannot work, with a model of `blocks` frames where the model is known already.

    Raises:
        UserError: naming the key to change.
    """
    if config.name not in PLANNERS:
        raise UserError(f"planner.name={config.name} is unknown: choose one of {', '.join(PLANNERS)}.")
    if config.name == "published" and config.width and config.horizon and config.context:
        raise UserError(
            "planner.name=published has nothing published to take, since width, horizon and context are set: choose "
            "planner=published, which leaves them open, or planner=beam."
        )
    # The published settings are checked game by game, when they have taken the place of the zeros.
    least = 0 if config.name == "published" else 1
    if config.width < least:
        raise UserError(f"planner.width={config.width} keeps no future: set it to 1 or more.")
    if config.horizon < 0:
        raise UserError(f"planner.horizon={config.horizon} is negative: set it to 0 (greedy play) or more.")
    if config.context < least:
        raise UserError(f"planner.context={config.context} gives the model no frame to see: set it to 1 or more.")
    if not 0 <= config.tie_tolerance < math.inf:
        raise UserError(f"planner.tie_tolerance={config.tie_tolerance} is no tolerance: set it to 0 or more.")
    if not 0 < config.gamma <= 1:
        raise UserError(f"planner.gamma={config.gamma} is no discount: set it above 0 and at most 1.")
    _check_mcts(config)
    if blocks is not None:
        _check_frames(config, blocks)


def _check_mcts(config: PlannerConfig) -> None:
    """Refuse settings that cannot work with Monte Carlo tree search."""
    if config.simulations < 1:
        raise UserError(f"planner.simulations={config.simulations} imagines nothing: set it to 1 or more.")
    if not 1e-3 <= config.temperature <= 1e6:
        raise UserError(f"planner.temperature={config.temperature} is no temperature: set it within 0.001 and 1e6.")
    if config.choice not in CHOICES:
        raise UserError(f"planner.choice={config.choice} is unknown: choose one of {', '.join(CHOICES)}.")
    if config.name != "mcts":
        return
    if config.horizon < 1:
        raise UserError(
            f"planner.horizon={config.horizon} gives planner.name=mcts no step to imagine: set it to 1 or more, "
            f"or play greedily with planner=greedy."
        )
    if config.tie_tolerance != 0:
        raise UserError(
            f"planner.tie_tolerance={config.tie_tolerance} is for planner.name=beam only: set it to 0 with mcts."
        )


def _check_frames(config: PlannerConfig, blocks: int) -> None:
    """Refuse a context and an imagined future that are longer than the model's `blocks` frames."""
    if config.context > blocks:
        raise UserError(
            f"planner.context={config.context} is not possible: the model sees 1 to {blocks} frames, "
            f"set planner.context accordingly."
        )
    if config.depth >= blocks:
        raise UserError(
            f"planner.horizon={config.horizon} leaves no context: the model sees {blocks} frames in all, "
            f"set planner.horizon to at most {blocks - 1}."
        )
    if config.context + config.depth > blocks:
        raise UserError(
            f"planner.context={config.context} and planner.horizon={config.horizon} exceed the {blocks} frames the "
            f"model sees: set planner.context to at most {blocks - config.depth} or lower planner.horizon."
        )
