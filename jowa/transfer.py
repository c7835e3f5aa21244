"""What transfers: finetune on one game from a checkpoint, from its tokenizer alone and from scratch, and compare.

    python -m jowa.transfer game=Pong ckpt=runs/demo

All runs get equal steps and data; each is an ordinary finetuning run in <out>/<arm>-seed<n>. An interrupted comparison
goes on when it is started again, and finished runs aren't repeated. Prints a table, and writes transfer.json,
transfer.csv and transfer.html into <out>/comparisons/<n>.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from jowa import finetune
from jowa.cli import run
from jowa.errors import Interrupted, UserError
from jowa.evaluation.pages.transfer_page import render, table
from jowa.evaluation.results.results import installed_versions
from jowa.evaluation.results.transfer_results import (
    RunRecord,
    Transfer,
    compare_runs,
    costs,
    data_of,
    metrics_of,
    new_comparison_folder,
    read_run,
    write_numbers,
)
from jowa.files import write_text
from jowa.finetune import STAGE, FinetuneConfig
from jowa.models.agent_files import read_description
from jowa.resuming import check_same, flatten, newest_config
from jowa.training.checkpoint import Place, list_checkpoints
from jowa.training.distribution import distributed, rank_and_ranks
from jowa.training.fresh_start import STARTS, check_fresh, check_start
from jowa.training.new_game import find_game, open_episodes
from jowa.training.run_folder import alone_in, looked_at, prepare_run_folder
from jowa.training.stage_data import describe_choice
from jowa.training.starting_point import open_agent

MEASURED = re.compile(r"ckpt|evaluation\.\w+|training\.(look_first|validate_every|validation_sequences)")
"""Keys that a run may change when it goes on, but not within a comparison."""


@dataclass(frozen=True)
class TransferConfig(FinetuneConfig):
    """Finetuning's settings, which hold for all runs, and which runs there are: one for each of `arms` and `seeds`.

    arms: what runs start from (finetuning's `start`): pretrained, tokenizer, scratch. resume: auto goes on with the
    comparison in `out` if it holds one; further seeds and arms may then be added.
    """

    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    arms: list[str] = field(default_factory=lambda: list(STARTS))


@dataclass(frozen=True)
class Basis:
    """What all runs share.

    Attributes:
        game: its name.
        blocks: the model's frames a sequence.
        fingerprint: of the game's data.
        episodes: which of them training reads, in words.
    """

    game: str
    blocks: int
    fingerprint: str
    episodes: str


def check(config: TransferConfig) -> None:
    """Everything that can be refused before any work. Raises UserError."""
    for arm in config.arms:
        check_start(arm, "arms")
        check_fresh(arm, config.finetune, config.stage)
    for key, values in (("arms", config.arms), ("seeds", config.seeds)):
        if not values:
            raise UserError(f"There is nothing to compare: {key} is empty.")
        if len(set(values)) != len(values):
            raise UserError(f"{key} names one twice: {', '.join(map(str, values))}.")
    if min(config.seeds) < 0:
        raise UserError(f"seeds must not be negative, but are {', '.join(map(str, config.seeds))}.")
    if (config.seed, config.start) != (0, "pretrained"):
        raise UserError("Every run of a comparison has its own seed and start: set seeds and arms instead.")
    if config.evaluation.every == 0 and config.data.holdout == 0:
        raise UserError(
            "There would be nothing to compare: set evaluation.every above 0 to play, or data.holdout above 0 to "
            "measure on held-out episodes."
        )
    finetune.check(finetune_config(config, config.arms[0], config.seeds[0]))


def runs_of(config: TransferConfig) -> Iterator[tuple[str, int]]:
    """(arm, seed) of all runs: seed by seed, so that what is interrupted has whole comparisons."""
    return ((arm, seed) for seed in config.seeds for arm in config.arms)


def finetune_config(config: TransferConfig, arm: str, seed: int) -> FinetuneConfig:
    """The configuration of one run."""
    shared = {part.name: getattr(config, part.name) for part in fields(FinetuneConfig)}
    out = str(Path(config.out) / f"{arm}-seed{seed}")
    return FinetuneConfig(**shared | {"out": out, "resume": "auto", "seed": seed, "start": arm})


def is_finished(config: FinetuneConfig, basis: Basis) -> bool:
    """Whether the run is done and has been measured at its end. Raises UserError for one of other settings or data."""
    folder = Path(config.out)
    path = newest_config(folder)
    if path is None:
        return False
    saved: Any = OmegaConf.to_container(OmegaConf.load(path))
    ours, theirs = flatten(asdict(config)), flatten(saved)
    check_same(folder, theirs, ours)
    differing = [key for key in ours if MEASURED.fullmatch(key) and ours[key] != theirs.get(key)]
    if differing:
        key = differing[0]
        raise UserError(
            f"The run in {folder} has {key}={theirs.get(key)}, not {ours[key]}, and what is compared must be measured "
            "alike: leave it as it was, or choose another out."
        )
    place = Place(STAGE, config.stage.steps)
    done = list_checkpoints(folder, STAGE)[-1:]
    if [path.name for path in done] != [place.folder_name] or not looked_at(folder, place):
        return False
    if read_description(done[0])["data_fingerprints"] != {basis.game: basis.fingerprint}:
        raise UserError(
            f"The run in {folder} was trained on other episodes than {config.data.path} holds now: restore them, or "
            "choose another out."
        )
    return True


def main(config: TransferConfig) -> None:
    check(config)
    if config.dry_run:
        finetune.main(finetune_config(config, config.arms[0], config.seeds[0]))
        if rank_and_ranks()[0] == 0:
            print(f"\nRuns: {', '.join(f'{arm}-seed{seed}' for arm, seed in runs_of(config))}")
        return
    out, basis = Path(config.out), common_basis(config)
    with distributed(config.training.device) as distribution, ExitStack() as held:
        distribution.on_main(lambda: held.enter_context(alone_in(out)))
        runs = [(arm, seed, finetune_config(config, arm, seed)) for arm, seed in runs_of(config)]
        finished = distribution.from_main(lambda: [is_finished(one, basis) for _, _, one in runs])
        distribution.on_main(lambda: prepare_run_folder(config.out, config.resume, config))
        for number, ((arm, seed, one), done) in enumerate(zip(runs, finished, strict=True), start=1):
            if distribution.is_main:
                what = "is finished" if done else "begins or goes on"
                print(f"Run {number} of {len(runs)}, {arm} with seed {seed}, {what}.", flush=True)
            if not done:
                train(one, out)
        distribution.on_main(lambda: report(config, out, basis))
        distribution.barrier()


def common_basis(config: TransferConfig) -> Basis:
    """Raises UserError unless checkpoint, data and game are there and fit."""
    one = finetune_config(config, config.arms[0], config.seeds[0])
    start = open_agent(config.ckpt, config.size)
    game = find_game(config.game, config.env, config.environment, config.data.path)
    blocks = finetune.prepare_agent(one, start, game).model.config.blocks
    store = open_episodes(config.data.path, game, blocks)
    config.evaluation.check((game,))
    return Basis(game, blocks, store.fingerprint(game), describe_choice(store, config.data))


def train(config: FinetuneConfig, comparison: Path) -> None:
    """One run. Raises Interrupted, naming the comparison, when a signal stops it."""
    try:
        finetune.main(config)
    except Interrupted as stop:
        place = f"{stop.place} in {Path(config.out).name}"
        raise Interrupted(stop.signal_number, comparison, place) from stop


def report(config: TransferConfig, out: Path, basis: Basis) -> None:
    """Compare the finished runs; write the numbers and the page, and print the table."""
    runs = [read_run(out / f"{arm}-seed{seed}", arm, seed, STAGE) for arm in config.arms for seed in config.seeds]
    transfer = compared(config, runs, basis)
    folder = new_comparison_folder(out)
    write_numbers(folder, transfer)
    write_text(folder / "transfer.html", render(transfer))
    print(f"\n{table(transfer)}\n\nPage: {folder / 'transfer.html'}\nNumbers: {folder / 'transfer.json'}")


def compared(config: TransferConfig, runs: list[RunRecord], basis: Basis) -> Transfer:
    """Raises UserError when the runs were trained on different data, or measured nothing in common."""
    metrics = compare_runs(runs, metrics_of(basis.game))
    if not metrics:
        raise UserError(
            f"The runs in {config.out} measured nothing at a step in common: compare them anew in another out."
        )
    return Transfer(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=" ".join(["python -m jowa.transfer", *sys.argv[1:]]),
        game=basis.game,
        checkpoint=config.ckpt,
        arms=tuple(config.arms),
        seeds=tuple(config.seeds),
        metrics=metrics,
        cost=costs(runs, config.training.batch_size, basis.blocks),
        data={"episodes": basis.episodes, **data_of(runs)},
        config=asdict(config),
        versions=installed_versions(),
    )


if __name__ == "__main__":
    run(main, TransferConfig, "transfer")
