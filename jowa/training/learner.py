"""Everything that is trained, behind one forward(batch) → loss, metrics."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from jowa.data.batch import Batch
from jowa.models.perceptual import LPIPS
from jowa.models.tokenizer import Tokenizer
from jowa.models.world_action_model import WorldActionModel
from jowa.objectives.autoencoding import autoencoding_losses
from jowa.objectives.conservative import conservative_counts, conservative_losses
from jowa.objectives.temporal_difference import c51_loss, mse_loss, td_count
from jowa.objectives.world import world_counts, world_losses
from jowa.training.config import ObjectiveConfig, StageConfig


class Part(NamedTuple):
    """What one forward call works on.

    frame_index (F,) int64 chooses the tokenizer's frames among the batch's B·L, frame_weight (F,) is 0 for padding;
    both are empty when the tokenizer is frozen.
    """

    batch: Batch
    frame_index: Tensor
    frame_weight: Tensor


class Learner(nn.Module):
    """Tokenizer and world-action model with their objectives, under one stage at a time.

    Losses are sums over valid places, divided by `counts` that the caller has added up over all processes and
    micro-batches: averaging the processes' own means would weigh a padded sequence's steps more than others'.
    """

    legal: Tensor

    def __init__(
        self,
        tokenizer: Tokenizer,
        model: WorldActionModel,
        objective: ObjectiveConfig,
        legal: Tensor,
        perceptual: LPIPS | None = None,
        ranks: int = 1,
    ) -> None:
        """legal (60, 18) bool: the legal actions of each task; ranks: processes that average their gradients."""
        super().__init__()
        self.tokenizer = tokenizer
        self.model = model
        self.perceptual = perceptual
        self.objective = objective
        self.ranks = ranks
        self.stage = StageConfig()
        self.register_buffer("legal", legal, persistent=False)

    def begin(self, stage: StageConfig) -> None:
        """Freeze and thaw for a stage; the target copy starts equal to the Q networks."""
        self.stage = stage
        self.tokenizer.requires_grad_(stage.trains_tokenizer)
        # What no loss reaches must be frozen: processes would wait for its gradients for ever.
        self.model.requires_grad_(stage.world_weight > 0 or self.objective.q_shapes_backbone)
        self.model.q_networks.requires_grad_(stage.trains_q)
        self.model.q_target.requires_grad_(False)
        if stage.world_weight == 0:
            for unused in (self.model.observation_head, self.model.reward_head, self.model.end_head):
                unused.requires_grad_(False)

    def train(self, mode: bool = True) -> Learner:
        super().train(mode)
        if self.perceptual is not None:
            self.perceptual.eval()
        return self

    def counts(self, part: Part) -> dict[str, Tensor]:
        """How many places each loss of this part sums over."""
        batch = part.batch
        counts = dict(world_counts(batch.valid, self.model.tokens_per_frame))
        if self.stage.trains_q:
            counts["td"] = td_count(batch.ends, batch.valid)
            counts |= conservative_counts(batch.valid, self._real(batch))
        if self.stage.trains_tokenizer:
            counts["frames"] = part.frame_weight.sum()
        return {name: count.float() for name, count in counts.items()}

    def forward(
        self, part: Part, counts: dict[str, Tensor], mixture: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """This part's share of the loss, and its share of every metric (they add up over parts and processes).

        counts: sums of `counts` over all parts and processes. mixture (E,): the random ensemble mixture's weights.
        """
        losses, weights = {}, {}
        if self.stage.trains_tokenizer:
            for name, (total, weight) in self._tokenizer_losses(part).items():
                losses[name], weights[name] = total / counts["frames"].clamp(min=1), weight
        for name, (total, weight) in self._model_losses(part.batch, mixture).items():
            losses[name], weights[name] = total / counts[name].clamp(min=1), weight
        loss = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        metrics = {f"loss/{name}": value.detach() for name, value in losses.items()}
        return loss * self.ranks, metrics | {"loss/total": loss.detach()}

    def _tokenizer_losses(self, part: Part) -> dict[str, tuple[Tensor, float]]:
        frames = part.batch.frames
        assert frames is not None, "training the tokenizer needs frames"
        x, reconstruction, quantised = self.tokenizer(frames.flatten(0, 1)[part.frame_index])
        losses = autoencoding_losses(x, reconstruction, quantised.latents, quantised.nearest, part.frame_weight)
        if self.perceptual is not None:
            losses["perceptual"] = (self.perceptual(x, reconstruction) * part.frame_weight).sum()
        weights = {"squared_error": self.tokenizer.config.squared_weight}
        return {name: (total, weights.get(name, 1.0)) for name, total in losses.items()}

    def _model_losses(self, batch: Batch, mixture: Tensor | None) -> dict[str, tuple[Tensor, float]]:
        stage, model = self.stage, self.model
        codes = self.codes(batch)
        hidden = model.hidden(codes, batch.actions, batch.tasks)
        losses: dict[str, tuple[Tensor, float]] = {}
        if stage.world_weight > 0:
            world = world_losses(
                model.observation_logits(hidden.observation),
                model.reward_logits(hidden.action),
                model.end_logits(hidden.action),
                codes, batch.rewards, batch.ends, batch.valid,
            )  # fmt: skip
            losses |= {name: (total, stage.world_weight) for name, total in world.items()}
        if stage.trains_q:
            losses |= self._q_losses(hidden.last_code, batch, mixture)
        return losses

    def _q_losses(self, h: Tensor, batch: Batch, mixture: Tensor | None) -> dict[str, tuple[Tensor, float]]:
        model = self.model
        logits = model.q_logits(h if self.objective.q_shapes_backbone else h.detach())
        target = model.q_target_logits(h.detach())
        # Under autocast even float32 inputs are multiplied in bfloat16, whose steps at Q = 10 are 0.06.
        with torch.autocast(h.device.type, enabled=False):
            return self._q_objectives(logits.float(), target.float(), batch, mixture)

    def _q_objectives(
        self, logits: Tensor, target: Tensor, batch: Batch, mixture: Tensor | None
    ) -> dict[str, tuple[Tensor, float]]:
        stage, model = self.stage, self.model
        steps = batch.actions, batch.rewards, batch.ends, batch.valid, self.legal[batch.tasks]
        if model.config.q_loss == "c51":
            td = c51_loss(logits, target, *steps, model.support, self.objective.gamma, mixture)
        else:
            td = mse_loss(logits[..., 0], target[..., 0], *steps, self.objective.gamma, mixture)
        losses = {"td": (td, stage.td_weight)}
        if self.objective.conservative != "none" and stage.conservative_weight > 0:
            expected = model.expected_q(logits, mixture)
            penalty = conservative_losses(expected, batch.actions, batch.valid, self._real(batch))
            losses |= {name: (total, stage.conservative_weight) for name, total in penalty.items()}
        return losses

    def codes(self, batch: Batch) -> Tensor:
        """The batch's codes (B, L, K), from its frames where it carries none."""
        if batch.codes is not None:
            return batch.codes
        assert batch.frames is not None, "a batch carries frames or codes"
        return self.tokenizer.encode(batch.frames.flatten(0, 1)).view(*batch.frames.shape[:2], -1)

    def _real(self, batch: Batch) -> Tensor:
        if self.objective.conservative == "combo" and batch.imagined is not None:
            return ~batch.imagined
        return torch.ones_like(batch.tasks, dtype=torch.bool)


def draw_frames(batch: Batch, frames: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Choose `frames` of the batch's B·L frames at random without repeats, real ones before padding.

    Returns index (F,) int64 and weight (F,), 0 for padding; the shapes depend on sizes alone.
    """
    valid = batch.valid.flatten()
    lots = torch.rand(valid.shape, generator=generator).to(valid.device) + (~valid) * 2.0
    index = lots.topk(min(frames, valid.numel()), largest=False).indices
    return index, valid[index].float()
