"""Reads a whole episode store and says whether it is what was written, and whether that makes sense.

    python -m jowa.data.verify path=data

Every file is compared with its checksum; every frame is read; actions must be the game's, rewards finite, ends at the
ends of games, returns the sums of rewards. The exit code is 2 when anything is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from jowa.cli import run
from jowa.data.store import check_stored_game
from jowa.data.verification import GameVerdict, games_in, transitions_in, verify_game
from jowa.errors import UserError


@dataclass(frozen=True)
class VerifyConfig:
    """path: the episode store. games: which games to check, all if empty."""

    path: str = "data"
    games: list[str] = field(default_factory=list)


def main(config: VerifyConfig) -> None:
    """Check all games, print what was found of each; UserError at the end if anything is wrong."""
    folder = Path(config.path)
    for game in config.games:
        check_stored_game(folder, game, "games")
    if len(set(config.games)) != len(config.games):
        raise UserError(f"games names a game twice: {', '.join(config.games)}.")
    games = games_in(folder, config.games)
    verdicts = []
    total = sum(transitions_in(folder, game) for game in games)
    with tqdm(total=total, unit="step", unit_scale=True, desc="verifying", dynamic_ncols=True) as bar:
        for game in games:
            bar.set_postfix_str(game)
            verdicts.append(verify_game(folder, game, bar.update))
            with bar.external_write_mode():
                print(describe(verdicts[-1]), flush=True)
    if sentences := _sentences(verdicts):
        raise UserError(" ".join(sentences))


def _sentences(verdicts: Sequence[GameVerdict]) -> list[str]:
    """What to do about what is damaged, and about what couldn't be read: that may be sound."""
    damaged = {verdict.game: len(verdict.problems) for verdict in verdicts if verdict.problems}
    unreadable = {verdict.game: len(verdict.unreadable) for verdict in verdicts if verdict.unreadable}
    found = []
    if problems := sum(damaged.values()):
        count = "1 problem" if problems == 1 else f"{problems} problems"
        remedy = "remove the parts they are in and record or import them again"
        found.append(f"{count} in {', '.join(damaged)}, listed above: {remedy}.")
    if files := sum(unreadable.values()):
        count = "1 file or folder" if files == 1 else f"{files} files and folders"
        remedy = "mend their permissions, or the disk, and verify again"
        found.append(f"{count} of {', '.join(unreadable)}, listed above, can't be read: {remedy}.")
    return found


def describe(verdict: GameVerdict) -> str:
    """A line about the game, one for each problem, and one if its parts are not alike."""
    counts = {"part": verdict.parts, "episode": verdict.episodes, "transition": verdict.transitions}
    found = ", ".join(f"{count:,} {name}{'' if count == 1 else 's'}" for name, count in counts.items())
    findings = (*verdict.problems, *verdict.unreadable)
    word = "damaged" if verdict.problems else "can't be read" if verdict.unreadable else "sound"
    lines = [f"{verdict.game:<17} {found}: {word}", *(f"  {finding}" for finding in findings)]
    if verdict.mixed:
        lines.append(f"  note: its parts differ in {', '.join(verdict.mixed)} (allow_mixed=true).")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main, VerifyConfig, "verify")
