"""Carrying out an import: one run of one game after another, or several at a time in processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from jowa.data.layout import Manifest
from jowa.data.sources import minari, rlu
from jowa.data.sources.dqn_logs import log_files
from jowa.data.sources.dqn_replay import RunReader
from jowa.data.sources.episode import SourceEpisode
from jowa.data.sources.local import Unit
from jowa.data.sources.parts import Added, write_part
from jowa.data.store import committed_parts
from jowa.data.workers import GoesOn, in_processes
from jowa.data.writer import differing_facts
from jowa.errors import UserError

_MISSING_LOG = "missing_log"
"""The fact that a part lacks the end of an episode that began in this log."""


@dataclass(frozen=True)
class Task:
    """What is the same for all units of an import."""

    source: str
    store: Path
    keep_stack_padding: bool
    allow_mixed: bool


@dataclass
class Outcome:
    """What became of units: the parts added, with their games; how many were there already; what else to say."""

    added: list[tuple[str, Added]] = field(default_factory=list)
    there: int = 0
    notes: list[str] = field(default_factory=list)

    def include(self, other: Outcome) -> None:
        """Add up."""
        self.added += other.added
        self.there += other.there
        self.notes += other.notes


def carry_out(task: Task, jobs: Sequence[Sequence[Unit]], workers: int, advance: Callable[[int], Any]) -> Outcome:
    """Import all units; those of one job (a game and a run) one after another.

    Args:
        task: what is the same for all.
        jobs: at least one, none empty.
        workers: processes; 0 works in this one.
        advance: told how many units more are done.

    Raises:
        UserError: a file can't be read, the disk is full, or a part that is there is not what was asked for. The parts
            finished before stay.
    """

    def went_on(done: int) -> bool:
        advance(done)
        return True

    if workers == 0:
        outcomes = [_import_job(task, job, went_on) for job in jobs]
    else:
        died = "A process of the import died, perhaps for want of memory: set workers lower."
        outcomes = in_processes(partial(_import_job, task), jobs, workers, advance, died)
    total = Outcome()
    for outcome in outcomes:
        total.include(outcome)
    return total


def _import_job(task: Task, job: Sequence[Unit], goes_on: GoesOn) -> Outcome:
    """Import units of one run but for those that are there, until `goes_on`, asked after each, says no."""
    outcome = Outcome()
    there = committed_parts(task.store, job[0].game)
    source = _open_source(task, job, outcome.notes.append)
    for unit in job:
        if unit.part in there:
            _check_facts(task, unit)
            outcome.there += 1
        else:
            _import_unit(task, unit, source, outcome)
        if not goes_on(1):
            break
    return outcome


@dataclass(frozen=True)
class _Source:
    """Reads a unit's episodes; `facts` are what is only known of them when they have been read."""

    episodes: Callable[[Unit], Iterator[SourceEpisode]]
    facts: Callable[[], dict[str, Any]] = dict


def _import_unit(task: Task, unit: Unit, source: _Source, outcome: Outcome) -> None:
    episodes = source.episodes(unit)
    try:
        added = write_part(
            task.store, unit.game, unit.part, episodes, unit.provenance, task.allow_mixed, source.facts
        )  # fmt: skip
    except UserError:
        if unit.part not in committed_parts(task.store, unit.game):
            raise
        # Another import, at work beside this one, was quicker.
        _check_facts(task, unit)
        outcome.there += 1
        return
    outcome.added.append((unit.game, added))
    if not added.episodes:
        outcome.notes.append(f"{unit.game}: no episode ends in {unit.part}, so there is no such part.")


def _open_source(task: Task, job: Sequence[Unit], say: Callable[[str], None]) -> _Source:
    """What reads the episodes of a job's units."""
    if task.source == "rlu":
        return _Source(lambda unit: rlu.episodes(unit.path, unit.game, say))
    if task.source == "minari":
        return _Source(lambda unit: minari.episodes(minari.find(str(unit.path))[0], unit.game))
    run = RunReader(job[0].path, job[0].game, task.keep_stack_padding, say)
    checkpoints = {unit.checkpoint for unit in job}

    def read(unit: Unit) -> Iterator[SourceEpisode]:
        yield from run.episodes(unit.checkpoint)
        left = run.unfinished(unit.checkpoint)
        if left and unit.checkpoint + 1 not in checkpoints:
            say(f"{unit.path}: the last {left} rows of checkpoint {unit.checkpoint} wait for the next checkpoint.")

    return _Source(read, lambda: {} if run.missing_log is None else {_MISSING_LOG: run.missing_log})


def _check_facts(task: Task, unit: Unit) -> None:
    """UserError if the part that is there isn't what was asked for, or could be more now."""
    folder = task.store / unit.game / unit.part
    known = Manifest.read(folder).provenance
    for fact in () if task.allow_mixed else differing_facts(known, unit.provenance):
        raise UserError(
            f"{folder} was imported with {fact} {known.get(fact)}, now {unit.provenance.get(fact)} is asked for: "
            "remove it to import it again, set out to another folder, or allow_mixed=true to leave it as it is."
        )
    if known.get("dataset") != unit.provenance.get("dataset"):
        raise UserError(
            f"{folder} holds the data set {known.get('dataset')}, not {unit.provenance.get('dataset')}, whose part "
            "would have the same name: set out to another folder."
        )
    missing = known.get(_MISSING_LOG)
    if missing is not None and all(path.is_file() for path in log_files(unit.path, missing).values()):
        raise UserError(
            f"{folder} was imported without the beginning of its first episode, and log {missing}, which has it, is "
            "there now: remove that folder and start again to import it whole."
        )
