"""Several runs' evaluations side by side: whose they are, what they have in common, and what makes them differ."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from jowa.errors import UserError
from jowa.evaluation.pages.score_figures import run_colour
from jowa.evaluation.play.modes import NO_PLANNING, PLANNING, RANDOM
from jowa.evaluation.results.baselines import baselines, contender, published
from jowa.evaluation.results.labels import listed, not_published
from jowa.evaluation.results.published import ALGORITHMS, algorithm_label
from jowa.evaluation.results.reading import EVALUATIONS, read_results, results_file
from jowa.evaluation.results.results import ModeResult, Results
from jowa.evaluation.results.scoreboard import Column, Scoreboard, conditions
from jowa.evaluation.statistics.improvement import Contender, improvement
from jowa.evaluation.statistics.profiles import performance_profile
from jowa.evaluation.statistics.scores import BootstrapConfig, aggregate_score, game_score


@dataclass(frozen=True)
class Entry:
    """One evaluation of the comparison: its folder, the run it is of if that is known, and how it plays."""

    label: str
    folder: Path
    run: Path | None
    results: Results
    mode: ModeResult


def open_entries(paths: Sequence[str], labels: Sequence[str], mode: str | None) -> list[Entry]:
    """The evaluations that the paths mean, each with the way of playing that is compared: `mode`, or its best.

    Raises:
        UserError: there is no evaluation, it is damaged, or nothing of it was played that way.
    """
    files = [results_file(Path(path).expanduser()) for path in paths]
    if len({file.resolve() for file in files}) != len(files):
        raise UserError(f"runs names an evaluation twice: {', '.join(map(str, files))}.")
    folders = [file.absolute().parent for file in files]
    names = list(labels) or names_of(folders)
    if len(set(names)) != len(names) or len(names) != len(files):
        raise UserError(f"labels must name each of the {len(files)} runs, none alike, not {', '.join(names)}.")
    taken = {*ALGORITHMS, *map(algorithm_label, ALGORITHMS)}
    wrong = next((name for name in names if not name.strip() or name in taken), None)
    if wrong is not None:
        what = f"{wrong} is a published algorithm's name" if wrong.strip() else "an empty one says nothing"
        raise UserError(f"labels must tell the runs from all else, and {what}: give others.")
    return [_entry(name, file, mode) for name, file in zip(names, files, strict=True)]


def names_of(folders: Sequence[Path]) -> list[str]:
    """What evaluations are called: their run's folder, with the evaluation's where that is not enough."""
    runs = [_run(folder) or folder for folder in folders]
    named = [
        run.name if [one.name for one in runs].count(run.name) == 1 else f"{run.name}/{folder.name}"
        for run, folder in zip(runs, folders, strict=True)
    ]
    return named if len(set(named)) == len(named) else list(map(str, folders))


def scoreboard(
    entries: Sequence[Entry], names: Sequence[str] | None, against: str | None, bootstrap: BootstrapConfig
) -> Scoreboard:
    """All entries' scores anew, with equal bootstraps; summaries are over the games that every entry has.

    `names` are the baselines', `against` is the one that all are compared with, everybody with everybody if None.
    """
    games = _games(entries)
    shared = [game for game in games if all(entry.mode.game(game) for entry in entries)]
    chosen = baselines(names, [entry.results.model for entry in entries], games)
    players = [contender(entry.mode, entry.label) for entry in entries]
    pairs = list(combinations(players, 2)) + [(player, one) for player in players for one in chosen]
    if against is not None:
        other = _opponent(against, players, games)
        pairs = [(player, other) for player in players if player is not other]
    found = [improvement(ours, theirs, bootstrap) for ours, theirs in pairs]
    return Scoreboard(
        columns=tuple(
            Column(entry.label, entry.label, entry.label, _rescored(entry, shared, bootstrap), run_colour(number))
            for number, entry in enumerate(entries)
        ),
        baselines=tuple(chosen),
        games=games,
        references={game: one for entry in entries for game, one in entry.results.references.items()},
        bootstrap=bootstrap,
        conditions=" ".join(_conditions(entries)),
        improvements=tuple(one for one in found if one is not None),
        labels={entry.label: entry.label for entry in entries},
        warnings=_warnings(entries, [name for name in names or () if name not in {one.name for one in chosen}]),
    )


def check_against(against: str | None, entries: Sequence[Entry]) -> None:
    """Raises UserError unless it is one of the runs, or a published algorithm with scores in some of their games."""
    known = (*(entry.label for entry in entries), *ALGORITHMS)
    if against is not None and against not in known:
        close = difflib.get_close_matches(against, known, n=1, cutoff=0.4)
        advice = f"did you mean '{close[0]}'?" if close else f"choose among {', '.join(known)}."
        raise UserError(f"against={against} is neither a run's name nor a published algorithm: {advice}")
    games = _games(entries)
    if against in ALGORITHMS and not published(against, games).returns:
        raise UserError(f"against={against} has no scores in {listed(games)}: choose a run, or leave it out.")
    found = next((entry.results.games for entry in entries if entry.label == against), ())
    others = [game for entry in entries if entry.label != against for game in entry.results.games]
    if found and others and not set(found) & set(others):
        raise UserError(f"against={against} has no game in common with the others: choose another, or leave it out.")


def _games(entries: Sequence[Entry]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(game for entry in entries for game in entry.results.games))


def _warnings(entries: Sequence[Entry], lacking: Sequence[str]) -> tuple[str, ...]:
    """The runs' own, those that several have once, and who of the baselines asked for has no scores."""
    warned: dict[str, list[str]] = {}
    for entry in entries:
        # Their own baselines are not those of the comparison.
        for text in replace(entry.results, baselines={}).warnings:
            warned.setdefault(text, []).append(entry.label)
    own = (f"{listed(labels)}: {text}" for text, labels in warned.items())
    return (*own, *([not_published(lacking, _games(entries))] if lacking else []))


def _opponent(against: str, players: Sequence[Contender], games: Sequence[str]) -> Contender:
    return next((player for player in players if player.name == against), None) or published(against, games)


def _entry(label: str, file: Path, mode: str | None) -> Entry:
    results = read_results(file)
    best = results.best or results.mode(RANDOM)
    chosen = best if mode is None else results.mode(mode)
    if chosen is None:
        played = ", ".join(one.mode for one in results.modes) or "nothing"
        raise UserError(f"{file} holds {played}, not '{mode or f'{PLANNING} or {NO_PLANNING}'}': choose another mode.")
    folder = file.absolute().parent
    checkpoint = Path(results.checkpoint)
    trained = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else None
    return Entry(label, folder, _run(folder) or trained, replace(results, modes=(chosen,)), chosen)


def _run(folder: Path) -> Path | None:
    return folder.parent.parent if folder.parent.name == EVALUATIONS else None


def _rescored(entry: Entry, shared: Sequence[str], bootstrap: BootstrapConfig) -> ModeResult:
    """The entry's episodes with the comparison's bootstrap, summed up over the shared games."""
    mode, references = entry.mode, entry.results.references
    returns = {score.game: [one.episode_return for one in mode.of(score.game)] for score in mode.games}
    lengths = {score.game: [one.agent_steps for one in mode.of(score.game)] for score in mode.games}
    common = {game: returns[game] for game in shared}
    return replace(
        mode,
        games=tuple(
            game_score(game, returns[game], lengths[game], references.get(game), bootstrap) for game in returns
        ),
        human_normalised=aggregate_score(common, references, "human", bootstrap),
        dqn_normalised=aggregate_score(common, references, "dqn", bootstrap),
        human_profile=performance_profile(common, references, "human", bootstrap),
        dqn_profile=performance_profile(common, references, "dqn", bootstrap),
    )


def _conditions(entries: Sequence[Entry]) -> list[str]:
    sentences = {entry.label: conditions(entry.results) for entry in entries}
    if len(set(sentences.values())) == 1:
        return [next(iter(sentences.values()))]
    return [f"{label}: {sentence}" for label, sentence in sentences.items()]
