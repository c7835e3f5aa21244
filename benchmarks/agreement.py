"""How often bfloat16 decides as float32 does, on the golden weights: next codes, greedy actions, beam actions.

    python benchmarks/agreement.py                  # CPU, and the GPU where there is one
    python benchmarks/agreement.py --sizes 40M

The reference is float32 on the same device, TF32 off. Weights and contexts are those of tests/golden: random ones,
where Q values may lie closer together than a trained model's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from golden_weights import FOLDER, golden_state

from jowa.games import GAMES, legal_mask
from jowa.models.published import MODELS, TOKENIZER, model_from_published
from jowa.models.tokenizer import Tokenizer
from jowa.models.world_action_model import WorldActionModel
from jowa.planning.beam_search import BeamSearch
from jowa.planning.dream import Context
from jowa.planning.greedy import Greedy
from jowa.planning.tree_dream import TreeDream

FRAMES = (1, 2, 3, 4, 5, 6)
"""Lengths of the contexts; each of the golden batch's three rows gives one of each."""


@contextmanager
def precision(name: str, device: str) -> Iterator[None]:
    tf32 = name == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    with torch.autocast(device, torch.bfloat16, enabled=name == "bf16"), torch.inference_mode():
        yield
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def load(size: str, device: str) -> tuple[WorldActionModel, Tokenizer]:
    config = MODELS[size]
    model = WorldActionModel(config, 2048)
    salt = str(np.load(FOLDER / "golden.npz")["salt"])
    model.load_state_dict(model_from_published(golden_state(f"JOWA_{size}", salt), config.layers))
    tokenizer = Tokenizer(TOKENIZER)
    tokenizer.load_state_dict(golden_state("tokenizer", salt))
    return model.to(device).eval(), tokenizer.to(device).eval()


def golden_batch(device: str) -> list[Tensor]:
    """Codes (3, 8, 36), actions (3, 8) and tasks (3,)."""
    golden = np.load(FOLDER / "golden.npz")
    names = ("b_tokens", "b_actions", "b_games")
    return [torch.from_numpy(golden[name].astype(np.int64)).to(device) for name in names]


def contexts(device: str) -> tuple[Context, Tensor]:
    """18 contexts of 1 to 6 frames in one batch, and their legal actions."""
    codes, actions, tasks = golden_batch(device)
    rows = torch.arange(len(tasks), device=device).repeat(len(FRAMES))
    lengths = torch.tensor(FRAMES, device=device).repeat_interleave(len(tasks))
    legal = torch.from_numpy(np.stack([legal_mask(GAMES[task]) for task in tasks.tolist()])).to(device)
    width = max(FRAMES)
    return Context(codes[rows, :width], actions[rows, :width], lengths, tasks[rows]), legal[rows]


def decisions(model: WorldActionModel, tokenizer: Tokenizer, device: str) -> dict[str, Tensor]:
    """What is decided: frames' codes, codes given the true ones before, those of an imagined frame, and actions.

    `encode` always works in float32; training the tokenizer does not, so its forward pass is compared.
    """
    context, legal = contexts(device)
    frames = torch.from_numpy(np.load(FOLDER / "golden.npz")["tok_frames"]).flatten(0, 1).to(device)
    hidden = model.hidden(*golden_batch(device))
    found = {"frames' codes": tokenizer(frames)[2].codes}
    found["next codes"] = model.observation_logits(hidden.observation).argmax(-1)
    dream = TreeDream(model)
    plan = Greedy().plan(dream, context, legal)
    found["greedy actions"] = plan.actions
    # The same action everywhere, so that precisions are compared on the same imagined step.
    child = dream.expand(torch.zeros_like(plan.actions)[:, None], legal.int().argmax(1, keepdim=True))
    found["decoded codes"] = dream.codes(child.ids)
    for width in (2, 4):
        found[f"beam actions, W={width} H=2"] = BeamSearch(width, 2).plan(dream, context, legal).actions
    return {name: tensor.cpu() for name, tensor in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["40M", "150M"], choices=list(MODELS))
    sizes = parser.parse_args().sizes
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    print("| model | device | precision | decision | equal | of | share |\n|---|---|---|---|---|---|---|")
    for size in sizes:
        for device in devices:
            model, tokenizer = load(size, device)
            with precision("float32", device):
                wanted = decisions(model, tokenizer, device)
            for name in ("bf16", *(["tf32"] if device == "cuda" else [])):
                with precision(name, device):
                    found = decisions(model, tokenizer, device)
                for what, tensor in wanted.items():
                    equal = int((tensor == found[what]).sum())
                    share = f"{100 * equal / tensor.numel():.1f} %"
                    print(f"| {size} | {device} | {name} | {what} | {equal} | {tensor.numel()} | {share} |", flush=True)


if __name__ == "__main__":
    main()
