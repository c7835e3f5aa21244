"""Exports a game's episodes for other programs: `python -m jowa.data.export path=data game=Pong dataset=jowa/pong-v0`.

A Minari data set keeps every frame as it is; `python -m jowa.data.import source=minari` gives the same episodes again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING
from tqdm import tqdm

from jowa.cli import run
from jowa.data.sources.minari import import_minari
from jowa.data.sources.minari_export import check_name, export_minari
from jowa.data.store import EpisodeStore, check_stored_game
from jowa.errors import UserError
from jowa.files import require_writable_folder


@dataclass(frozen=True)
class ExportConfig:
    """What to export.

    to: minari. path: the episode store. game: ALE name. dataset: the id it gets, `<any>/<words>-v<number>`. out: the
    folder for Minari data sets.
    """

    to: str = "minari"
    path: str = "data"
    game: str = MISSING
    dataset: str = MISSING
    out: str = "minari"


def main(config: ExportConfig) -> None:
    """Write the data set and say where it is."""
    if config.to != "minari":
        raise UserError(f"to must be minari, not {config.to}.")
    check_name(config.dataset)
    store = EpisodeStore(config.path, [check_stored_game(config.path, config.game)], path_key="path")
    import_minari()
    # Minari joins relative paths twice.
    out = require_writable_folder(Path(config.out).expanduser(), "out").absolute()
    episodes = len(store.tables[config.game])
    with tqdm(total=episodes, unit="episode", desc="exporting", dynamic_ncols=True, disable=None) as bar:
        folder = export_minari(store, config.game, config.dataset, out, bar.update)
    print(f"{episodes} episodes, {store.transitions(config.game)} transitions of {config.game}: {folder}")


if __name__ == "__main__":
    run(main, ExportConfig, "data_export")
