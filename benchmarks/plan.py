"""Planning: decisions/s against the same code one at a time, against expanded caches and against the ideal; counts.

    python benchmarks/plan.py --model 150M --environments 1 16 64 256 --widths 2 4 --precision bf16   # on a GPU: all
    python benchmarks/plan.py --model nano                                                           # on a CPU: all
    python benchmarks/plan.py --model 150M --environments 16 --widths 4 --parts expanded --rounds 1  # some of it

Everything is measured in one process, in rounds that do each thing once; ratios are the medians of the rounds' ratios.
All ways to plan must choose the same actions, in float32. Weights and contexts are random: neither changes a time.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence

import torch
from arguments import a_file_to_write, a_width, positive, positive_number, user_errors
from plan_compiled import compiled_dream, graphed_dream, recompiles
from plan_counts import host_syncs, plan_operations, random_contexts, small_twin, token_operations
from plan_expanded import ExpandedDream
from plan_profile import reading, shares
from plan_roofline import H200, Machine, Search, Sizes, ideal_seconds, measured_machine
from rounds import Rounds, Work
from torch import Tensor

from jowa.cli import load_config
from jowa.errors import UserError
from jowa.models.world_action_model import WorldActionModel
from jowa.planning.beam_search import BeamSearch
from jowa.planning.dream import Context, Dream
from jowa.planning.tree_dream import TreeDream
from jowa.pretrain import PretrainConfig
from jowa.training.distribution import choose_device

PARTS = ("serial", "expanded", "compiled", "graphed", "profile", "cached", "reading", "counts", "graphs")
"""Beside the planner itself: other ways to plan (`graphed` on a GPU only), and five more measurements."""


class Decisions:
    """One way to decide for N environments: in one plan, or in one an environment."""

    def __init__(self, planner: BeamSearch, dream: Dream, context: Context, legal: Tensor, apart: bool = False) -> None:
        self.planner, self.dream = planner, dream
        count, size = len(legal), 1 if apart else len(legal)
        fields = (context.codes, context.actions, context.lengths, context.tasks)
        self.batches = [
            (Context(*(field[n : n + size] for field in fields)), legal[n : n + size]) for n in range(0, count, size)
        ]

    def __call__(self) -> None:
        self.actions = torch.cat([self.planner.plan(self.dream, *batch).actions for batch in self.batches])

    def warm_up(self) -> None:
        self.planner.plan(self.dream, *self.batches[0])


def configuration(arguments: argparse.Namespace) -> PretrainConfig:
    return load_config(PretrainConfig, "pretrain", ["+exp=atari15", f"model={arguments.model}"])


def check(arguments: argparse.Namespace) -> None:
    """Raises UserError for options that don't go together, or whose names nobody knows."""
    blocks, frames, steps = configuration(arguments).model.blocks, arguments.context, arguments.horizon
    if frames + steps > blocks:
        raise UserError(f"--context {frames} and --horizon {steps} together exceed the {blocks} frames a model sees.")
    if (arguments.bandwidth is None) != (arguments.flops is None):
        raise UserError("--bandwidth and --flops go together: give both or none.")
    if arguments.backend not in torch._dynamo.list_backends(exclude_tags=()):
        raise UserError(f"--backend {arguments.backend} is none that torch.compile knows: take inductor or aot_eager.")
    choose_device(arguments.device, "--device")


def new_model(arguments: argparse.Namespace, device: torch.device) -> WorldActionModel:
    config = configuration(arguments)
    torch.manual_seed(0)
    model = WorldActionModel(config.model, config.tokenizer.vocabulary).eval().to(device)
    if arguments.precision == "bf16":
        support = model.support
        model.bfloat16().support = support  # expected Q is always computed in float32
    return model


def plans(
    arguments: argparse.Namespace, model: WorldActionModel, machine: Machine, environments: int, width: int
) -> dict[str, object]:
    """Decisions/s of each way to plan for N environments, and of the ideal."""
    context, legal = random_contexts(model, environments, arguments.context)
    planner = BeamSearch(width, arguments.horizon)
    ways = {"shared": Decisions(planner, TreeDream(model), context, legal)}
    if "serial" in arguments.parts and environments > 1:
        ways["serial"] = Decisions(planner, TreeDream(model), context, legal, apart=True)
    if "expanded" in arguments.parts:
        ways["expanded"] = Decisions(planner, ExpandedDream(model), context, legal)
    if "compiled" in arguments.parts:
        ways["compiled"] = Decisions(planner, compiled_dream(model, arguments.backend), context, legal)
    if "graphed" in arguments.parts and model.device.type == "cuda":
        ways["graphed"] = Decisions(planner, graphed_dream(model), context, legal)
        both = compiled_dream(model, arguments.backend, graphed=True)
        ways["compiled and graphed"] = Decisions(planner, both, context, legal)
    for way in ways.values():
        way.warm_up()
    found = Rounds(ways, arguments.rounds, model.device)
    search = Search(environments, width, arguments.horizon, arguments.context)
    ideal = ideal_seconds(Sizes.of(model, model.code_embedding.weight.itemsize), search, machine)
    equal = {name: int((way.actions == ways["shared"].actions).sum()) for name, way in ways.items()}
    if arguments.precision == "fp32" and set(equal.values()) != {environments}:
        raise AssertionError(f"the ways to plan choose different actions: of {environments}, equal are {equal}")
    report: dict[str, object] = {
        "environments": environments,
        "width": width,
        "seconds a plan": {name: found.median(name) for name in ways},
        "decisions/s": {name: environments / found.median(name) for name in ways},
        "times shared": {name: found.times(name, "shared") for name in ways if name != "shared"},
        "equal actions": equal,
        "ideal decisions/s": environments / ideal,
        "share of the ideal": ideal / found.median("shared"),
    }
    if "profile" in arguments.parts:
        report["share of a plan's seconds"] = shares(ways["shared"], arguments.rounds, model.device)
    print(json.dumps(report), file=sys.stderr, flush=True)  # a long run that is stopped has said something
    return report


def cached_step(model: WorldActionModel, environments: int, rounds: int) -> dict[str, object]:
    """One more token of N sequences behind as many as fit in all frames but one, with their cache and without."""
    tokens = (model.config.blocks - 1) * model.block_tokens
    random = torch.Generator().manual_seed(0)
    codes = torch.randint(model.vocabulary, (environments, tokens), generator=random).to(model.device)
    positions, task = torch.arange(tokens, device=model.device).expand_as(codes), torch.zeros_like(codes[:, 0])
    cache = model.new_cache(environments, tokens)
    bias = torch.zeros(environments, 1, 1, tokens, dtype=cache.dtype, device=model.device)

    def full() -> Tensor:
        hidden = model.trunk(model.embed_codes(codes, positions, task))
        return model.observation_logits(hidden[:, -1:])

    def cached() -> Tensor:
        embedded = model.embed_codes(codes[:, -1:], positions[:, -1:], task)
        return model.observation_logits(model.trunk(embedded, cache, positions[0, -1:], bias))

    with torch.inference_mode():
        model.trunk(model.embed_codes(codes, positions, task), cache, positions[0])
        if model.code_embedding.weight.dtype == torch.float32:
            torch.testing.assert_close(cached(), full(), rtol=1e-3, atol=1e-4)
        works: dict[str, Work] = {"full": full, "cached": cached}
        Rounds(works, 2, model.device)
        found = Rounds(works, rounds, model.device)
    return {
        "environments": environments,
        "position": tokens - 1,
        "seconds": {name: found.median(name) for name in works},
        "full, times cached": found.times("full", "cached"),
    }


def counts(arguments: argparse.Namespace, model: WorldActionModel) -> dict[str, object]:
    width, horizon, frames = arguments.widths[0], arguments.horizon, arguments.context
    twin = small_twin(model, model.device)
    return {
        "layers": model.config.layers,
        "operations a decoded token": token_operations(model, width, horizon, frames),
        "operations of a plan, by environments": {
            count: plan_operations(twin, count, width, horizon, frames).total() for count in (1, 2, 16, 64)
        },
        "host syncs in a plan": host_syncs(model, width, horizon, frames),
    }


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    device = choose_device(arguments.device, "--device")
    model = new_model(arguments, device)
    machine = chosen_machine(arguments, model)
    report: dict[str, object] = dict(facts(arguments, machine, device))
    report["plans"] = [
        plans(arguments, model, machine, environments, width)
        for width in arguments.widths
        for environments in arguments.environments
    ]
    if "cached" in arguments.parts:
        report["cached steps"] = [cached_step(model, count, arguments.rounds) for count in arguments.environments]
    if "reading" in arguments.parts:
        report["GB/s"] = reading(model, arguments.rounds)
    if "counts" in arguments.parts:
        report["counts"] = counts(arguments, model)
    if "graphs" in arguments.parts and arguments.environments:
        dream, contexts = compiled_dream(model, arguments.backend), [max(1, arguments.context - 2), arguments.context]
        report["graphs"] = recompiles(
            model, dream, arguments.environments, contexts, arguments.widths[0], arguments.horizon
        )
    return report


def chosen_machine(arguments: argparse.Namespace, model: WorldActionModel) -> Machine:
    """As told; or an H200 by its name; else measured."""
    if arguments.bandwidth is not None:
        return Machine(arguments.bandwidth, arguments.flops)
    if model.device.type == "cuda" and "H200" in torch.cuda.get_device_name(model.device):
        return H200
    return measured_machine(model.device, model.code_embedding.weight.dtype)


def facts(arguments: argparse.Namespace, machine: Machine, device: torch.device) -> dict[str, object]:
    """What was measured, and on what."""
    on = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    return {
        "model": arguments.model,
        "horizon": arguments.horizon,
        "frames of context": arguments.context,
        "precision": arguments.precision,
        "on": on,
        "versions": f"torch {torch.__version__}, Python {platform.python_version()}",
        "rounds": arguments.rounds,
        "ideal of": {"GB/s": machine.bandwidth / 1e9, "GFLOP/s": machine.flops / 1e9},
    }


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano", choices=["nano", "40M", "70M", "150M"])
    parser.add_argument("--environments", type=positive, nargs="*", default=[1, 16], help="none: no plans are timed")
    parser.add_argument("--widths", type=a_width, nargs="+", default=[2, 4])
    parser.add_argument("--horizon", type=positive, default=2)
    parser.add_argument("--context", type=positive, default=6, help="frames")
    parser.add_argument("--precision", default="fp32", choices=["bf16", "fp32"])
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS, help="beside the planner itself")
    parser.add_argument("--backend", default="inductor", help="of torch.compile; aot_eager shows graphs in less time")
    parser.add_argument("--bandwidth", type=positive_number, help="bytes/s for the ideal; with --flops, else measured")
    parser.add_argument("--flops", type=positive_number, help="FLOP/s for the ideal")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=positive, default=1, help="of PyTorch on a CPU")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--json", type=a_file_to_write, help="a new file to write the figures to as well")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = options()
    arguments = parser.parse_args(argv)
    with user_errors(parser):
        check(arguments)
        torch.set_num_threads(arguments.threads)
        report = json.dumps(measure(arguments), indent=1, ensure_ascii=False)
    print(report)
    if arguments.json:
        arguments.json.write_text(report)


if __name__ == "__main__":
    main()
