"""Importing local files into an episode store, a part for each file or checkpoint.

What the store has already is left alone, so an import that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import MISSING
from tqdm import tqdm

from jowa.data.ranges import numbers
from jowa.data.sources.jobs import Outcome, Task, carry_out
from jowa.data.sources.local import LAYOUTS, SOURCES, Unit, Wish, find
from jowa.errors import UserError
from jowa.files import require_writable_folder
from jowa.games import check_game


@dataclass(frozen=True)
class ImportConfig:
    """What to import. It stands here, not beside `main`, since no module can import one that is named `import`.

    source: rlu (RL Unplugged), dqn_replay (Dopamine's logs) or minari. path: the folder with the games' folders, or a
    Minari data set's folder or id. games, runs, checkpoints: which; numbers or ranges such as 1-5; null means all that
    are found. out: the episode store. workers: processes, one game and run a task; 0 imports in this process.
    keep_stack_padding: leave the three black frames before each of dqn_replay's episodes. allow_mixed: add to episodes
    that come from another ROM or other rules. rom_md5, sticky: facts about the game that was played, for the manifest;
    null takes what the source says of itself.
    """

    source: str = MISSING
    path: str = MISSING
    games: list[str] | None = None
    runs: list[str] | None = None
    checkpoints: list[str] | None = None
    out: str = "data"
    workers: int = 0
    keep_stack_padding: bool = False
    allow_mixed: bool = False
    rom_md5: str | None = None
    sticky: bool | None = None


def import_all(config: ImportConfig) -> tuple[Outcome, tuple[str, ...]]:
    """Import what is there of what was asked for.

    Returns:
        What became of it, and the names of what is missing.

    Raises:
        UserError: the configuration makes no sense, nothing of it is there, a file can't be read, or what the store
            has is not to be mixed with it. Parts that were finished before stay.
    """
    findings = find(_wish(config))
    if not findings.jobs:
        missing = _some(findings.missing or (config.path,))
        layout = LAYOUTS[config.source]
        raise UserError(f"There is nothing to import; missing: {missing}: set path to the folder that has {layout}.")
    jobs = [[_with_facts(unit, config) for unit in job] for job in findings.jobs]
    store = require_writable_folder(Path(config.out).expanduser(), "out")
    task = Task(config.source, store, config.keep_stack_padding, config.allow_mixed)
    with tqdm(total=sum(map(len, jobs)), unit="part", desc="importing", dynamic_ncols=True, disable=None) as bar:
        outcome = carry_out(task, jobs, config.workers, bar.update)
    return outcome, findings.missing


def describe(outcome: Outcome) -> str:
    """A table of what was added to each game, and what else is worth knowing."""
    lines = [f"{'game':<18}{'parts':>8}{'episodes':>10}{'transitions':>13}{'mean return':>13}"]
    for game in dict.fromkeys(game for game, _ in outcome.added):
        parts = [added for of_game, added in outcome.added if of_game == game and added.episodes]
        episodes = sum(part.episodes for part in parts)
        mean = sum(part.mean_return * part.episodes for part in parts) / max(episodes, 1)
        transitions = sum(part.transitions for part in parts)
        lines.append(f"{game:<18}{len(parts):>8}{episodes:>10}{transitions:>13}{mean:>13.1f}")
    if not outcome.added:
        lines = ["Nothing was added."]
    if outcome.there:
        lines.append(f"{outcome.there} parts were there already.")
    return "\n".join([*lines, *(f"note: {note}" for note in outcome.notes)])


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _wish(config: ImportConfig) -> Wish:
    if config.source not in SOURCES:
        raise UserError(f"source must be one of {', '.join(SOURCES)}, not {config.source}.")
    if config.workers < 0:
        raise UserError(f"workers must not be negative, not {config.workers}.")
    games = config.games
    if games is not None and (not games or len(set(games)) != len(games)):
        raise UserError(f"games must name at least one game and none twice, or be null for all, not {games}.")
    for game in games or ():
        check_game(game, "games")
    if config.rom_md5 is not None and not re.fullmatch(r"[0-9a-f]{32}", config.rom_md5):
        raise UserError(f"rom_md5 must be 32 hexadecimal digits in lower case, not {config.rom_md5}.")
    if config.rom_md5 is not None and len(games or ()) != 1:
        raise UserError("rom_md5 is that of one game: set games to that one.")
    if config.source == "minari" and not (config.runs is None and config.checkpoints is None):
        raise UserError("Minari data sets have neither runs nor checkpoints: leave both out.")
    return Wish(
        config.source,
        Path(config.path).expanduser(),
        None if games is None else tuple(games),
        None if config.runs is None else numbers("runs", config.runs),
        None if config.checkpoints is None else numbers("checkpoints", config.checkpoints),
        config.keep_stack_padding,
    )


def _with_facts(unit: Unit, config: ImportConfig) -> Unit:
    given = {"rom_md5": config.rom_md5, "sticky": config.sticky}
    return replace(unit, provenance={**unit.provenance, **{k: fact for k, fact in given.items() if fact is not None}})
