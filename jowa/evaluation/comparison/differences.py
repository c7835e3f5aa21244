"""What makes evaluations that stand side by side hard to compare, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from jowa.evaluation.comparison.comparison import Entry
from jowa.evaluation.results.labels import listed
from jowa.evaluation.results.protocol_names import protocol_name

_NOT_RULES = ("rom_dir",)
_PLANNER = ("name", "context", "width", "horizon", "simulations")


def differences(entries: Sequence[Entry]) -> list[str]:
    """Everything a reader must know before comparing the scores, the gravest first; nothing if all is alike."""
    if len(entries) < 2:
        return []
    return [*_rules(entries), *_play(entries), *_games(entries), *_episodes(entries), *_same(entries)]


def _rules(entries: Sequence[Entry]) -> Iterable[str]:
    keys = dict.fromkeys(key for entry in entries for key in entry.results.protocol if key not in _NOT_RULES)
    values = {key: [entry.results.protocol.get(key) for entry in entries] for key in keys}
    found = [text for key, own in values.items() if (text := _by_value(entries, own, key))]
    if found:
        names = {entry.label: protocol_name(entry.results.protocol) or "its own" for entry in entries}
        known = f" ({_listed(names, 'protocol')})" if len(set(names.values())) > 1 else ""
        yield f"The rules of play differ{known}: such scores can't be compared. {'; '.join(found)}."
    for game in _shared(entries):
        text = _by_value(entries, [entry.results.roms.get(game) for entry in entries], "ROM")
        if text:
            yield f"Different ROMs of {game} were played: {text}."
        if len({str(entry.results.references.get(game)) for entry in entries}) > 1:
            yield f"Different reference scores of {game} were used, so its normalised scores can't be compared."


def _play(entries: Sequence[Entry]) -> Iterable[str]:
    text = _by_value(entries, [entry.mode.mode for entry in entries], "way of playing")
    if text:
        yield f"They don't play in the same way: {text}."
    tuned = [entry.label for entry in entries if entry.results.tuned]
    if 0 < len(tuned) < len(entries):
        others = [entry.label for entry in entries if not entry.results.tuned]
        yield (
            f"The planner's context, width and horizon were chosen for each game, on other episodes, for "
            f"{listed(tuned)} and not for {listed(others)}: choosing them favours a score."
        )
    found = []
    for key in _PLANNER:
        for game, value in _planner_values(entries, key).items():
            if len(set(value.values())) > 1:
                where = f"{key} in {game}" if game else key
                found.append(_listed(value, where))
    if found:
        yield f"The planner is set differently: {'; '.join(dict.fromkeys(found))}."


def _planner_values(entries: Sequence[Entry], key: str) -> dict[str, dict[str, str]]:
    """{game: {label: value}} of the shared games; {"": …} where all games of everybody have the same."""
    by_game = {
        game: {entry.label: str(_setting(entry.mode.planner, game, key)) for entry in entries}
        for game in _shared(entries)
    }
    every = list(by_game.values())
    return {"": every[0]} if every and all(one == every[0] for one in every) else by_game


def _setting(planner: Mapping[str, Any], game: str, key: str) -> Any:
    own = planner.get("games", {}).get(game, {})
    return own.get(key, planner.get(key, "–"))


def _games(entries: Sequence[Entry]) -> Iterable[str]:
    shared = _shared(entries)
    missing = {
        entry.label: [g for other in entries for g in other.results.games if g not in entry.results.games]
        for entry in entries
    }
    listed = [f"{label} lacks {', '.join(dict.fromkeys(games))}" for label, games in missing.items() if games]
    if not listed:
        return
    over = f"the {len(shared)} that all have: {', '.join(shared)}" if shared else "none, since no game is in all"
    yield f"They didn't play the same games ({'; '.join(listed)}). Summaries over games are of {over}."


def _episodes(entries: Sequence[Entry]) -> Iterable[str]:
    numbers = {
        entry.label: "/".join(sorted({str(score.episodes) for score in entry.mode.games}, key=int)) for entry in entries
    }
    if len(set(numbers.values())) > 1:
        yield f"The numbers of episodes differ: {_listed(numbers, 'episodes a game')}."
    text = _by_value(entries, [entry.results.seed for entry in entries], "first seed")
    if text:
        yield f"The seeds differ, so that not the same chances were met: {text}."


def _same(entries: Sequence[Entry]) -> Iterable[str]:
    for one, other in combinations(entries, 2):
        played = [_played(entry) for entry in (one, other)]
        both = played[0].keys() & played[1].keys()
        equal = sum(played[0][key] == played[1][key] for key in both)
        if _weights(one) == _weights(other):
            yield f"{one.label} and {other.label} are evaluations of the same weights."
        if both and 2 * equal >= len(both):
            yield (
                f"{one.label} and {other.label} played {equal} of their {len(both)} common seeds alike, in return "
                "and length: the second adds no new evidence to the first."
            )


def _weights(entry: Entry) -> str:
    return entry.results.weights or entry.results.checkpoint


def _played(entry: Entry) -> dict[tuple[str, int], tuple[float, int]]:
    return {(one.game, one.seed): (one.episode_return, one.agent_steps) for one in entry.mode.episodes}


def _shared(entries: Sequence[Entry]) -> list[str]:
    first, *others = entries
    return [game for game in first.results.games if all(game in other.results.games for other in others)]


def _by_value(entries: Sequence[Entry], values: Sequence[Any], name: str) -> str:
    """Who has which value, empty if all have the same."""
    by_label = {entry.label: str(value) for entry, value in zip(entries, values, strict=True)}
    return _listed(by_label, name) if len(set(by_label.values())) > 1 else ""


def _listed(values: Mapping[str, str], name: str) -> str:
    return f"{name.replace('_', ' ')} {', '.join(f'{value} ({label})' for label, value in values.items())}"
