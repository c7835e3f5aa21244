"""Fetches RL Unplugged's Atari files into an episode store: `python -m jowa.data.fetch games=[Pong] checkpoints=[0-9]`.

RL Unplugged has 46 games, 5 runs of DQN on each and 50 checkpoints of each run, a file a checkpoint. They come from a
public bucket, for which no account is needed; an interrupted run goes on where it stopped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from jowa.cli import run
from jowa.data.fetch_tables import describe_outcome, describe_plan
from jowa.data.fetching import BUCKET, carry_out, check_store, make_plan
from jowa.data.raw_files import wanted_files
from jowa.data.sources.bucket import Bucket, Patience
from jowa.errors import UserError


@dataclass(frozen=True)
class FetchConfig:
    """What to fetch.

    source: rlu (RL Unplugged). games: ALE names. runs: of 1 to 5, numbers or ranges. checkpoints: of 0 to 49, in the
    order of training, numbers or ranges. out: the episode store. keep_raw: a folder in which the files stay as they
    came, and from which later runs take them; null deletes each once it is imported. allow_mixed: add to episodes
    that come from other ROMs or other rules. dry_run: say what would be fetched, and fetch nothing. attempts: tries in
    a row that may fail before a file is given up. backoff: seconds before the second try, then twice as long each.
    timeout: seconds without an answer that count as a failure.
    """

    source: str = "rlu"
    games: list[str] = MISSING
    runs: list[str] = field(default_factory=lambda: ["1"])
    checkpoints: list[str] = field(default_factory=lambda: ["0-49"])
    out: str = "data"
    keep_raw: str | None = None
    allow_mixed: bool = False
    dry_run: bool = False
    attempts: int = 5
    backoff: float = 1.0
    timeout: float = 60.0


def main(config: FetchConfig) -> None:
    """Check everything, fetch, print a table; UserError if anything asked for could not be had."""
    if config.source != "rlu":
        raise UserError(f"source must be rlu (RL Unplugged), not {config.source}.")
    wanted = wanted_files(config.games, config.runs, config.checkpoints)
    patience = Patience(config.attempts, config.backoff, config.timeout)
    patience.check()
    store = check_store(config.out, wanted, config.allow_mixed, make=not config.dry_run)
    keep_raw = None if config.keep_raw is None else Path(config.keep_raw)
    bucket = Bucket(BUCKET, patience)
    plan = make_plan(wanted, store, bucket)
    if config.dry_run:
        print(describe_plan(plan, store, keep_raw))
        return
    outcome = carry_out(plan, bucket, store, keep_raw, config.allow_mixed)
    print(describe_outcome(plan, outcome))
    if outcome.failed:
        raise UserError(
            f"{len(outcome.failed)} of {len(wanted)} files could not be had, as listed above: start again to try those "
            "once more."
        )


if __name__ == "__main__":
    run(main, FetchConfig, "fetch")
