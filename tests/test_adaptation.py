"""What finetuning's methods train and leave alone, and that low-rank additions are merged and resumed exactly."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_learner import one_part, padded_batch, small_learner, small_model
from test_compiled import gradients
from test_training_step import make_run, take_steps
from tiny_store import final_weights, finetune_run, states_equal
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from jowa.data.batch import Batch
from jowa.errors import UserError
from jowa.games import task_id
from jowa.models.agent_files import WEIGHTS, load_agent
from jowa.models.low_rank import load_low_rank_state, low_rank_maps, low_rank_state, merged_state
from jowa.models.world_action_model import WorldActionModel
from jowa.training.adaptation import ADAPTERS, METHODS, AdaptationConfig, adapt
from jowa.training.checkpoint import latest_checkpoint, list_checkpoints
from jowa.training.config import StageConfig, TrainingConfig
from jowa.training.learner import Learner
from jowa.training.optimization import Optimizers, decay_groups
from jowa.training.run_plan import adapted, count

STAGE = StageConfig(world_weight=0.5, td_weight=1.0, conservative_weight=0.1, learning_rate=1e-3)
LORA = AdaptationConfig("lora", rank=2, alpha=3.0)
HEADS = ("observation_head.", "reward_head.", "end_head.", "q_networks.")
TABLES = ("code_task_embedding.weight", "action_task_embedding.weight")
ACTIONS = "action_embedding.weight"
MAPS = re.compile(r"trunk\.layers\.\d+\.(qkv|projection|mlp\.0|mlp\.2)\.weight")
TASK = 7


def adapted_learner(adaptation: AdaptationConfig, stage: StageConfig = STAGE, **changes: object) -> Learner:
    learner = small_learner(**changes)
    learner.adaptation = adaptation
    adapt(learner.model, adaptation, seed=0)
    learner.begin(stage)
    learner.train()
    return learner


def one_game(seed: int, frames: bool = False) -> Batch:
    return replace(padded_batch([8, 3, 5, 8], codes=not frames, seed=seed), tasks=torch.full((4,), TASK))


def heads_of(model: WorldActionModel, batch: Batch) -> tuple[Tensor, ...]:
    h = model.hidden(batch.codes, batch.actions, batch.tasks)
    return model.observation_logits(h.observation), model.reward_logits(h.action), model.q_logits(h.last_code)


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def expected_to_train(method: str, name: str) -> bool:
    if method == "full":
        return not name.startswith("q_target.")
    low_rank = name in (*TABLES, ACTIONS) or MAPS.fullmatch(name) is not None
    return name.startswith(HEADS) or (method == "lora" and low_rank)


def test_additions_begin_as_nothing() -> None:
    plain, adapted = small_model().eval(), small_model().eval()
    adapt(adapted, LORA, seed=0)
    assert len(list(low_rank_maps(adapted))) == 4 * adapted.config.layers
    batch = padded_batch([8, 5], codes=True)
    for ours, theirs in zip(heads_of(adapted, batch), heads_of(plain, batch), strict=True):
        assert torch.equal(ours, theirs)
    assert states_equal(merged_state(adapted), plain.state_dict())
    factors = low_rank_state(adapted)
    assert any(tensor.any() for name, tensor in factors.items() if name.endswith(".a"))


@pytest.mark.parametrize("method", METHODS)
def test_a_method_changes_what_it_says_and_not_a_bit_else(method: str, tmp_path: Path) -> None:
    learner = adapted_learner(replace(LORA, method=method))
    before = copied(merged_state(learner.model))
    originals = copied({name: p for name, p in low_rank_state(learner.model).items() if name.endswith("original")})
    config = TrainingConfig(batch_size=4, weight_decay=0.1)
    batches = [one_game(seed) for seed in range(4)]
    take_steps(learner, make_run(tmp_path, config), batches)
    after = merged_state(learner.model)
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    trained = {name for name in before if expected_to_train(method, name)}
    assert changed == trained
    for table in {*TABLES} & changed:
        rows = (before[table] != after[table]).any(1).nonzero().flatten().tolist()
        assert rows == [TASK]
    played = {int(action) for batch in batches for action in batch.actions[batch.valid]}
    moved = {int(row) for row in (before[ACTIONS] != after[ACTIONS]).any(1).nonzero()}
    assert moved <= played | {0} if method != "full" else moved
    now = low_rank_state(learner.model)
    assert all(torch.equal(tensor, now[name]) for name, tensor in originals.items())
    assert len(originals) == (8 if method == "lora" else 0)


@pytest.mark.parametrize("method", METHODS)
def test_what_gets_no_gradient_is_frozen_and_what_is_trained_gets_one(method: str) -> None:
    learner = adapted_learner(replace(LORA, method=method))
    _, found = gradients(learner, one_part(one_game(0)))
    assert found.keys() == {name for name, p in learner.named_parameters() if p.requires_grad}
    decaying, others = decay_groups(learner.model)
    assert {id(p) for p in (*decaying, *others)} == {id(p) for p in learner.model.parameters() if p.requires_grad}
    factors = [p for name, p in learner.model.named_parameters() if name.endswith((".0.a", ".0.b"))]
    assert {id(p) for p in factors} <= {id(p) for p in decaying}
    assert len(factors) == (16 if method == "lora" else 0)


def test_heads_alone_keep_nothing_of_the_trunk_for_the_backward_pass() -> None:
    kept = {method: saved_in(method) for method in METHODS}
    assert kept["heads"] == (False, 0) and kept["full"] == (True, 0) and kept["lora"][0]
    assert kept["lora"][1] == 8  # the merged maps


def saved_in(method: str) -> tuple[bool, int]:
    """Whether autograd keeps anything inside the trunk, and how many maps made of a weight and its addition."""
    learner = adapted_learner(replace(LORA, method=method))
    own = {p.untyped_storage().data_ptr() for p in learner.parameters()}
    shapes = {module.weight.shape for module in learner.model.trunk.modules() if isinstance(module, nn.Linear)}
    inside: list[Tensor] = []
    merged: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            inside.append(tensor)
            if tensor.dim() == 2 and {tensor.shape, tensor.t().shape} & shapes:
                merged[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    batch = one_game(0)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        learner.model.hidden(batch.codes, batch.actions, batch.tasks)
    return bool(inside), len(merged)


def test_merged_maps_are_base_plus_scaled_product(tmp_path: Path) -> None:
    learner = adapted_learner(LORA)
    base = copied(merged_state(learner.model))
    take_steps(learner, make_run(tmp_path, TrainingConfig(batch_size=4)), [one_game(seed) for seed in range(3)])
    merged, factors = merged_state(learner.model), low_rank_state(learner.model)
    for name, _ in low_rank_maps(learner.model):
        a, b = (factors[f"{name}.parametrizations.weight.0.{factor}"] for factor in "ab")
        assert a.shape[0] == b.shape[1] == 2 and b.any()
        assert torch.equal(merged[f"{name}.weight"], base[f"{name}.weight"] + 1.5 * (b @ a))
    plain = small_model().eval()
    plain.load_state_dict(merged)
    learner.model.eval()
    batch = padded_batch([8, 5], codes=True)
    for ours, theirs in zip(heads_of(learner.model, batch), heads_of(plain, batch), strict=True):
        assert torch.equal(ours, theirs)


def test_under_half_precision_the_map_trained_is_the_map_saved() -> None:
    model = small_model()
    adapt(model, LORA, seed=0)
    state = low_rank_state(model)
    load_low_rank_state(model, {name: tensor + 0.1 for name, tensor in state.items()})
    name, module = next(iter(low_rank_maps(model)))
    merged = merged_state(model)[f"{name}.weight"]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module.weight, merged)


def test_dropout_still_drops_in_a_frozen_trunk() -> None:
    batch = padded_batch([8], codes=True)
    for method in METHODS:
        model = adapted_learner(replace(LORA, method=method), dropout=0.5).model
        assert not torch.equal(heads_of(model, batch)[0], heads_of(model, batch)[0])


@pytest.mark.parametrize("method", ["heads", "lora"])
def test_compiled_is_eager(method: str) -> None:
    learner = adapted_learner(replace(LORA, method=method))
    part = one_part(one_game(0))
    metrics, expected = gradients(learner, part)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    learner.compile(dynamic=False, backend="aot_eager")
    found, compiled = gradients(learner, part)
    assert not torch._dynamo.utils.counters["graph_break"]
    torch.testing.assert_close(found, metrics, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(compiled, expected, rtol=1e-3, atol=3e-5)


def test_the_target_follows_the_q_networks_under_every_method(tmp_path: Path) -> None:
    for method in METHODS:
        learner = adapted_learner(replace(LORA, method=method))
        take_steps(learner, make_run(tmp_path, TrainingConfig(batch_size=4)), [one_game(0)])
        learner.model.synchronise_target()
        assert states_equal(learner.model.q_target.state_dict(), learner.model.q_networks.state_dict())


@pytest.mark.parametrize("method", METHODS)
def test_the_plan_counts_what_is_trained(method: str) -> None:
    adaptation = replace(LORA, method=method)
    learner = adapted_learner(adaptation)
    optimizers = Optimizers(learner, STAGE, TrainingConfig())
    trained = sum(p.numel() for group in optimizers.optimizers["model"].param_groups for p in group["params"])
    assert count(adapted(small_model(), adaptation), trained_only=True) == trained
    assert sum(p.numel() for p in learner.model.parameters() if p.requires_grad) == trained


def every_file(run: Path) -> Iterator[bytes]:
    checkpoint = latest_checkpoint(run)
    return ((checkpoint / name).read_bytes() for name in (WEIGHTS, ADAPTERS) if (checkpoint / name).is_file())


@pytest.mark.parametrize("method", ["heads", "lora"])
def test_interrupted_equals_uninterrupted(method: str, smoke_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    changes = [f"finetune.method={method}", "finetune.rank=3"]
    whole = finetune_run(tiny_data, tmp_path / "whole", smoke_run, *changes)
    finetune_run(tiny_data, tmp_path / "cut", smoke_run, *changes, "stage.steps=2")
    cut = finetune_run(tiny_data, tmp_path / "cut", smoke_run, *changes, "resume=auto")
    assert list(every_file(cut)) == list(every_file(whole))
    assert len(list(every_file(whole))) == (2 if method == "lora" else 1)
    other = finetune_run(tiny_data, tmp_path / "other", smoke_run, *changes, "seed=1")
    assert final_weights(other) != final_weights(whole)


def test_a_checkpoint_is_an_agent_like_any(smoke_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    run = finetune_run(tiny_data, tmp_path / "run", smoke_run, "finetune.method=lora", "finetune.rank=3")
    checkpoint = latest_checkpoint(run)
    agent, base = load_agent(checkpoint), load_agent(latest_checkpoint(smoke_run))
    assert agent.description["adaptation"] == {"method": "lora", "rank": 3, "alpha": 16.0}
    assert agent.description["model"] == base.description["model"]
    tensors, before = load_file(checkpoint / WEIGHTS), load_file(latest_checkpoint(smoke_run) / WEIGHTS)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {name: t.shape for name, t in before.items()}
    kept = load_file(checkpoint / ADAPTERS)
    for name, tensor in kept.items():
        if name.endswith("original"):
            stem = name.removesuffix(".parametrizations.weight.original")
            a, b = (kept[f"{stem}.parametrizations.weight.0.{factor}"] for factor in "ab")
            assert torch.equal(tensor, before[f"model.{stem}.weight"])
            assert torch.equal(tensors[f"model.{stem}.weight"], tensor + 16.0 / 3 * (b @ a))
    table = "model.code_task_embedding.weight"
    assert (tensors[table] != before[table]).any(1).nonzero().flatten().tolist() == [task_id("Pong")]
    again = finetune_run(tiny_data, tmp_path / "again", run, "finetune.method=full")
    assert not (latest_checkpoint(again) / ADAPTERS).exists()
    assert load_agent(latest_checkpoint(again)).description["adaptation"] == {"method": "full"}


def test_a_missing_or_damaged_file_of_additions_is_one_sentence(
    smoke_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    changes = ["finetune.method=lora", "finetune.rank=3"]
    run = finetune_run(tiny_data, tmp_path / "run", smoke_run, *changes, "stage.steps=2")
    path = list_checkpoints(run)[-1] / ADAPTERS
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=f"is damaged .{ADAPTERS} isn't as it was written.: "):
        finetune_run(tiny_data, run, smoke_run, *changes, "resume=auto")
    path.unlink()
    with pytest.raises(UserError, match=f"is damaged .*{ADAPTERS}.: "):
        finetune_run(tiny_data, run, smoke_run, *changes, "resume=auto")
    path.write_bytes(content)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(path.parent, elsewhere)
    model = load_agent(elsewhere).model
    with pytest.raises(UserError, match=f"{ADAPTERS} can't be read .tensors of other names or shapes"):
        adapt(model, replace(LORA, rank=2), 0, elsewhere)
    (elsewhere / ADAPTERS).unlink()
    with pytest.raises(UserError, match=f"{ADAPTERS} is missing: put it back"):
        adapt(load_agent(elsewhere).model, replace(LORA, rank=3), 0, elsewhere)


@pytest.mark.parametrize("change", ["finetune.method=full", "finetune.rank=4", "finetune.alpha=1"])
def test_other_settings_do_not_go_on_with_a_run(change: str, smoke_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    changes = ["finetune.method=lora", "finetune.rank=3"]
    run = finetune_run(tiny_data, tmp_path / "run", smoke_run, *changes, "stage.steps=2")
    with pytest.raises(UserError, match=f"has {change.split('=')[0]}="):
        finetune_run(tiny_data, run, smoke_run, *changes, change, "resume=auto")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["finetune.method=lorra"], r"no finetune\.method 'lorra': did you mean 'lora'"),
        (["finetune.method=x"], r"no finetune\.method 'x': choose one of full, heads, lora"),
        (["finetune.rank=0"], r"finetune\.rank must be at least 1, not 0"),
        (["finetune.method=lora", "finetune.rank=33"], r"finetune\.rank=33 is more than the trunk's width.* most 32"),
        (["finetune.alpha=0"], r"finetune\.alpha must be a finite number above 0, not 0"),
        (["finetune.alpha=inf"], r"finetune\.alpha must be a finite number above 0"),
        (
            ["finetune.method=lora", "stage.world_weight=0", "objective.q_shapes_backbone=false"],
            r"finetune\.method=lora has nothing to learn",
        ),
        (["finetune.method=heads", "stage.world_weight=0", "stage.td_weight=0"], "has nothing to learn"),
    ],
)
def test_what_cannot_be_adapted(
    changes: list[str], message: str, smoke_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        finetune_run(tiny_data, tmp_path / "run", smoke_run, *changes)
    assert not (tmp_path / "run").exists()


def test_the_plan_says_what_a_method_trains(
    smoke_run: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = {}
    for method in METHODS:
        finetune_run(tiny_data, tmp_path / "run", smoke_run, f"finetune.method={method}", "dry_run=true")
        plans[method] = capsys.readouterr().out
    trained = {method: float(re.search(r"trained of it +([\d.]+) M", plan).group(1)) for method, plan in plans.items()}
    assert trained["heads"] < trained["lora"] < trained["full"]
    assert "(lora, rank 8, alpha 16)" in plans["lora"] and "GB of optimiser state" in plans["heads"]
    assert not (tmp_path / "run").exists()
