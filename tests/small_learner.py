"""A learner small enough for gradients in a blink, and batches for it."""

from __future__ import annotations

import torch

from jowa.data.batch import Batch
from jowa.models.tokenizer import Tokenizer, TokenizerConfig
from jowa.models.world_action_model import ModelConfig, WorldActionModel
from jowa.training.config import ObjectiveConfig
from jowa.training.learner import Learner
from jowa.training.parts import Part, frames_to_take, split

TOKENIZER = TokenizerConfig(
    widths=(2, 2, 4),
    encoder_blocks=(0, 1, 1),
    decoder_blocks=(0, 1, 1),
    embedding_width=8,
    vocabulary=32,
    squared_weight=2.0,
)
MODEL = ModelConfig("small", 2, 2, 16, 2, 8, dropout=0.0, attention_dropout=0.0, q_dropout=0.0)


def small_model(**changes: object) -> WorldActionModel:
    torch.manual_seed(1)
    model = WorldActionModel(ModelConfig(**{**vars(MODEL), **changes}), TOKENIZER.vocabulary)
    # Larger weights than training starts from: differences shall show, and the target copy shall differ.
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and not name.startswith("q_"):
            parameter.data.mul_(5)
    for parameter in model.q_target.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model


def small_learner(objective: ObjectiveConfig | None = None, ranks: int = 1, **changes: object) -> Learner:
    """A learner of MODEL with `changes`; the legal actions of every task are the first six."""
    model = small_model(**changes)
    legal = (torch.arange(18) < 6).expand(60, -1).clone()
    return Learner(Tokenizer(TOKENIZER), model, objective or ObjectiveConfig(), legal, ranks=ranks)


def one_part(batch: Batch, frames: int = 0, seed: int = 0) -> Part:
    """The whole batch as one part, `frames` of its frames being the tokenizer's."""
    lots = torch.rand(batch.valid.shape, generator=torch.Generator().manual_seed(seed))
    return split(batch, lots, frames_to_take(frames, *batch.valid.shape), len(batch))[0]


def padded_batch(lengths: list[int], codes: bool = False, seed: int = 0) -> Batch:
    """One sequence a length (valid steps, 1 … 8), with codes or else frames; every second one ends with its game."""
    random = torch.Generator().manual_seed(seed)
    size = len(lengths)
    length = torch.tensor(lengths)[:, None]
    valid = torch.arange(8) < length
    ends = (torch.arange(8) == length - 1) & (torch.arange(size) % 2 == 1)[:, None]

    def integers(high: int, *shape: int) -> torch.Tensor:
        drawn = torch.randint(0, high, (size, *shape), generator=random)
        return drawn * valid.view(valid.shape + (1,) * (drawn.dim() - 2)) if shape else drawn

    return Batch(
        frames=None if codes else integers(256, 8, 1, 84, 84).to(torch.uint8),
        codes=integers(32, 8, 36) if codes else None,
        actions=integers(18, 8),
        rewards=(integers(3, 8) - 1) * 2.5 * valid,
        ends=ends,
        valid=valid,
        tasks=integers(60),
    )
