"""Which planner plays, and how far it looks ahead."""

from __future__ import annotations

from dataclasses import dataclass

from jowa.errors import UserError
from jowa.planning.beam_search import BeamSearch
from jowa.planning.greedy import Greedy
from jowa.planning.planner import Planner

PLANNERS = ("greedy", "beam")


@dataclass(frozen=True)
class PlannerConfig:
    """A planner's settings.

    Attributes:
        name: greedy or beam. Greedy play uses `context` only.
        width: futures the beam keeps.
        horizon: agent steps the beam looks ahead; 0 is greedy play.
        context: real frames the model is given, the present one included; fewer at an episode's start.
        gamma: discount an agent step.
        respect_termination: no value after a predicted end; false is the published behaviour.
        tie_tolerance: futures this close to the best (points of discounted return) count as equal to it, and Q decides.
    """

    name: str = "beam"
    width: int = 2
    horizon: int = 2
    context: int = 6
    gamma: float = 0.99
    respect_termination: bool = True
    tie_tolerance: float = 0.0

    @property
    def depth(self) -> int:
        """Agent steps that are imagined ahead: the horizon, or 0 for greedy play."""
        return 0 if self.name == "greedy" else self.horizon


def check_planner(config: PlannerConfig, blocks: int = 8) -> None:
    """Refuse settings that cannot work with a model of `blocks` frames.

    Raises:
        UserError: naming the key to change.
    """
    if config.name not in PLANNERS:
        raise UserError(f"planner.name={config.name} is unknown: choose one of {', '.join(PLANNERS)}.")
    if config.width < 1:
        raise UserError(f"planner.width={config.width} keeps no future: set it to 1 or more.")
    if config.horizon < 0:
        raise UserError(f"planner.horizon={config.horizon} is negative: set it to 0 (greedy play) or more.")
    if config.tie_tolerance < 0:
        raise UserError(f"planner.tie_tolerance={config.tie_tolerance} is negative: set it to 0 or more.")
    if not 0 < config.gamma <= 1:
        raise UserError(f"planner.gamma={config.gamma} is no discount: set it above 0 and at most 1.")
    if not 1 <= config.context <= blocks:
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


def make_planner(config: PlannerConfig) -> Planner:
    """The planner a checked configuration names."""
    if config.name == "greedy":
        return Greedy()
    return BeamSearch(config.width, config.horizon, config.gamma, config.respect_termination, config.tie_tolerance)
