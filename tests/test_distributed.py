"""Several processes train as one does, unequal padding included."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from launch import launch
from processes import CASES, LENGTHS, in_double, process, some_steps, together
from safetensors.torch import load_file
from tiny_store import pretrain_run
from torch import Tensor

from jowa.errors import UserError
from jowa.models.agent_files import WEIGHTS
from jowa.training.checkpoint import latest_checkpoint, list_checkpoints
from jowa.training.config import StageConfig, TrainingConfig, check_batch
from jowa.training.distribution import Distribution

ALONE = Distribution(0, 1, torch.device("cpu"))
Results = dict[str, Any]


@pytest.fixture(scope="module", params=[4])
def several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Results]]:
    """What each of several processes found, case by case."""
    folder = tmp_path_factory.mktemp("several")
    together(process, request.param, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(request.param)]


@cache
def undivided(name: str, precision: str = "double") -> Results:
    """What one process finds on the whole batch at once; variants in micro-batches share it."""
    case = CASES[name.removesuffix(" in micro-batches")]
    with TemporaryDirectory() as folder:
        return (in_double if precision == "double" else some_steps)(case, ALONE, Path(folder))


def assert_same(results: Results, expected: Results) -> None:
    """All in double precision: equal but for the order of sums."""
    assert results["gradients"].keys() == expected["gradients"].keys()
    size = norm(expected["gradients"].values())
    assert size > 0
    for name, gradient in expected["gradients"].items():
        difference = (results["gradients"][name] - gradient).norm()
        assert difference <= 1e-9 * gradient.norm() + 1e-12 * size, (name, float(difference), float(gradient.norm()))
    for step, (ours, theirs) in enumerate(zip(results["metrics"], expected["metrics"], strict=True)):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-7, atol=1e-9, msg=f"{name} of step {step}")
    for name, tensor in expected["weights"].items():
        torch.testing.assert_close(results["weights"][name], tensor, rtol=1e-6, atol=1e-7, msg=name)


def norm(tensors: Iterable[Tensor]) -> float:
    return float(torch.stack([tensor.norm() for tensor in tensors]).norm())


TRAINED = {
    "stage 1": {"tokenizer", "model.trunk", "model.reward_head"},
    "stage 2": {"model.q_networks", "model.trunk", "model.reward_head"},
    "stage 2, tokenizer too": {"tokenizer", "model.q_networks", "model.trunk", "model.reward_head"},
    "Q alone, apart from the trunk": {"model.q_networks"},
    "Q alone": {"model.q_networks", "model.trunk"},
    "heads": {"model.q_networks", "model.reward_head"},
    "lora": {"model.q_networks", "model.trunk", "model.reward_head"},
}


@pytest.mark.parametrize("name", CASES)
def test_several_processes_train_as_one_on_the_joined_batch(several: list[dict[str, Results]], name: str) -> None:
    assert [sum(LENGTHS[start : start + 4]) for start in range(0, 16, 4)] == [32, 20, 3, 0]
    expected = undivided(name)
    parts = ("tokenizer", "model.q_networks", "model.trunk", "model.reward_head")
    trained = {part for part in parts if any(key.startswith(part) for key in expected["gradients"])}
    assert trained == TRAINED.get(name, trained)
    for results in several:
        assert_same(results[name]["double"], expected)


@pytest.mark.parametrize("name", CASES)
def test_in_single_precision_losses_and_weights_agree_too(several: list[dict[str, Results]], name: str) -> None:
    expected, start = undivided(name, "single"), CASES[name].learner().state_dict()
    moved = norm(tensor - start[key] for key, tensor in expected["weights"].items())
    for results in several:
        ours = results[name]["single"]
        for metrics, theirs in zip(ours["metrics"], expected["metrics"], strict=True):
            for key in (key for key in theirs if key.startswith("loss/")):
                assert metrics[key].item() == pytest.approx(theirs[key].item(), rel=1e-4, abs=1e-5), key
        off = norm(ours["weights"][key] - tensor for key, tensor in expected["weights"].items())
        assert off < 0.01 * moved, (off, moved)


@pytest.mark.parametrize(("name", "micro_batch"), [("stage 1", 2), ("stage 2", 1), ("scalar", 8)])
def test_micro_batches_equal_the_whole_batch(name: str, micro_batch: int, tmp_path: Path) -> None:
    assert_same(in_double(replace(CASES[name], micro_batch=micro_batch), ALONE, tmp_path), undivided(name))


EXACT = ["model.q_dropout=0", "stage1.tokenizer_frames=32", "training.checkpoint_every=4"]


def test_torchrun_pretrains_into_one_folder(tiny_data: Path, tmp_path: Path) -> None:
    alone = pretrain_run(tiny_data, tmp_path / "alone", *EXACT, "training.picture_every=4")
    out = tmp_path / "together"
    done = launch("jowa.pretrain", "+exp=smoke", f"data.path={tiny_data}", f"out={out}", *EXACT, processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("The run is in") == 1
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()].count("together") == 1
    names = {path.relative_to(alone) for path in alone.rglob("*")}
    assert {path.relative_to(out) for path in out.rglob("*")} == names
    lines = [len((run / "metrics.jsonl").read_text().splitlines()) for run in (out, alone)]
    assert lines[0] == lines[1]
    start = weights(list_checkpoints(alone, "stage1")[0])
    ours, theirs = weights(latest_checkpoint(out)), weights(latest_checkpoint(alone))
    moved = distance(theirs, start)
    assert moved > 0 and distance(ours, theirs) < 0.02 * moved, (distance(ours, theirs), moved)
    assert "Warning" not in done.stderr, done.stderr


def weights(checkpoint: Path) -> dict[str, Tensor]:
    return load_file(checkpoint / WEIGHTS)


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return float(torch.stack([(tensor - other[name]).norm() for name, tensor in one.items()]).norm())


def test_errors_of_the_first_process_reach_all() -> None:
    def fail() -> None:
        raise UserError("no")

    with pytest.raises(UserError, match=r"^no$"):
        ALONE.on_main(fail)
    assert ALONE.on_main(lambda: 3) == 3 and ALONE.gather(4) == [4]


@pytest.mark.parametrize(
    ("changes", "ranks", "frames", "message"),
    [
        ({"batch_size": 6}, 4, 0, r"training\.batch_size=6 .* multiple of 4"),
        ({"batch_size": 8, "micro_batch": 3}, 2, 0, r"training\.micro_batch=3 .* 4 sequences"),
        ({"batch_size": 8, "micro_batch": 0}, 2, 0, r"training\.micro_batch=0"),
        ({"batch_size": 8, "micro_batch": 2}, 2, 3, r"a\.tokenizer_frames=3 .* 4 or more"),
    ],
)
def test_batches_that_cannot_be_shared(changes: dict[str, int], ranks: int, frames: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_batch(TrainingConfig(**changes), ranks, {"a": StageConfig(tokenizer_frames=frames)})
