"""What finetuning the heads alone, or low-rank additions, saves against finetuning everything.

    python benchmarks/adapt.py --models nano 40M --rounds 5

Ratios are medians of the rounds' ratios; all methods take turns in one process.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

sys.path.insert(0, str(Path(__file__).resolve().parent))

from arguments import positive
from train import Steps, configuration, random_parts

from jowa.pretrain import PretrainConfig, new_agent
from jowa.training.adaptation import METHODS, AdaptationConfig, adapt
from jowa.training.checkpoint import FOLDER, Place
from jowa.training.distribution import Distribution
from jowa.training.learner import Learner
from jowa.training.loop import total_counts
from jowa.training.metrics import MetricsLog
from jowa.training.parts import Part
from jowa.training.run import Run
from jowa.training.saver import CheckpointSaver

CPU = torch.device("cpu")
ALONE = Distribution(0, 1, CPU)
COLUMNS = ("model", "method", "trained parameters", "optimiser state", "kept for backwards", "a checkpoint", "a step")


@dataclass
class Method:
    """One method's steps, and what was measured of them; bytes are bytes."""

    steps: Steps
    parameters: int
    kept: int
    optimizer: int = 0
    checkpoint: int = 0


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["nano", "40M"], choices=["nano", "40M", "70M", "150M"])
    parser.add_argument("--batch", type=positive, default=8)
    parser.add_argument("--rank", type=positive, default=8)
    parser.add_argument("--rounds", type=positive, default=5)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    configurations = {
        model: configuration(argparse.Namespace(model=model, batch=arguments.batch, precision="fp32", micro=None))
        for model in arguments.models
    }
    narrowest = min(config.model.width for config in configurations.values())
    if arguments.rank > narrowest:
        parser.error(f"--rank {arguments.rank} is more than the trunk's width, which is {narrowest}")
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for model, config in configurations.items():
        for line in rows(config, model, arguments.rank, arguments.rounds):
            print(line, flush=True)


def rows(config: PretrainConfig, model: str, rank: int, rounds: int) -> list[str]:
    """A row for each method; steps take turns, so that other programs disturb all alike."""
    with tempfile.TemporaryDirectory() as folder:
        methods = {name: prepare(config, AdaptationConfig(name, rank), Path(folder) / name) for name in METHODS}
        seconds: dict[str, list[float]] = {name: [] for name in METHODS}
        for turn in range(rounds + 1):
            for name, method in methods.items():
                started = time.perf_counter()
                method.steps()
                if turn:  # the first ones make the optimiser's state
                    seconds[name].append(time.perf_counter() - started)
        for method in methods.values():
            weigh(method)
    ratios = {name: statistics.median(a / b for a, b in zip(times, seconds["full"], strict=True))
              for name, times in seconds.items()}  # fmt: skip
    return [row(model, name, methods, statistics.median(seconds[name]), ratios[name]) for name in METHODS]


def row(model: str, name: str, methods: dict[str, Method], seconds: float, ratio: float) -> str:
    ours, full = methods[name], methods["full"]
    cells = [model, name, f"{ours.parameters / 1e6:.3f} M ({ours.parameters / full.parameters:.2f})"]
    cells += [
        f"{getattr(ours, key) / 1e6:.1f} MB ({getattr(ours, key) / getattr(full, key):.2f})"
        for key in ("optimizer", "kept", "checkpoint")
    ]
    return f"| {' | '.join([*cells, f'{seconds:.3f} s ({ratio:.2f})'])} |"


def prepare(config: PretrainConfig, adaptation: AdaptationConfig, folder: Path) -> Method:
    """A learner in finetuning's stage, its tokenizer frozen: what the methods share would hide what they don't."""
    torch.manual_seed(0)
    learner = Learner(*new_agent(config), config.objective, torch.ones(60, 18, dtype=torch.bool))
    learner.adaptation = adaptation
    adapt(learner.model, adaptation, seed=0)
    learner.begin(replace(config.stage2, world_weight=0.5))
    learner.train()
    folder.mkdir()
    run = Run(folder, 0, config.training, ALONE, MetricsLog(folder, active=False), {})
    parts = random_parts(config, learner, 0, CPU)
    parameters = sum(parameter.numel() for parameter in learner.model.parameters() if parameter.requires_grad)
    return Method(Steps(learner, run, [parts], "finetune"), parameters, kept_bytes(learner, parts))


def weigh(method: Method) -> None:
    """Fill in what is known after the steps: the optimiser's state, and the files of a checkpoint."""
    steps, folder = method.steps, method.steps.run.folder
    state = steps.optimizers.optimizers["model"].state
    method.optimizer = sum(t.nbytes for kept in state.values() for t in kept.values() if isinstance(t, Tensor))
    with CheckpointSaver(folder, {}, 1, ALONE) as saver:
        saver.save_now(Place("finetune", 1), steps.learner, steps.optimizers)
    method.checkpoint = sum(path.stat().st_size for path in (folder / FOLDER).rglob("*") if path.is_file())


def kept_bytes(learner: Learner, parts: list[Part]) -> int:
    """Bytes that autograd keeps of one batch for the backward pass, parameters and buffers not counted."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*learner.parameters(), *learner.buffers())}
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            # Held on to, so that no later tensor gets the same address.
            kept[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    counts = total_counts(learner, parts, ALONE)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        learner(parts[0].to(CPU), counts)
    return sum(size for size, _ in kept.values())


if __name__ == "__main__":
    main()
