"""What an evaluation found, with everything needed to judge and repeat it, and its file."""

import dataclasses
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from jowa.errors import UserError
from jowa.evaluation.diagnostics.diagnostics import Diagnostics
from jowa.evaluation.diagnostics.q_calibration import QCalibration
from jowa.evaluation.diagnostics.world_model import WorldModelEvidence
from jowa.evaluation.play.episode import Episode
from jowa.evaluation.play.modes import NO_PLANNING, PLANNING
from jowa.evaluation.play.rollout import Rollout
from jowa.evaluation.results.labels import not_published
from jowa.evaluation.results.tuning_notes import tuning_warnings
from jowa.evaluation.statistics.improvement import Improvement
from jowa.evaluation.statistics.profiles import Profile, performance_profile
from jowa.evaluation.statistics.scores import (
    AggregateScore,
    BootstrapConfig,
    GameScore,
    aggregate_score,
    game_score,
    mostly_repeated,
)
from jowa.files import write_json
from jowa.games import ReferenceScores

_PACKAGES = ("jowa", "torch", "numpy", "scipy", "ale-py", "gymnasium", "matplotlib", "imageio-ffmpeg")


@dataclass(frozen=True)
class ModeResult:
    """One way of playing all games: "random", "no planning" or "planning". `planner` holds its settings."""

    mode: str
    planner: Mapping[str, Any]
    episodes: tuple[Episode, ...]
    games: tuple[GameScore, ...]
    human_normalised: AggregateScore | None
    dqn_normalised: AggregateScore | None
    decisions: int
    seconds: float
    decisions_per_second: float
    human_profile: Profile | None = None
    dqn_profile: Profile | None = None

    def game(self, name: str) -> GameScore | None:
        """The score of one game, None if it was not played."""
        return next((score for score in self.games if score.game == name), None)

    def of(self, game: str) -> list[Episode]:
        """One game's episodes."""
        return [episode for episode in self.episodes if episode.game == game]


@dataclass(frozen=True)
class DataScore:
    """The recorded data's finished episodes of one game: how many, their mean raw return, the best one's."""

    episodes: int
    mean: float
    maximum: float


@dataclass(frozen=True)
class Results:
    """An evaluation. `protocol`, `config` and `model` are plain mappings; `roms` maps games to their ROM's MD5,
    `environments` those that aren't Atari's to their description and their packages' versions.

    `weights` names the agent's weights (a hash), whatever folder they lie in; `unseen_games` are those it was never
    trained on. `held_out` says that the episodes the world model was measured on are known not to have trained it.

    `baselines` are published algorithms' mean raw returns by game, empty where one that was asked for has none;
    `improvements` compare the agent's best way of playing with its others and with them.

    `diagnostics` take the world model apart on the same episodes, None without any; `q_calibration` compares Q with
    what followed, in the play that was filmed and in recorded episodes.

    `tuning` says on which episodes the planner's settings were chosen; it is empty when they were given.

    `created` is an ISO time; `seed` that of each game's first episode; `wall_seconds` the whole evaluation's duration.
    """

    created: str
    command: str
    checkpoint: str
    model: Mapping[str, Any]
    protocol: Mapping[str, Any]
    config: Mapping[str, Any]
    seed: int
    bootstrap: BootstrapConfig
    modes: tuple[ModeResult, ...]
    data: Mapping[str, DataScore]
    references: Mapping[str, ReferenceScores]
    world_model: tuple[WorldModelEvidence, ...]
    roms: Mapping[str, str]
    versions: Mapping[str, str]
    wall_seconds: float
    held_out: bool = True
    environments: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    weights: str = ""
    unseen_games: tuple[str, ...] = ()
    baselines: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    improvements: tuple[Improvement, ...] = ()
    diagnostics: Diagnostics | None = None
    q_calibration: tuple[QCalibration, ...] = ()
    tuning: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The run's folder, else what was evaluated."""
        checkpoint = Path(self.checkpoint)
        named = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint
        return named.name or self.checkpoint

    @property
    def best(self) -> ModeResult | None:
        """The agent's own way of playing that counts: with planning, else without; None if only chance played."""
        return self.mode(PLANNING) or self.mode(NO_PLANNING)

    @property
    def games(self) -> tuple[str, ...]:
        """The games played, in order."""
        return tuple(dict.fromkeys(score.game for mode in self.modes for score in mode.games))

    @property
    def tuned(self) -> bool:
        """Whether it played with settings that were chosen on other episodes."""
        return bool(self.tuning) and self.mode(PLANNING) is not None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before believing the numbers."""
        repeated = self._where(_repeated)
        cut = self._where(_cut)
        lacking = [name for name, means in self.baselines.items() if not means]
        sentences = []
        if self.unseen_games:
            sentences.append(f"The agent was never trained on {', '.join(self.unseen_games)}.")
        if repeated:
            many = any(mostly_repeated(score) for mode in self.modes for score in mode.games)
            sentences.append(
                f"{'Many' if many else 'Some'} episodes equal an earlier one in return and length ({repeated}): "
                "play may have repeated itself, and the intervals then show less spread than independent episodes "
                "would. Sticky actions or no-op starts make episodes differ."
            )
        if self.tuned:
            sentences += tuning_warnings(self.tuning)
        if self.world_model and not self.held_out:
            sentences.append(
                "The world model was measured on all recorded episodes: nothing says whether it was trained on them."
            )
        if cut:
            sentences.append(f"Episodes were cut at the cap on their length, the game still going on ({cut}).")
        if lacking:
            sentences.append(not_published(lacking, self.games))
        return tuple(sentences)

    def _where(self, words: Callable[[GameScore, Sequence[Episode]], str]) -> str:
        """Ways of playing and games whose episodes are remarkable: "planning: Pong 9 of 16 distinct; random: …"."""
        parts = []
        for mode in self.modes:
            said = [(score.game, words(score, mode.of(score.game))) for score in mode.games]
            games = [f"{game} {text}" for game, text in said if text]
            parts += [f"{mode.mode}: {', '.join(games)}"] if games else []
        return "; ".join(parts)

    def mode(self, name: str) -> ModeResult | None:
        """One way of playing, None if it was not evaluated."""
        return next((mode for mode in self.modes if mode.mode == name), None)


def distinct_episodes(score: GameScore) -> str:
    """How many of a game's episodes differ in return or length, in words: "9 of 16"."""
    return f"{score.distinct} of {score.episodes}"


def score_mode(
    mode: str,
    planner: Mapping[str, Any],
    rollout: Rollout,
    references: Mapping[str, ReferenceScores],
    bootstrap: BootstrapConfig,
) -> ModeResult:
    """A rollout's episodes with their statistics."""
    by_game: dict[str, list[Episode]] = {}
    for episode in rollout.episodes:
        by_game.setdefault(episode.game, []).append(episode)
    returns = {game: [episode.episode_return for episode in episodes] for game, episodes in by_game.items()}
    return ModeResult(
        mode=mode,
        planner=planner,
        episodes=rollout.episodes,
        games=tuple(
            game_score(game, returns[game], [one.agent_steps for one in episodes], references.get(game), bootstrap)
            for game, episodes in by_game.items()
        ),
        human_normalised=aggregate_score(returns, references, "human", bootstrap),
        dqn_normalised=aggregate_score(returns, references, "dqn", bootstrap),
        decisions=rollout.decisions,
        seconds=rollout.seconds,
        decisions_per_second=rollout.decisions_per_second,
        human_profile=performance_profile(returns, references, "human", bootstrap),
        dqn_profile=performance_profile(returns, references, "dqn", bootstrap),
    )


def _repeated(score: GameScore, episodes: Sequence[Episode]) -> str:
    return f"{distinct_episodes(score)} distinct" if score.repeated else ""


def _cut(score: GameScore, episodes: Sequence[Episode]) -> str:
    number = sum(episode.truncated for episode in episodes)
    return f"{number} of {score.episodes}" if number else ""


def installed_versions() -> dict[str, str]:
    """Versions of Python, the machine's platform and the packages that decide results; absent ones are left out."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_results(path: Path, results: Results) -> None:
    """Writes results as JSON, whole or not at all.

    Raises:
        UserError: the file exists.
        ValueError: a number is not finite.
    """
    if path.exists():
        raise UserError(f"{path} exists and is not overwritten: move it away or evaluate into another folder.")
    write_json(path, content_of(results))


def content_of(results: Results) -> dict[str, Any]:
    """What results.json holds: all fields, and the warnings, which follow from them."""
    return {**plain(results), "warnings": list(results.warnings)}


def plain(value: Any) -> Any:
    """Dataclasses, mappings, sequences and NumPy values as dictionaries, lists and plain numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value) if isinstance(value, Path) else value
