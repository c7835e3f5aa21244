"""Evaluating all games' episodes in one call against one call for each episode, and whether the episodes are the same.

    python benchmarks/evaluate.py --ckpt runs/demo
    python benchmarks/evaluate.py --ckpt runs/demo --commands 4

Within one process by default: no start of Python is counted. `--commands K` also times `python -m jowa.evaluate`, once
for everything and for K single episodes of each game, and says what a call for every episode would take.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from jowa.cli import load_config
from jowa.evaluate import EvaluateConfig
from jowa.evaluation.play.episode import Episode
from jowa.evaluation.play.modes import PLANNING, Rules, planners_of, play_mode
from jowa.evaluation.play.rollout import episode_seeds
from jowa.training.starting_point import open_agent

GAMES = ("Amidar", "Freeway", "Pong", "Boxing")
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True)
    parser.add_argument("--games", nargs="+", default=list(GAMES))
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--frames", type=int, default=2400, help="emulator frames after which episodes are cut")
    parser.add_argument("--planner", default="demo")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--commands", type=int, default=0, help="single episodes of each game timed as commands")
    parser.add_argument("settings", nargs="*", help="further key=value settings of jowa.evaluate")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    given = [
        f"ckpt={arguments.ckpt}", f"games=[{','.join(arguments.games)}]", f"episodes={arguments.episodes}",
        f"planner={arguments.planner}", f"protocol.max_episode_frames={arguments.frames}", "modes=[planning]",
        "world_model_sequences=0", "film_agent_steps=0", "device=cpu", f"threads={arguments.threads}",
        *arguments.settings,
    ]  # fmt: skip
    within_one_process(load_config(EvaluateConfig, "evaluate", given))
    if arguments.commands:
        as_commands(given, arguments)


def within_one_process(config: EvaluateConfig) -> None:
    agent = open_agent(config.ckpt).agent
    planners = planners_of(PLANNING, config.planner, agent, config.games)
    rules = Rules(config.protocol, config.environments, config.execution)

    def played(seeds: dict[str, list[int]]) -> tuple[Episode, ...]:
        return play_mode(PLANNING, agent, seeds, planners, rules, CPU, progress=False).episodes

    played({config.games[0]: [10**6]})  # warm
    seeds = episode_seeds(config.seed, config.games, config.episodes)
    started = time.perf_counter()
    together = played(seeds)
    at_once = time.perf_counter() - started
    apart: list[Episode] = []
    started = time.perf_counter()
    for game, wanted in seeds.items():
        for seed in wanted:
            apart += played({game: [seed]})
    singly = time.perf_counter() - started
    steps = sum(episode.agent_steps for episode in together)
    same = sum(one == other for one, other in zip(together, apart, strict=True))
    print(f"{len(together)} episodes, {steps:,} agent steps in one process, environments={config.environments}")
    print(f"one call: {at_once:.1f} s, {steps / at_once:.0f} decisions/s; {len(apart)} calls: {singly:.1f} s")
    print(f"a call an episode takes {singly / at_once:.2f} times as long; identical: {same} of {len(together)}")


def as_commands(given: list[str], arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        at_once = command_seconds([*given, f"out={folder}/all"])
        singly = [
            command_seconds([*given, f"games=[{game}]", "episodes=1", f"seed={seed}", f"out={folder}/{game}-{seed}"])
            for game in arguments.games
            for seed in range(arguments.commands)
        ]
        together = ledger_lines(Path(folder, "all"))
        apart = [line for path in sorted(Path(folder).glob("*-*")) for line in ledger_lines(path)]
    calls = len(arguments.games) * arguments.episodes
    each = statistics.mean(singly)
    print(f"python -m jowa.evaluate: one call {at_once:.1f} s; a single episode {each:.1f} s, mean of {len(singly)}")
    print(f"{calls} calls: {calls * each / at_once:.1f} times as long; "
          f"identical episodes: {len(set(apart) & set(together))} of {len(apart)}")  # fmt: skip


def command_seconds(settings: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "jowa.evaluate", *settings], check=True, capture_output=True)
    return time.perf_counter() - started


def ledger_lines(folder: Path) -> list[str]:
    return (folder / "episodes.jsonl").read_text().splitlines()


if __name__ == "__main__":
    main()
