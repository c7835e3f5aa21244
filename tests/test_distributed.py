"""Two processes train as one does, unequal padding included."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from launch import launch
from safetensors.torch import load_file
from tiny_store import pretrain_run
from torch import Tensor, multiprocessing
from two_processes import CASES, LENGTHS, free_port, one_step, process

from jowa.errors import UserError
from jowa.models.agent_files import WEIGHTS
from jowa.training.checkpoint import latest_checkpoint, list_checkpoints
from jowa.training.config import StageConfig, TrainingConfig, check_batch
from jowa.training.distribution import Distribution

ALONE = Distribution(0, 1, torch.device("cpu"))
Results = dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Results]]:
    """What each of two processes found, case by case."""
    folder = tmp_path_factory.mktemp("two")
    multiprocessing.spawn(process, (free_port(), folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@cache
def undivided(name: str) -> Results:
    """What one process finds on the whole batch at once; variants in micro-batches share it."""
    case = CASES[name.removesuffix(" in micro-batches")]
    with TemporaryDirectory() as folder:
        return one_step(case, ALONE, Path(folder))


def assert_same(results: Results, expected: Results) -> None:
    assert results["gradients"].keys() == expected["gradients"].keys()
    size = torch.stack([gradient.norm() for gradient in expected["gradients"].values()]).norm()
    assert size > 0
    for name, gradient in expected["gradients"].items():
        difference = (results["gradients"][name] - gradient).norm()
        assert difference <= 1e-9 * gradient.norm() + 1e-12 * size, (name, float(difference), float(gradient.norm()))
    for name, value in expected["metrics"].items():
        assert results["metrics"][name].item() == pytest.approx(value.item(), rel=1e-9), name


@pytest.mark.parametrize("name", CASES)
def test_two_processes_gradients_equal_one_process_on_the_joined_batch(
    both: list[dict[str, Results]], name: str
) -> None:
    assert sum(LENGTHS[:13]) == 100 and sum(LENGTHS[13:]) == 3
    expected = undivided(name)
    trained = {part for part in ("tokenizer", "model.q_networks", "model.trunk", "model.reward_head")
               if any(key.startswith(part) for key in expected["gradients"])}  # fmt: skip
    wanted = {
        "stage 1": {"tokenizer", "model.trunk", "model.reward_head"},
        "stage 2": {"model.q_networks", "model.trunk", "model.reward_head"},
        "Q apart from the trunk": {"model.q_networks"},
        "Q alone": {"model.q_networks", "model.trunk"},
    }
    assert trained == wanted.get(name, trained)
    for results in both:
        assert_same(results[name], expected)


@pytest.mark.parametrize(("name", "micro_batch"), [("stage 1", 2), ("stage 2", 1), ("stage 2", 13)])
def test_micro_batches_equal_the_whole_batch(name: str, micro_batch: int, tmp_path: Path) -> None:
    assert_same(one_step(replace(CASES[name], micro_batch=micro_batch), ALONE, tmp_path), undivided(name))


EXACT = ["model.q_dropout=0", "stage1.tokenizer_frames=32", "training.checkpoint_every=4"]


def test_torchrun_pretrains_into_one_folder(tiny_data: Path, tmp_path: Path) -> None:
    alone = pretrain_run(tiny_data, tmp_path / "alone", *EXACT)
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
