"""The command on a card: given to the command line, it is the evaluation that the card tells of."""

from __future__ import annotations

import shlex
from dataclasses import asdict

import pytest
from fake_results import fake_results

from jowa.cli import load_config
from jowa.evaluate import EvaluateConfig
from jowa.evaluation.cards.command import repeating
from jowa.evaluation.cards.conditions import used
from jowa.evaluation.results.results import plain


@pytest.mark.parametrize("planner", ["beam", "greedy", "mcts", "published", "demo"])
def test_the_command_repeats_the_evaluation(planner: str) -> None:
    line = ["ckpt=x", f"planner={planner}", "protocol=nature", "episodes=30", "seed=5", "bootstrap.resamples=500"]
    config = load_config(EvaluateConfig, "evaluate", line)
    modes = fake_results(("no planning", "planning"), ("Pong", "Breakout")).modes
    for tuning, rules in ((None, "nature"), ({"first_seed": 1}, None)):
        results = {"config": plain(config), "modes": plain(modes), "protocol": plain(config.protocol), "seed": 5,
                   "bootstrap": plain(config.bootstrap), "tuning": tuning}  # fmt: skip
        text = repeating(results, rules, "hub:me/agent")
        command = next(line for line in text.splitlines() if line.startswith("python"))
        again = load_config(EvaluateConfig, "evaluate", shlex.split(command)[3:])
        assert again.ckpt == "hub:me/agent" and again.games == ["Pong", "Breakout"]
        assert again.modes == ["no planning", "planning"] and again.protocol == config.protocol
        assert (again.episodes, again.seed, again.bootstrap) == (30, 5, config.bootstrap)
        assert used(asdict(again.planner)) == used(asdict(config.planner))
        assert ("tuned=" in text) == bool(tuning)
