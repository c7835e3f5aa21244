"""Selections: which episodes of a store to train on, kept as a list of episode numbers and never as a copy.

The paper trains on a tenth of what DQN-Replay has: of each game some runs, and of these whole episodes, drawn at random
over all checkpoints until there are about N transitions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import jowa
from jowa.data.store import EpisodeStore
from jowa.errors import UserError
from jowa.files import write_json

FORMAT = 1
QUALITIES = ("all", "last", "top")

Run = int | str | None
"""What a part's provenance calls its run; None where it names none."""


@dataclass(frozen=True)
class Rules:
    """How episodes are chosen, for each game alike.

    runs: how many of a game's runs, at random; null takes all. Data that name no run count as one. transitions: agent
    steps wanted; the episode that reaches them is kept whole and is the last. seed: the same one chooses the same
    episodes, whatever other games there are. replacement: an episode may be drawn more than once. quality: which come
    first: all (any, at random), last (of the latest checkpoints) or top (of the highest returns).
    """

    runs: int | None = 2
    transitions: int = 10_000_000
    seed: int = 0
    replacement: bool = False
    quality: str = "all"


@dataclass(frozen=True)
class GameSelection:
    """What was chosen of one game.

    Attributes:
        fingerprint: of the game's data, in which the numbers below mean something.
        runs: whose episodes were drawn.
        episodes: (n,) int64, ascending; an episode drawn twice is there twice.
        transitions: agent steps in all, repetitions counted.
    """

    fingerprint: str
    runs: tuple[Run, ...]
    episodes: NDArray[np.int64]
    transitions: int

    @property
    def distinct(self) -> int:
        """How many different episodes there are."""
        return len(np.unique(self.episodes))


@dataclass(frozen=True)
class Selection:
    """Chosen episodes of some games; `source` is the setting they come from, for messages."""

    games: Mapping[str, GameSelection]
    source: str = "data.selection"

    def check(self, store: EpisodeStore) -> None:
        """Raises UserError unless it has episodes of every game of the store, and the store still holds those."""
        for game in store.games:
            if game not in self.games:
                raise UserError(
                    f"{self.source} has no episodes of {game}: set data.games to games it has "
                    f"({', '.join(self.games)}), or select anew with `python -m jowa.data.select`."
                )
            if self.games[game].fingerprint != store.fingerprint(game):
                raise UserError(
                    f"{self.source} was made from other data of {game} than {store.folder} holds now: "
                    "select anew with `python -m jowa.data.select`, or set data.path to the data it was made from."
                )

    def fingerprint(self, game: str) -> str:
        """16 hexadecimal digits that change whenever another choice is made among the same data."""
        episodes = self.games[game].episodes.tolist()
        return hashlib.sha256(json.dumps([game, episodes]).encode()).hexdigest()[:16]


def check_rules(rules: Rules) -> None:
    """Raises UserError for rules nothing can be chosen by, naming the key."""
    for key, value in (("runs", rules.runs), ("transitions", rules.transitions)):
        if value is not None and value < 1:
            raise UserError(f"{key} must be at least 1, not {value}.")
    if rules.seed < 0:
        raise UserError(f"seed must not be negative, not {rules.seed}.")
    if rules.quality not in QUALITIES:
        raise UserError(f"quality must be one of {', '.join(QUALITIES)}, not '{rules.quality}'.")
    if rules.replacement and rules.quality != "all":
        raise UserError(f"quality={rules.quality} takes the best episodes in turn: set replacement=false with it.")


def choose(
    store: EpisodeStore, game: str, rules: Rules, among: NDArray[np.int64] | None = None,
    at_most: bool = False, prefix: str = "",
) -> GameSelection:  # fmt: skip
    """Choose whole episodes of a game until `rules.transitions` agent steps are reached.

    Args:
        store: where the episodes are.
        game: ALE name.
        rules: how they are chosen.
        among: (n,) the episodes to choose from, all if None.
        at_most: take all there are where they hold fewer transitions, instead of refusing.
        prefix: of the configuration's keys that hold the rules, for messages.

    Raises:
        UserError: the game has fewer runs than wanted, or they hold too few transitions; no checkpoints are known of
            them but quality=last asks for some.
    """
    table, parts = store.tables[game], store.parts(game)
    available: list[Run] = sorted({part.provenance.get("run") for part in parts}, key=_run_key)
    if rules.runs is not None and rules.runs > len(available):
        raise UserError(f"runs={rules.runs}, but {game} has {len(available)} in {store.folder}: set runs to less.")
    runs = sorted(available, key=lambda run: _lot(rules.seed, game, "run", run))[: rules.runs]
    in_runs = np.array([part.provenance.get("run") in runs for part in parts])
    candidates = np.flatnonzero(in_runs[table.parts])
    if among is not None:
        candidates = candidates[np.isin(candidates, among)]
    if rules.replacement:
        episodes = _draw(candidates, table.lengths, game, rules)
    elif at_most and table.lengths[candidates].sum() < rules.transitions:
        episodes = candidates
    else:
        ranked = candidates[_ranking(store, game, candidates, rules, prefix)]
        episodes = _take(ranked, table.lengths, game, rules)
    chosen = np.sort(episodes).astype(np.int64)
    return GameSelection(
        store.fingerprint(game), tuple(sorted(runs, key=_run_key)), chosen, int(table.lengths[chosen].sum())
    )


def _ranking(
    store: EpisodeStore, game: str, candidates: NDArray[np.int64], rules: Rules, prefix: str
) -> NDArray[np.int64]:
    """Positions of the candidates, the one to take first first."""
    table = store.tables[game]
    lots = np.array([_lot(rules.seed, game, "episode", number) for number in candidates.tolist()])
    if rules.quality == "top":
        return np.lexsort((lots, -table.returns[candidates]))
    if rules.quality == "last":
        checkpoints = [part.provenance.get("checkpoint") for part in store.parts(game)]
        of_candidates = [checkpoints[part] for part in table.parts[candidates].tolist()]
        if not all(isinstance(checkpoint, int) for checkpoint in of_candidates):
            raise UserError(
                f"{prefix}quality=last needs checkpoints, some data of {game} have none: set {prefix}quality=all or "
                "top."
            )
        return np.lexsort((lots, -np.array(of_candidates)))
    return np.argsort(lots)


def _take(ranked: NDArray[np.int64], lengths: NDArray[np.int64], game: str, rules: Rules) -> NDArray[np.int64]:
    reached = np.cumsum(lengths[ranked])
    if reached[-1] < rules.transitions:
        raise UserError(
            f"transitions={rules.transitions}, but the runs chosen of {game} hold {reached[-1]}: set transitions to "
            "less, runs to more, or replacement=true to draw episodes more than once."
        )
    return ranked[: np.searchsorted(reached, rules.transitions) + 1]


def _draw(candidates: NDArray[np.int64], lengths: NDArray[np.int64], game: str, rules: Rules) -> NDArray[np.int64]:
    drawn: list[int] = []
    transitions = 0
    while transitions < rules.transitions:
        lot = _lot(rules.seed, game, "draw", len(drawn))
        drawn.append(int(candidates[int(lot * len(candidates))]))
        transitions += int(lengths[drawn[-1]])
    return np.array(drawn, np.int64)


def write_selection(path: Path, selection: Selection, settings: Mapping[str, Any]) -> None:
    """Write a selection, with the settings it was made by, to a file that doesn't exist yet; UserError if it does."""
    if path.exists():
        raise UserError(f"out={path} is there already and is not overwritten: choose another out.")
    games = {
        game: {
            "fingerprint": chosen.fingerprint,
            "runs": list(chosen.runs),
            "transitions": chosen.transitions,
            "episodes": chosen.episodes.tolist(),
        }
        for game, chosen in selection.games.items()
    }
    write_json(path, {"format": FORMAT, "jowa_version": jowa.__version__, "settings": dict(settings), "games": games})


def read_selection(path: Path | str, store: EpisodeStore) -> Selection:
    """Read a selection of the store's episodes.

    Raises:
        UserError: there is no such file, it is no selection, or it doesn't fit the store (`Selection.check`).
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise UserError(
                f"data.selection={path} has format {content['format']}, this jowa reads format {FORMAT}: select anew "
                "with `python -m jowa.data.select`."
            )
        games = {game: _game_selection(entry) for game, entry in content["games"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else type(error).__name__
        raise UserError(
            f"data.selection={path} can't be read ({reason}): make it with `python -m jowa.data.select`."
        ) from error
    selection = Selection(games, f"data.selection={path}")
    selection.check(store)
    for game in store.games:
        chosen, lengths = games[game], store.tables[game].lengths
        inside = chosen.episodes.size and chosen.episodes.min() >= 0 and chosen.episodes.max() < len(lengths)
        if not inside or lengths[chosen.episodes].sum() != chosen.transitions:
            raise UserError(
                f"data.selection={path} contradicts itself about {game}: make it with `python -m jowa.data.select`."
            )
    return selection


def _game_selection(entry: Mapping[str, Any]) -> GameSelection:
    episodes = np.array(entry["episodes"])
    if episodes.ndim != 1 or not np.issubdtype(episodes.dtype, np.integer):
        raise ValueError("episodes must be a list of numbers")
    return GameSelection(
        str(entry["fingerprint"]), tuple(entry["runs"]), episodes.astype(np.int64), int(entry["transitions"])
    )


def _run_key(run: Run) -> tuple[bool, bool, int, str]:
    """Numbers in their order, then names, then none."""
    return run is None, isinstance(run, str), run if isinstance(run, int) else 0, str(run)


def _lot(seed: int, *subject: object) -> float:
    """A number in [0, 1) that looks random but is the same in every version of anything."""
    digest = hashlib.blake2b("/".join(map(str, (seed, *subject))).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2.0**53
