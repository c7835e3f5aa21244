"""Evaluations read back from their files."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from jowa.envs.protocol import ProtocolConfig
from jowa.errors import UserError
from jowa.evaluation.results.folder import EVALUATIONS, RESULTS
from jowa.evaluation.results.results import ModeResult, Results
from jowa.overrides import assignment


def results_file(path: Path) -> Path:
    """The results that a path means: a file, an evaluation's folder, or a run's folder, whose latest they are.

    Raises:
        UserError: there are none.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path} isn't there: give a run's folder, one of its evaluations, or its {RESULTS}.")
    if (path / RESULTS).is_file():
        return path / RESULTS
    numbered = (one.parent for one in path.glob(f"{EVALUATIONS}/*/{RESULTS}") if one.parent.name.isdigit())
    latest = max(numbered, key=lambda folder: int(folder.name), default=None)
    if latest is None:
        command = f"python -m jowa.evaluate {assignment('ckpt', str(path))}"
        raise UserError(f"{path} holds no finished evaluation: make one with {command}")
    return latest / RESULTS


def read_results(path: Path) -> Results:
    """What `write_results` wrote.

    Raises:
        UserError: the file can't be read, is damaged, or holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
        results: Results = decode(Results, content, "")
        _check(results)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{path} isn't the complete file of an evaluation by this version ({error}): evaluate again."
        ) from error
    return results


def _check(results: Results) -> None:
    """Raises ValueError where parts contradict one another."""
    modes = [mode.mode for mode in results.modes]
    if len(set(modes)) != len(modes):
        raise ValueError(f"modes holds a way of playing twice: {', '.join(modes)}")
    for number, mode in enumerate(results.modes):
        _check_mode(mode, f"modes[{number}]")
    _of(dict, results.config.get("planner", {}), "config.planner")
    hints = get_type_hints(ProtocolConfig)
    known = {
        key: decode(hints[key], value, f"protocol.{key}") for key, value in results.protocol.items() if key in hints
    }
    try:
        ProtocolConfig(**known).check()
    except UserError as error:
        raise ValueError(str(error).rstrip(".")) from error
    for key in ("first_seed", "episodes", "repeated_episodes") if results.tuning else ():
        _of(int, results.tuning.get(key, 0 if key == "repeated_episodes" else None), f"tuning.{key}")
    for key in ("same_weights", "same_protocol") if results.tuning else ():
        _of(bool, results.tuning.get(key), f"tuning.{key}")


def _check_mode(mode: ModeResult, place: str) -> None:
    seeds = [(one.game, one.seed) for one in mode.episodes]
    counts = {score.game: score.episodes for score in mode.games}
    if not seeds or len(counts) != len(mode.games):
        raise ValueError(f"{place} has {'a game twice' if seeds else 'no episodes'}")
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"{place}.episodes holds a game's seed twice")
    for game in dict.fromkeys((*counts, *(game for game, _ in seeds))):
        found = len(mode.of(game))
        if counts.get(game) != found:
            raise ValueError(f"{place} has {found} episodes of {game}, its score is of {counts.get(game, 0)}")
    if any(one.mode != mode.mode for one in mode.episodes):
        raise ValueError(f"{place}.episodes are not all of {mode.mode}")
    for game, own in _of(dict, mode.planner.get("games", {}), f"{place}.planner.games").items():
        _of(dict, own, f"{place}.planner.games.{game}")


def decode(kind: Any, value: Any, place: str) -> Any:
    """`value`, made of JSON's kinds, as the annotation `kind` says. Raises ValueError naming its place."""
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind, _of(dict, value, place), place)
    if origin in (Union, types.UnionType):
        return _first(arguments, value, place)
    if origin is tuple:
        items = _of(list, value, place)
        kinds = [arguments[0]] * len(items) if arguments[-1] is Ellipsis else arguments
        if len(kinds) != len(items):
            raise ValueError(f"{place} has {len(items)} values, not {len(kinds)}")
        return tuple(decode(one, item, f"{place}[{i}]") for i, (one, item) in enumerate(zip(kinds, items, strict=True)))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        of_key = int if arguments[0] is int else str
        return {
            of_key(key): decode(arguments[1], one, f"{place}.{key}") for key, one in _of(dict, value, place).items()
        }
    if isinstance(origin, type) and issubclass(origin, np.ndarray):
        return np.asarray(_of(list, value, place))
    if isinstance(origin, type):  # list and Sequence
        return [decode(arguments[0], one, f"{place}[{i}]") for i, one in enumerate(_of(list, value, place))]
    return _plain(kind, value, place)


def _plain(kind: Any, value: Any, place: str) -> Any:
    if kind is Any or get_origin(kind) is Literal:
        return value
    if kind is float and type(value) in (int, float):
        if not math.isfinite(value):
            raise ValueError(f"{place} is not finite")
        return float(value)
    return _of(type(None) if kind is None else kind, value, place)


def _first(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    """As the first of a union's kinds that fits; the last one says what is wrong."""
    if value is None and type(None) in kinds:
        return None
    *others, last = [kind for kind in kinds if kind is not type(None)]
    for kind in others:
        try:
            return decode(kind, value, place)
        except ValueError:
            continue
    return decode(last, value, place)


def _dataclass(kind: type[Any], values: Mapping[str, Any], place: str) -> Any:
    """Keys it doesn't know are of a newer version's."""
    hints = get_type_hints(kind)
    found = {}
    for field in dataclasses.fields(kind):
        inner = f"{place}.{field.name}".removeprefix(".")
        if field.name in values:
            found[field.name] = decode(hints[field.name], values[field.name], inner)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{inner} is missing")
    return kind(**found)


def _of(kind: Any, value: Any, place: str) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{place or 'its content'} is {type(value).__name__}, not {kind.__name__}")
    return value
