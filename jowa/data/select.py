"""Chooses which episodes of a store to train on and writes their numbers into a file; nothing is copied.

    python -m jowa.data.select path=data runs=2 transitions=10000000 out=tenth.json
    python -m jowa.pretrain +exp=atari15 data.path=data data.selection=tenth.json

Of every game `runs` of the runs are chosen at random and their episodes, of all checkpoints, shuffled; whole ones are
taken until there are `transitions` agent steps. Those that training holds out (data.holdout) are not trained on though
they be chosen.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from jowa.cli import run
from jowa.data.selection import GameSelection, Rules, Selection, check_rules, choose, write_selection
from jowa.data.store import EpisodeStore, check_stored_game
from jowa.errors import UserError
from jowa.files import require_writable_folder


@dataclass(frozen=True)
class SelectConfig(Rules):
    """path: the episode store. games: of which games, all if empty. out: the file to write. And the rules."""

    path: str = "data"
    games: list[str] = field(default_factory=list)
    out: str = "???"


def check(config: SelectConfig) -> None:
    """Everything that can be refused before any file is read. Raises UserError."""
    for game in config.games:
        check_stored_game(config.path, game, "games")
    check_rules(config)
    if Path(config.out).exists():
        raise UserError(f"out={config.out} is there already and is not overwritten: choose another out.")


def main(config: SelectConfig) -> None:
    """Choose, write the selection, print a table; UserError if the store has too little to choose from."""
    check(config)
    store = EpisodeStore(config.path, config.games or None, path_key="path", games_key="games")
    chosen = {game: choose(store, game, config) for game in store.games}
    out = Path(config.out)
    require_writable_folder(out.parent, "out")
    settings = {key: value for key, value in asdict(config).items() if key != "out"}
    write_selection(out, Selection(chosen), settings)
    print(table(store, chosen))
    print(f"They are in {out} now; train on them by: data.path={config.path} data.selection={out}")


def table(store: EpisodeStore, chosen: dict[str, GameSelection]) -> str:
    """What was chosen, as text."""
    width = max(18, *(len(game) + 1 for game in chosen))
    lines = [f"{'game':<{width}}{'runs':>12}{'episodes':>12}{'of':>9}{'transitions':>14}{'of':>13}"]
    for game, one in chosen.items():
        runs = ", ".join("-" if name is None else str(name) for name in one.runs)
        lines.append(
            f"{game:<{width}}{runs:>12}{len(one.episodes):>12,}{len(store.tables[game]):>9,}"
            f"{one.transitions:>14,}{store.transitions(game):>13,}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run(main, SelectConfig, "select")
