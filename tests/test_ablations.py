"""Ablations are presets: each one trains, plans, and changes what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_store import final_weights, finetune_run, pretrain_run

from jowa import evaluate
from jowa.cli import load_config
from jowa.data.sequences import SequenceDataset
from jowa.data.store import EpisodeStore
from jowa.games import legal_mask
from jowa.models.agent_files import Agent, load_agent
from jowa.planning.config import PlannerConfig
from jowa.planning.dream import Context
from jowa.planning.making import make_planner
from jowa.planning.tree_dream import TreeDream
from jowa.pretrain import PretrainConfig
from jowa.training.checkpoint import latest_checkpoint
from jowa.training.learner import Learner
from jowa.training.parts import Part

PRESETS = {path.stem: path for path in sorted((Path(__file__).parents[1] / "configs" / "ablation").glob("*.yaml"))}


def flat(values: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(values, dict):
        return {prefix.removesuffix("."): values}
    return {key: value for name in values for key, value in flat(values[name], f"{prefix}{name}.").items()}


@pytest.mark.parametrize("experiment", ["smoke", "atari15"])
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_changes_what_it_lists_before_and_after_an_experiment(
    name: str, experiment: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def composed(*overrides: str) -> dict[str, object]:
        config = load_config(PretrainConfig, "pretrain", overrides)
        return flat(json.loads(json.dumps(config, default=vars)))

    plain = composed(f"+exp={experiment}")
    listed = flat(yaml.safe_load(PRESETS[name].read_text()))
    for order in ((f"+exp={experiment}", f"+ablation={name}"), (f"+ablation={name}", f"+exp={experiment}")):
        assert composed(*order) == plain | listed != plain
    key = next(iter(listed))
    asked_for = f"{key}={plain[key]}".replace(" ", "")
    assert composed(asked_for, f"+ablation={name}", f"+exp={experiment}")[key] == plain[key]


@dataclass
class Trained:
    """A finished run with its agent, what its steps were given, and how to run the same with other changes."""

    folder: Path
    agent: Agent
    steps: list[tuple[Part, torch.Tensor | None]]
    again: Callable[..., Agent]

    @property
    def stage1(self) -> Agent:
        return load_agent(self.folder / "checkpoints" / "stage1-00000004")

    def losses(self) -> set[str]:
        return {key for line in lines_of(self.folder) for key in line}


def lines_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def moved(one: Agent, other: Agent) -> set[str]:
    """The parts of which any tensor differs."""
    parts = {"tokenizer": (one.tokenizer, other.tokenizer)} | {
        name: (part, other.model.get_submodule(name)) for name, part in one.model.named_children()
    }
    return {
        name
        for name, (part, twin) in parts.items()
        if any(not torch.equal(tensor, twin.state_dict()[key]) for key, tensor in part.state_dict().items())
    }


def no_cql(run: Trained) -> None:
    assert "loss/td" in run.losses() and not any("conservative" in key for key in run.losses())


def combo(run: Trained) -> None:
    """Nothing is imagined in pretraining, so that it must come to the same as CQL."""
    assert "loss/conservative_data" in run.losses()
    assert not moved(run.agent, run.again("objective.conservative=cql"))


def rem(run: Trained) -> None:
    mixtures = [mixture for _, mixture in run.steps if mixture is not None]
    assert len({tuple(mixture.tolist()) for mixture in mixtures}) == 8, "one for each of the run's steps"
    assert all(len(one) == 3 and one.min() >= 0 and abs(one.sum() - 1) < 1e-6 for one in mixtures)


def mse(run: Trained) -> None:
    assert run.agent.model.q_logits(torch.zeros(1, 32)).shape == (1, 1, 18, 1)


def no_task_embedding(run: Trained) -> None:
    assert not any("task" in name for name, _ in run.agent.model.named_parameters())


def detached_q(run: Trained) -> None:
    """Whatever the Q loss weighs, the backbone learns the same; without clipping, which all gradients share."""
    other = run.again("stage2.td_weight=5", "stage2.conservative_weight=1")
    assert moved(run.agent, other) == {"q_networks", "q_target"}
    assert "trunk" in moved(run.agent, run.stage1)


def separate(run: Trained) -> None:
    assert moved(run.agent, run.stage1) == {"q_networks", "q_target"}
    assert {"loss/observation", "loss/td"} <= run.losses()


def context_4(run: Trained) -> None:
    assert {part.batch.valid.shape[1] for part, _ in run.steps} == {4}
    assert run.agent.model.position_embedding.weight.shape == (4 * 37, 32)


def codes_16(run: Trained) -> None:
    cached = {part.batch.codes.shape[2] for part, _ in run.steps if part.batch.codes is not None}
    assert cached == {16} and run.agent.model.position_embedding.weight.shape == (8 * 17, 32)


def ensemble_5(run: Trained) -> None:
    assert run.agent.model.q_logits(torch.zeros(1, 32)).shape[0] == 5


def left_padding(run: Trained) -> None:
    """Other sequences, but the model sees real steps from position 0 on as ever."""
    assert all(part.batch.valid[:, 0].all() for part, _ in run.steps)
    assert "trunk" in moved(run.agent, run.again("data.pad=right"))


EFFECTS: dict[str, Callable[[Trained], None]] = {
    "no_cql": no_cql, "combo": combo, "rem": rem, "mse": mse, "no_task_embedding": no_task_embedding,
    "detached_q": detached_q, "separate": separate, "context_4": context_4, "codes_16": codes_16,
    "ensemble_5": ensemble_5, "left_padding": left_padding,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_trains_plans_and_does_what_it_says(
    name: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[Part, torch.Tensor | None]] = []
    forward = Learner.forward

    def seen(learner: Learner, part: Part, counts: object, mixture: torch.Tensor | None = None) -> object:
        if learner.training:
            steps.append((part, mixture))
        return forward(learner, part, counts, mixture)

    def train(*changes: str) -> Path:
        out = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        quick = ["training.picture_every=100", "training.validate_every=100", "training.gradient_clip=1e9"]
        return pretrain_run(tiny_data, out, f"+ablation={name}", *quick, *changes)

    with monkeypatch.context() as patched:
        patched.setattr(Learner, "forward", seen)
        folder = train()
    agent = load_agent(latest_checkpoint(folder))
    assert agent.tokenizer.tokens_per_frame == agent.model.tokens_per_frame
    assert_plans(agent, tiny_data)
    EFFECTS[name](Trained(folder, agent, steps, lambda *changes: load_agent(latest_checkpoint(train(*changes)))))


def assert_plans(agent: Agent, data: Path) -> None:
    """One decision of a beam of 2 over 2 steps, from as many frames as the model has left."""
    context = agent.model.config.blocks - 2
    planner = PlannerConfig("beam", width=2, horizon=2, context=context).for_game(agent.model.config, "Pong")
    batch = SequenceDataset(EpisodeStore(data, ["Pong"]), length=context, stride=1).batch(np.array([0]))
    codes = agent.tokenizer.encode(batch.frames.flatten(0, 1)).unflatten(0, (1, context))
    legal = torch.from_numpy(legal_mask("Pong"))[None]
    given = Context(codes, batch.actions, torch.tensor([context]), batch.tasks)
    plan = make_planner(planner).plan(TreeDream(agent.model), given, legal)
    assert legal[0, plan.actions[0]] and plan.scores.shape == (1, 2) and plan.scores.isfinite().all()
    assert plan.frames.shape == (1, 2, 2, agent.tokenizer.tokens_per_frame)


SEVERAL = "+ablation=[codes_16,context_4,no_task_embedding]"


def test_several_at_once_through_finetuning_and_evaluation(tiny_data: Path, tmp_path: Path) -> None:
    run = pretrain_run(tiny_data, tmp_path / "run", SEVERAL, "training.picture_every=4")
    line = next(line for line in lines_of(run) if "speed/tokens_per_second" in line)
    assert line["speed/tokens_per_second"] == pytest.approx(line["speed/sequences_per_second"] * 4 * 17, rel=1e-4)
    tuned = finetune_run(tiny_data, tmp_path / "tuned", run, "task_from=Breakout", "data.holdout=0.25")
    assert final_weights(tuned) != final_weights(run)
    for out in (run, tuned):
        assert list((out / "pictures").glob("*.png"))
    options = [f"ckpt={tuned}", "planner.context=2", "episodes=1", "protocol.max_episode_frames=40",
               "film_agent_steps=5",
               "world_model_sequences=8", "device=cpu", "threads=1", "bootstrap.resamples=20",
               "modes=[planning]", f"out={tmp_path / 'out'}"]  # fmt: skip
    evaluate.main(load_config(evaluate.EvaluateConfig, "evaluate", options))
    assert (tmp_path / "out" / "report.html").is_file()
    evidence = json.loads((tmp_path / "out" / "results.json").read_text())["world_model"][0]
    assert evidence["next_code"]["frames"] == evidence["steps"] - evidence["sequences"] > 0


def test_the_plan_counts_their_tokens(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pretrain_run(tiny_data, tmp_path / "run", SEVERAL, "dry_run=true")
    text = capsys.readouterr().out
    assert "4 sequences × 68 tokens" in text and "(32 bytes a frame that is found)" in text
