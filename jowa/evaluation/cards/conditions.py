"""The part of an evaluation card that says how the scores came about: rules, planners, tuning, software, ROMs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jowa.evaluation.cards.markdown import bullets, table

_UNITS = {
    "frame_skip": "an action is held for {} emulator frames: one agent step",
    "repeat_action_probability": "each emulator frame repeats the previous action with probability {}",
    "max_no_op_frames": "up to {} emulator frames without an action before an episode's first screen",
    "random_action_probability": "a random legal action instead of the chosen one with probability {}",
}
_USED = {
    "greedy": ("context",),
    "beam": ("context", "width", "horizon", "gamma", "use_termination", "tie_tolerance"),
    "mcts": ("context", "horizon", "gamma", "use_termination", "simulations", "temperature", "choice"),
}
_PLANNER = {"context": "real frames", "width": "futures", "horizon": "agent steps"}


def conditions(results: Mapping[str, Any], protocol: str | None) -> str:
    """How it was measured, as Markdown; `protocol` names the rules, None if they have no name."""
    named = f"The protocol is `{protocol}`" if protocol else "The protocol is none of those that have a name"
    parts = [
        f"## How it was measured\n\n{named}:\n\n{bullets(_rules(results['protocol']))}",
        f"First seed {results['seed']}; evaluated {results['created']} by:\n\n```sh\n{results['command']}\n```",
        _planners(results["modes"]),
        _tuning(results.get("tuning", {})),
        f"Software: {_listed(results['versions'])}.",
    ]
    if results.get("environments"):
        parts.append(f"In {', '.join(results['environments'])} the rules count environment steps, not emulator frames.")
    if results["roms"]:
        parts.append(f"ROMs (MD5): {_listed(results['roms'])}.")
    return "\n\n".join(parts)


def _rules(protocol: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The rules with their units; what is null stands for no rule."""
    rules = {key: _UNITS.get(key, "{}").format(value) for key, value in protocol.items() if value is not None}
    if {"max_episode_frames", "frame_skip"} <= set(rules):
        frames = protocol["max_episode_frames"]
        steps = -(-frames // protocol["frame_skip"])
        rules["max_episode_frames"] = f"episodes are cut after {frames:,} emulator frames ({steps:,} agent steps)"
    return [(f"`{key}`", rule) for key, rule in rules.items()]


def _planners(modes: Sequence[Mapping[str, Any]]) -> str:
    """Each game's settings in every way of playing that has some."""
    rows = []
    for mode in modes:
        shared = {key: value for key, value in mode["planner"].items() if key != "games"}
        for score in mode["games"] if mode["planner"] else ():
            own = used(shared | mode["planner"].get("games", {}).get(score["game"], {}))
            sizes = [str(own.pop(key, "–")) for key in _PLANNER]
            name = str(own.pop("name", "–"))
            rows.append([score["game"], mode["mode"], name, *sizes, _listed(own) or "–"])
    if not rows:
        return ""
    head = ["game", "way of playing", "planner", *(f"{key} ({unit})" for key, unit in _PLANNER.items()), "other"]
    return f"The planner's settings:\n\n{table(head, rows, text=len(head))}"


def used(planner: Mapping[str, Any]) -> dict[str, Any]:
    """Of a planner's settings its name and those that it looks at."""
    known = _USED.get(str(planner.get("name")))
    return {key: value for key, value in planner.items() if known is None or key in ("name", *known)}


def _tuning(tuning: Mapping[str, Any]) -> str:
    if not tuning:
        return "Nothing in the results says that the planner's settings were tuned, or on which episodes."
    first, count = tuning["first_seed"], tuning["episodes"]
    sentences = [
        f"The planner's context, width and horizon were tuned, game by game, on {count} other episodes of each game "
        f"(seeds {first} to {first + count - 1}), which are not among those reported."
    ]
    if not tuning["same_weights"]:
        sentences.append("**Warning**: they were tuned for other weights than this agent's.")
    if not tuning["same_protocol"]:
        sentences.append("**Warning**: they were tuned under another protocol than the one reported.")
    return " ".join(sentences)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
