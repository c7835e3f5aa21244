"""The evaluation card: what an exported agent is, how well it plays, and how that was measured, as Markdown.

Every score is a number of results.json; nothing is computed anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jowa.evaluation.cards.command import repeating
from jowa.evaluation.cards.conditions import conditions
from jowa.evaluation.cards.markdown import bullets, grouped, table
from jowa.evaluation.cards.metadata import metadata

PAPER = """@inproceedings{cheng2025jowa,
  title={Scaling Offline Model-Based {RL} via Jointly-Optimized World-Action Model Pretraining},
  author={Cheng, Jie and Qiao, Ruixi and Ma, Yingwei and Li, Binhua and Xiong, Gang and Miao, Qinghai and Li, Yongbin
    and Lv, Yisheng},
  booktitle={International Conference on Learning Representations},
  year={2025},
  note={arXiv:2410.00564}
}"""


@dataclass(frozen=True)
class SharedAgent:
    """What a card tells of.

    Attributes:
        name: the agent's name; repo: where on the hub it will be, None if nobody has said.
        license: as the hub abbreviates it, None if none was chosen.
        description: agent.json; files: names of what lies beside the card.
        parameters: how many each part of the agent has, all and trained ones, by the part's name.
        results: results.json of its evaluation, None if there is none. protocol: the name of the rules it was played
            by, None if they have none.
    """

    name: str
    repo: str | None
    license: str | None
    description: Mapping[str, Any]
    files: Sequence[str]
    parameters: Mapping[str, tuple[int, int]]
    results: Mapping[str, Any] | None = None
    protocol: str | None = None


def render(agent: SharedAgent) -> str:
    """The card, front matter first."""
    results = agent.results
    sections = [
        f"# {agent.name}",
        _summary(agent),
        _loading(agent),
        "## Results\n\n" + (_not_evaluated() if results is None else _results(results)),
        "" if results is None else conditions(results, agent.protocol),
        _model(agent),
        _training(agent.description),
        _files(agent.files),
        f"## Citation\n\n```bibtex\n{PAPER}\n```",
    ]
    front = metadata(agent.name, agent.license, agent.description.get("games", []), agent.results, agent.protocol)
    return f"---\n{front}---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def _summary(agent: SharedAgent) -> str:
    size = agent.description["model"].get("name")
    games = ", ".join(agent.description.get("games", []))
    licence = (
        f"Licence: {agent.license}."
        if agent.license
        else "No licence was chosen: ask who published this agent before using it."
    )
    return (
        f"A [JOWA](https://arxiv.org/abs/2410.00564) agent of size {size}, trained on {games}: one transformer that is "
        "a world model and a Q function at once, and plans by searching in its own imagination. It is for the program "
        f"`jowa`.\n\n{licence}"
    )


def _loading(agent: SharedAgent) -> str:
    name = agent.repo or "<owner>/<name>"
    game = next(iter(agent.description.get("games", [])), "Pong")
    return (
        "## How to load it\n\n```sh\npip install 'jowa[hub]'\n"
        f"python -m jowa.evaluate ckpt=hub:{name}\npython -m jowa.finetune game={game} ckpt=hub:{name}\n```\n\n"
        "Without a network it is taken from the hub library's cache; `ckpt=` also takes the folder itself."
        + ("" if agent.results is None else f"\n\n{repeating(agent.results, agent.protocol, f'hub:{name}')}")
    )


def _not_evaluated() -> str:
    return "**Not evaluated**: no evaluation of this checkpoint came with it, so how well it plays is unknown."


def _results(results: Mapping[str, Any]) -> str:
    confidence = f"{100 * results['bootstrap']['confidence']:g} %"
    rows = [_score_row(mode["mode"], score) for mode in results["modes"] for score in mode["games"]]
    head = ["game", "way of playing", "mean return", f"{confidence} interval", "median", "lowest", "highest"]
    head += ["episodes", "distinct episodes", "mean length (agent steps)"]
    parts = [
        "Returns are raw game points. Intervals are bootstrap intervals over episodes; *distinct* episodes differ from "
        "all earlier ones in return or length.",
        table(head, grouped(rows), text=2),
        _aggregates(results, confidence),
    ]
    if results["warnings"]:
        parts.append("Warnings:\n\n" + "\n".join(f"- {warning}" for warning in results["warnings"]))
    return "\n\n".join(filter(None, parts))


def _score_row(mode: str, score: Mapping[str, Any]) -> list[str]:
    mean = score["mean"]
    numbers = [_points(score[key]) for key in ("median", "minimum", "maximum")]
    distinct = score["episodes"] - score["repeated"]
    interval = f"{_points(mean['low'])} to {_points(mean['high'])}"
    counts = [str(score["episodes"]), str(distinct), f"{score['mean_agent_steps']:,.1f}"]
    return [score["game"], mode, _points(mean["value"]), interval, *numbers, *counts]


def _aggregates(results: Mapping[str, Any], confidence: str) -> str:
    """All normalised scores over games that the evaluation has, with intervals."""
    rows = [
        [_measure(key, measure), mode["mode"], f"{one['value']:.3f}",
         f"{one['low']:.3f} to {one['high']:.3f}", str(len(aggregate.get("games", ())))]
        for mode in results["modes"]
        for key, aggregate in mode.items()
        if isinstance(aggregate, Mapping)
        for measure, one in aggregate.items()
        if isinstance(one, Mapping) and {"value", "low", "high"} <= set(one)
    ]  # fmt: skip
    if not rows:
        return ""
    head = ["over all games", "way of playing", "score", f"{confidence} interval", "games"]
    note = (
        "Normalised scores: 0 is random play, 1 the human's or DQN's reference score. The *interquartile mean* is that "
        "of the games' means, without the lowest and the highest quarter of the games; the *pooled interquartile mean* "
        "is that of all games' episodes in one list, without the lowest and the highest quarter of the episodes. The "
        "*optimality gap* is by how much episodes fall short of 1 on average: lower is better."
    )
    return f"{note}\n\n{table(head, grouped(rows), text=2)}"


def _measure(normalisation: str, statistic: str) -> str:
    return f"{normalisation}, {statistic}".replace("_", " ").replace("dqn", "DQN")


def _points(value: float) -> str:
    return f"{value:,.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def _model(agent: SharedAgent) -> str:
    model, tokenizer = agent.description["model"], agent.description["tokenizer"]
    counts = [
        (part, f"{every:,} parameters, {trained:,} of them trained")
        for part, (every, trained) in agent.parameters.items()
    ]
    shapes = [(f"{part}.{key}", _plain(value)) for part, values in (("model", model), ("tokenizer", tokenizer))
              for key, value in values.items() if value is not None]  # fmt: skip
    return f"## Model\n\n{bullets([*counts, *((f'`{key}`', value) for key, value in shapes)])}"


def _training(description: Mapping[str, Any]) -> str:
    shown = ("games", "games_before", "environments", "stage", "step", "data_fingerprints", "selection", "holdout",
             "stride", "balance", "adaptation", "published_sha256")  # fmt: skip
    facts = [(key.replace("_", " "), _plain(description[key])) for key in shown if description.get(key)]
    return f"## Training\n\n{bullets(facts)}"


def _files(names: Sequence[str]) -> str:
    meanings = {
        "agent.json": "the agent's sizes, and what is known of its making",
        "weights.safetensors": "tokenizer and world-action model; the optimisers' state is left out",
        "published_buffers.safetensors": "integers of the published files that carry nothing, for the way back",
        "lpips.safetensors": "the perceptual distance the tokenizer was trained with, for further training",
        "config.yaml": "the training run's configuration",
        "results.json": "the evaluation with every episode",
        "report.html": "the evaluation as a page",
        "scores.csv": "its scores, a line each",
        "scores.md": "its scores as a table",
        "scores.tex": "its scores as a table",
    }
    return "## Files\n\n" + bullets([(f"`{name}`", meanings[name]) for name in names if name in meanings])


def _plain(value: Any) -> str:
    """A JSON value in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return str(value)
