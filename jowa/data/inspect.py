"""Shows what an episode store holds: a table, and with out= a page with returns, actions, pictures and provenance.

python -m jowa.data.inspect path=data
python -m jowa.data.inspect path=data 'games=[Pong]' out=looks/pong
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from jowa.cli import run
from jowa.data.overview import overview, text_table
from jowa.data.store import EpisodeStore, check_stored_game
from jowa.errors import UserError
from jowa.evaluation.pages.data_page import render
from jowa.files import require_writable_folder, write_text

PAGE = "data.html"


@dataclass(frozen=True)
class InspectConfig:
    """path: the episode store. games: of which games, all if empty. out: a folder for the page; null makes none."""

    path: str = "data"
    games: list[str] = field(default_factory=list)
    out: str | None = None


def check(config: InspectConfig) -> None:
    """Everything that can be refused before any file is read. Raises UserError."""
    for game in config.games:
        check_stored_game(config.path, game, "games")
    if config.out is not None and (Path(config.out) / PAGE).exists():
        raise UserError(f"{Path(config.out) / PAGE} is there already and is not overwritten: choose another out.")


def main(config: InspectConfig) -> None:
    """Print the table and, if asked to, write the page; UserError if the data can't be read."""
    check(config)
    store = EpisodeStore(config.path, config.games or None, path_key="path", games_key="games")
    print(text_table([overview(store, game) for game in store.games]))
    if config.out is not None:
        page = require_writable_folder(config.out, "out") / PAGE
        write_text(page, render(store))
        print(f"The page is in {page} now; open it in a browser.")


if __name__ == "__main__":
    run(main, InspectConfig, "inspect")
