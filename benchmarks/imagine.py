"""Imagination while training: a batch's sequences planned for all at once against one at a time.

    python benchmarks/imagine.py --model nano
    python benchmarks/imagine.py --ckpt runs/demo               # a trained agent from real starts of its own data

All ways take turns in one process, and ratios, of seconds a sequence, are the medians of the rounds' ratios. One at a
time is done for some of the starts only, by our own dream, which keeps keys and values, with and without drafts, and by
the tests' plain planner, which reads the whole sequence again for every code, all futures of a round side by side.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence

import torch
from arguments import a_width, natural, positive, user_errors
from draft import agent_and_model, real_contexts
from plain_planner import History, ModelWorld, beam_search
from plan_counts import random_contexts
from rounds import Rounds
from torch import Tensor

from jowa.errors import UserError
from jowa.models.world_action_model import WorldActionModel
from jowa.planning.beam_search import BeamSearch
from jowa.planning.dream import Context
from jowa.planning.execution import ExecutionConfig
from jowa.planning.making import make_dream
from jowa.planning.planner import Plan
from jowa.planning.splitting import InParts

Planning = Callable[[Context, Tensor], Plan]


def compare(
    model: WorldActionModel, context: Context, legal: Tensor, search: BeamSearch, most: dict[str, int], rounds: int
) -> dict[str, object]:
    """most: through how many of the starts each way of going one at a time goes in a round, as far as there are any."""
    count, alone = len(legal), torch.arange(len(legal))[:, None]
    singly = {name: min(wanted, count) for name, wanted in most.items()}
    dreams = {"dreamed": ExecutionConfig(draft_rows=0), "drafted": ExecutionConfig()}
    codes: dict[str, Tensor] = {}

    def at_once() -> None:
        codes["at once"] = frames(plans(context, legal))

    def one_by_one(name: str) -> Callable[[], None]:
        plan = planner(model, search, dreams[name])

        def imagine() -> None:
            codes[name] = torch.cat([frames(plan(context.rows(n), legal[n])) for n in alone[: singly[name]]])

        return imagine

    def uncached() -> None:
        codes["uncached"] = torch.stack([plainly(model, context, legal, search, n) for n in range(singly["uncached"])])

    plans = planner(model, search, dreams["dreamed"])
    works = {"at once": at_once, **{name: one_by_one(name) for name in dreams}, "uncached": uncached}
    for name in ("at once", *dreams):
        works[name]()
    if not singly["uncached"]:
        del works["uncached"]
    found = Rounds(works, rounds, model.device)
    ways = [name for name in works if name != "at once"]
    equal = {name: codes[name] == codes["at once"][: singly[name]] for name in ways}
    return {
        "starts": count,
        "sequences/s at once": count / found.median("at once"),
        **{f"sequences/s {name}": singly[name] / found.median(name) for name in ways},
        **{f"{name}, times at once": found.times(name, "at once") * count / singly[name] for name in ways},
        **{f"equal codes, {name}": f"{int(same.sum())} of {same.numel()}" for name, same in equal.items()},
    }


def planner(model: WorldActionModel, search: BeamSearch, execution: ExecutionConfig) -> Planning:
    dream = make_dream(model, execution)
    return lambda context, legal: InParts(search).plan(dream, context, legal)


def frames(plan: Plan) -> Tensor:
    """The best futures' codes (N, H, K), on the CPU."""
    return plan.frames[:, 0].cpu()


def plainly(model: WorldActionModel, context: Context, legal: Tensor, search: BeamSearch, n: int) -> Tensor:
    """One start's best future by the planner that is written for reading: its codes (H, K)."""
    given = int(context.lengths[n])
    world = ModelWorld(model, int(context.tasks[n]))
    root = world.root(History(context.codes[n, :given].tolist(), context.actions[n, : given - 1].tolist()))
    best = beam_search(world.imagine, root, legal[n].nonzero()[:, 0].tolist(), search)[0]
    return torch.tensor([state.frame for state in best.states])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ckpt", help="an agent whose data are at hand")
    parser.add_argument("--model", default="nano", choices=["nano", "40M", "70M", "150M"], help="without --ckpt")
    parser.add_argument("--starts", type=positive, nargs="+", default=[16, 64])
    parser.add_argument("--width", type=a_width, default=2)
    parser.add_argument("--horizon", type=positive, default=2)
    parser.add_argument("--singly", type=positive, default=8, help="starts gone through one at a time, at most")
    parser.add_argument("--uncached", type=natural, default=1, help="and without a cache; 0 leaves that out")
    parser.add_argument("--rounds", type=positive, default=5)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    with user_errors(parser):
        compare_all(arguments)


def compare_all(arguments: argparse.Namespace) -> None:
    """Print a line for each number of starts."""
    agent, model = agent_and_model(arguments.ckpt, arguments.model)
    given = model.config.blocks - arguments.horizon
    if given < 1:
        raise UserError(
            f"--horizon {arguments.horizon} leaves no frame to start from: the model sees {model.config.blocks}."
        )
    search = BeamSearch(arguments.width, arguments.horizon)
    singly = {"dreamed": arguments.singly, "drafted": arguments.singly, "uncached": arguments.uncached}
    for count in arguments.starts:
        context, legal = real_contexts(agent, count, given) if agent else random_contexts(model, count, given)
        print(json.dumps(compare(model, context, legal, search, singly, arguments.rounds)), flush=True)


if __name__ == "__main__":
    main()
