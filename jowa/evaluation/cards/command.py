"""The command that repeats an evaluation card's numbers, as far as a line can say it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from jowa.evaluation.cards.conditions import used
from jowa.evaluation.play.modes import NO_PLANNING, PLANNING, RANDOM
from jowa.evaluation.statistics.scores import BootstrapConfig


def repeating(results: Mapping[str, Any], protocol: str | None, ckpt: str) -> str:
    """Markdown with the command, and what it leaves to be set by hand; `protocol` names the rules, if they have a name.

    Planners are given key by key, so that presets may change.
    """
    config = results.get("config", {})
    played = results["modes"]
    games = dict.fromkeys(score["game"] for mode in played for score in mode["games"])
    modes = [mode["mode"] for mode in played]
    words = [f"ckpt={ckpt}", f"games=[{','.join(games)}]"]
    words += [] if modes == [RANDOM, NO_PLANNING, PLANNING] else [f"modes=[{','.join(modes)}]"]
    words += [f"protocol={protocol}"] if protocol else _assigned("protocol", results["protocol"])
    words += _planner(config.get("planner", {}))
    words += [f"episodes={config['episodes']}"] if "episodes" in config else []
    words.append(f"seed={results['seed']}")
    default = asdict(BootstrapConfig())
    given = {key: value for key, value in results["bootstrap"].items() if value != default.get(key)}
    words += _assigned("bootstrap", given)
    command = f"```sh\n{shlex.join(['python', '-m', 'jowa.evaluate', *words])}\n```"
    tuned = (
        "\n\nThe tuned context, width and horizon of each game stand below: with planning, give each game its own "
        "(`games=[…] planner.context=…`), or the folder they came from (`tuned=…`)."
    )
    return f"This repeats the evaluation below:\n\n{command}{tuned if results.get('tuning') else ''}"


def _planner(planner: Mapping[str, Any]) -> list[str]:
    if "name" not in planner:
        return []
    # The published planner is beam search with settings that are looked up.
    settings = used({**planner, "name": "beam"} if planner["name"] == "published" else planner)
    del settings["name"]
    return [f"planner={planner['name']}", *_assigned("planner", settings)]


def _assigned(group: str, values: Mapping[str, Any]) -> list[str]:
    """Settings as a command line says them, without the folders of one computer."""
    said = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    return [f"{group}.{key}={value}" for key, value in said.items() if key != "rom_dir"]
