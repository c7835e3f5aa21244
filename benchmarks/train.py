"""A training step: how long it takes, what share of that are bare matrix products, and what holds it up.

    python benchmarks/train.py --model nano --stage 2 --batch 12               # on a CPU: eager
    python benchmarks/train.py --model nano --stage 2 --batch 12 --compile     # and compiled, in the same rounds
    python benchmarks/train.py --model 150M --stage 2 --batch 512 --micro 128  # on a GPU: compiled in any case
    python benchmarks/train.py --project                                       # what the paper's training would need

Everything is measured in one process, in rounds that do each thing once; ratios are the medians of the rounds' ratios.
Step times are of batches without padding that lie ready in memory; the loader's wait and a checkpoint's stall are those
of the real loop on a small episode store of its own.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from arguments import positive, user_errors
from rounds import Rounds, Work
from train_loop import loop_stalls
from train_products import (
    attention_products,
    convolution_work,
    convolutions,
    linear_products,
    product_work,
)
from train_projection import projection

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from host_syncs import HostSyncs
from torch._dynamo.utils import counters

from jowa.cli import load_config
from jowa.data.batch import Batch
from jowa.models.perceptual import LPIPS
from jowa.pretrain import PretrainConfig, new_agent
from jowa.training.distribution import Distribution, choose_device
from jowa.training.finite import FiniteGuard
from jowa.training.learner import Learner
from jowa.training.loop import autocast, train_step
from jowa.training.metrics import MetricsLog
from jowa.training.optimization import Optimizers
from jowa.training.parts import Part, frames_to_take, split
from jowa.training.run import Run
from jowa.training.speed import peak_flops, workload

SQUARE = 2048
"""Rows of the matrix whose square tells what a device can do where no data sheet is at hand."""


class Steps:
    """One learner's training steps on batches that change from step to step."""

    def __init__(self, learner: Learner, run: Run, batches: Sequence[list[Part]], name: str) -> None:
        self.learner, self.run, self.batches, self.name = learner, run, batches, name
        self.optimizers = Optimizers(learner, learner.stage, run.config)
        self.guard = FiniteGuard(run.distribution)
        self.done = 0

    def __call__(self) -> None:
        parts = self.batches[self.done % len(self.batches)]
        train_step(self.run, self.name, self.done, self.learner, self.optimizers, self.guard, parts)
        self.done += 1


def configuration(arguments: argparse.Namespace) -> PretrainConfig:
    """`+exp=atari15` with another model and batch; the tokenizer's frames keep their proportion."""
    changes = [f"model={arguments.model}", f"training.batch_size={arguments.batch}", "tokenizer.perceptual=none",
               f"stage1.tokenizer_frames={4 * arguments.batch}", f"training.precision={arguments.precision}",
               f"training.micro_batch={arguments.micro or 'null'}"]  # fmt: skip
    return load_config(PretrainConfig, "pretrain", ["+exp=atari15", *changes])


def new_learner(config: PretrainConfig, stage: int, lpips: bool, device: torch.device) -> Learner:
    """LPIPS, if wanted, has random weights: its time is the same."""
    torch.manual_seed(0)
    legal = torch.ones(60, 18, dtype=torch.bool)
    learner = Learner(*new_agent(config), config.objective, legal, LPIPS() if lpips and stage == 1 else None)
    learner.begin(config.stages[f"stage{stage}"])
    learner.train()
    return learner.to(device)


def random_parts(config: PretrainConfig, learner: Learner, seed: int, device: torch.device) -> list[Part]:
    """A batch without padding in micro-batches."""
    random = torch.Generator().manual_seed(seed)
    shape = config.training.batch_size, config.model.blocks

    def integers(low: int, high: int, *sizes: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.randint(low, high, sizes, generator=random, dtype=dtype)

    trains_tokenizer = learner.stage.trains_tokenizer
    codes = integers(0, config.tokenizer.vocabulary, *shape, learner.model.tokens_per_frame, dtype=torch.int32)
    batch = Batch(
        frames=integers(0, 256, *shape, 1, 84, 84, dtype=torch.uint8) if trains_tokenizer else None,
        codes=None if trains_tokenizer else codes,
        actions=integers(0, 18, *shape),
        rewards=integers(-1, 2, *shape).float(),
        ends=torch.zeros(shape, dtype=torch.bool),
        valid=torch.ones(shape, dtype=torch.bool),
        tasks=integers(0, 60, shape[0]),
    )
    takes = frames_to_take(learner.stage.tokenizer_frames, *shape)
    parts = split(batch, torch.rand(shape, generator=random), takes, config.training.micro_batch or shape[0])
    return [part.pin_memory() for part in parts] if device.type == "cuda" else parts


def bare_works(learner: Learner, parts: list[Part], bf16: bool, device: torch.device) -> dict[str, Work]:
    """What the step's arithmetic takes by itself, and a large square product for the device's peak."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    part = parts[0]
    found: dict[str, Work] = {
        "linear products": product_work(linear_products(learner, part), dtype, device),
        "attention products": product_work(attention_products(learner, part), dtype, device),
    }
    if learner.stage.trains_tokenizer:
        found["convolutions"] = convolution_work(convolutions(learner, part, dtype), device)
    works: dict[str, Work] = {
        name: lambda work=work: [work() for _ in parts]
        for name, work in found.items()  # type: ignore[misc]
    }
    square = torch.randn(SQUARE, SQUARE, dtype=dtype, device=device)
    works["square product"] = lambda: square @ square
    return works


def host_syncs(steps: Steps, device: torch.device) -> int:
    """How often the host waits in a step: on a GPU as CUDA finds it, on a CPU by operations that would make it wait."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                steps()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(warning.message) for warning in found)
    with HostSyncs() as syncs:
        steps()
    return syncs.found.total()


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    device = choose_device(arguments.device, "--device")
    config, name = configuration(arguments), f"stage{arguments.stage}"
    run = Run(folder, 0, config.training, Distribution(0, 1, device), MetricsLog(folder, active=False), {})
    learner = new_learner(config, arguments.stage, arguments.lpips, device)
    batches = [random_parts(config, learner, seed, device) for seed in range(2)]
    steps = {"eager": Steps(learner, run, batches, name)}
    if device.type == "cuda" if arguments.compile is None else arguments.compile:
        twin = copy.deepcopy(learner)
        twin.compile(dynamic=False)
        steps["compiled"] = Steps(twin, run, batches, name)
    Rounds(steps, 2, device)
    report: dict[str, object] = dict(facts(arguments, config, device))
    if device.type == "cuda":
        report["GPU memory, GB at most"] = {kind: most_memory(step, device) for kind, step in steps.items()}
    bare = bare_works(learner, batches[0], uses_bf16(config, device), device)
    Rounds(bare, 2, device)
    graphs = counters["stats"]["unique_graphs"]
    found = Rounds(steps | bare, arguments.rounds, device)
    if "compiled" in steps:
        report["eager, times compiled"] = found.times("eager", "compiled")
        report["graph breaks"] = sum(counters["graph_break"].values())
        report["graphs compiled after warm-up"] = counters["stats"]["unique_graphs"] - graphs
    report["host syncs in a step"] = host_syncs(steps["compiled" if device.type == "cuda" else "eager"], device)
    report |= speeds(found, list(steps), list(bare), learner, arguments.batch, device)
    return report | loop_stalls(config, name, learner, run)


def speeds(
    found: Rounds, kinds: list[str], bare: list[str], learner: Learner, batch: int, device: torch.device
) -> dict[str, object]:
    """The steps' speed, and how many times the bare products they take."""
    peak = peak_flops(device) or 2 * SQUARE**3 / found.median("square product")
    load = replace(workload(learner.model, learner.stage, batch, device), peak=peak)
    report: dict[str, object] = {kind: load.speed(1, found.median(kind), 1) for kind in kinds}
    report["bare, seconds"] = {name: found.median(name) for name in bare}
    products = ("linear products", "attention products")
    report["times the bare matrix products"] = {kind: found.times(kind, *products) for kind in kinds}
    if "convolutions" in bare:
        both = {kind: found.times(kind, *products, "convolutions") for kind in kinds}
        report["times the bare matrix products and convolutions"] = both
    return report


def most_memory(step: Steps, device: torch.device) -> float:
    """GB during one step; the weights and moments of both learners are in it."""
    torch.cuda.reset_peak_memory_stats(device)
    step()
    return torch.cuda.max_memory_allocated(device) / 1e9


def uses_bf16(config: PretrainConfig, device: torch.device) -> bool:
    with autocast(config.training.precision, device):
        return torch.is_autocast_enabled(device.type)


def projected(preset: str, stage: int, sequences: int) -> tuple[PretrainConfig, Learner, Part]:
    """What the projection asks for."""
    arguments = argparse.Namespace(model=preset, batch=sequences, micro=None, precision="bf16")
    config = configuration(arguments)
    # A CPU keeps the attention maps where a GPU doesn't, unless nothing is dropped from them.
    config = replace(config, model=replace(config.model, attention_dropout=0.0))
    learner = new_learner(config, stage, True, torch.device("cpu"))
    return config, learner, random_parts(config, learner, 0, torch.device("cpu"))[0]


def facts(arguments: argparse.Namespace, config: PretrainConfig, device: torch.device) -> dict[str, object]:
    """What was measured, and on what."""
    on = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    return {
        "model": config.model.name,
        "stage": arguments.stage,
        "sequences a step": arguments.batch,
        "at once": arguments.micro or arguments.batch,
        "tokenizer's frames a step": config.stage1.tokenizer_frames if arguments.stage == 1 else 0,
        "LPIPS": arguments.lpips and arguments.stage == 1,
        "precision": "bf16" if uses_bf16(config, device) else "fp32",
        "on": on,
        "versions": f"torch {torch.__version__}, Python {platform.python_version()}",
        "rounds": arguments.rounds,
        "peak for MFU": "nominal" if peak_flops(device) else f"a product of two {SQUARE}×{SQUARE} matrices, measured",
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano", choices=["nano", "40M", "70M", "150M"])
    parser.add_argument("--stage", type=int, default=2, choices=[1, 2])
    parser.add_argument("--batch", type=positive, default=12, help="sequences a step")
    parser.add_argument("--micro", type=positive, help="sequences at once; must divide the batch")
    parser.add_argument("--precision", default="auto", choices=["auto", "bf16", "fp32"])
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="also compiled; on a GPU by default")
    parser.add_argument("--lpips", action="store_true", help="stage 1 with LPIPS")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=positive, default=1, help="of PyTorch on a CPU")
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--project", action="store_true", help="measure nothing; print what the paper's training needs")
    arguments = parser.parse_args(argv)
    if arguments.micro and arguments.batch % arguments.micro:
        parser.error(f"--micro {arguments.micro} must divide --batch {arguments.batch}")
    if arguments.project:
        print(projection(projected))
        return
    torch.set_num_threads(arguments.threads)
    with user_errors(parser), tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(arguments, Path(folder)), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
