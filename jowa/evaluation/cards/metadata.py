"""An evaluation card's front matter: what a model hub reads, in the fields it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from jowa.evaluation.play.modes import NO_PLANNING, PLANNING
from jowa.games import GAMES

TAGS = ("jowa", "reinforcement-learning", "offline-reinforcement-learning", "world-model", "planning",
        "arxiv:2410.00564")  # fmt: skip
_TASK = {"type": "reinforcement-learning", "name": "Reinforcement Learning"}


def metadata(
    name: str, licence: str | None, trained_on: Sequence[str], results: Mapping[str, Any] | None, protocol: str | None
) -> str:
    """YAML. Scores are those of the agent's best way of playing: with planning, else without; chance has none."""
    front: dict[str, Any] = {} if licence is None else {"license": licence}
    front |= {"library_name": "jowa", "pipeline_tag": "reinforcement-learning", "tags": [*TAGS, *_kinds(trained_on)]}
    modes = {} if results is None else {mode["mode"]: mode for mode in results["modes"]}
    mode = modes.get(PLANNING) or modes.get(NO_PLANNING)
    if results is not None and mode is not None:
        rules = f"protocol {protocol}" if protocol else "protocol without a name"
        scores = [*_games(mode, results, rules), *_aggregates(mode, results, rules)]
        front["model-index"] = [{"name": name, "results": scores}]
    return OmegaConf.to_yaml(OmegaConf.create(front))


def _games(mode: Mapping[str, Any], results: Mapping[str, Any], rules: str) -> list[dict[str, Any]]:
    entries = []
    for score in mode["games"]:
        about = f"{mode['mode']}, {score['episodes']} episodes, {rules}"
        metric = _metric("mean_reward", "mean return", score["mean"], results, about)
        entries.append({"task": _TASK, "dataset": {"name": score["game"], "type": score["game"]}, "metrics": [metric]})
    return entries


def _aggregates(mode: Mapping[str, Any], results: Mapping[str, Any], rules: str) -> list[dict[str, Any]]:
    """The interquartile means over games of each normalisation there is."""
    entries = []
    for key in ("human_normalised", "dqn_normalised"):
        aggregate = mode.get(key)
        if aggregate:
            name = f"interquartile mean over games, {key.replace('_', '-')}"
            metric = _metric(f"iqm_{key}", name, aggregate["interquartile_mean"], results, f"{mode['mode']}, {rules}")
            games = ", ".join(aggregate["games"])
            entries.append({"task": _TASK, "dataset": {"name": games, "type": "games"}, "metrics": [metric]})
    return entries


def _kinds(games: Sequence[str]) -> list[str]:
    return ["atari"] if set(games) & set(GAMES) else []


def _metric(
    kind: str, name: str, estimate: Mapping[str, float], results: Mapping[str, Any], about: str
) -> dict[str, Any]:
    confidence = f"{100 * results['bootstrap']['confidence']:g} %"
    interval = f"{confidence} interval {estimate['low']:.4g} to {estimate['high']:.4g}"
    return {"type": kind, "name": f"{name} ({about}, {interval})", "value": estimate["value"]}
