"""Everything that is trained, behind one forward(part) → loss, metrics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jowa.data.batch import Batch
from jowa.models.perceptual import LPIPS
from jowa.models.tokenizer import Tokenizer
from jowa.models.world_action_model import Hidden, WorldActionModel
from jowa.objectives.autoencoding import autoencoding_losses
from jowa.objectives.conservative import conservative_counts, conservative_losses
from jowa.objectives.temporal_difference import c51_loss, mse_loss, td_count
from jowa.objectives.world import world_counts, world_losses
from jowa.training.adaptation import AdaptationConfig, restrict
from jowa.training.config import ObjectiveConfig, StageConfig
from jowa.training.parts import Part
from jowa.training.tallies import by_game, code_tallies, q_tallies, world_tallies

Tensors = dict[str, Tensor]
TALLY = "tally/"
"""Metrics of this prefix are tallies, all others shares of a step's value."""
FRAME_LOSSES = ("reconstruction", "squared_error", "quantisation", "perceptual")
"""The losses that are counted by frame, the others are by sequence."""
Q_LOSSES = ("td", "conservative_all", "conservative_data")
"""The losses that imagined sequences enter, the others are of real ones alone."""


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
        """legal (games, actions) bool: each task's legal actions; ranks: processes that average their gradients."""
        super().__init__()
        self.tokenizer = tokenizer
        self.model = model
        self.perceptual = perceptual
        self.objective = objective
        self.ranks = ranks
        self.stage = StageConfig()
        self.adaptation = AdaptationConfig()
        self.register_buffer("legal", legal, persistent=False)

    def begin(self, stage: StageConfig) -> None:
        """Freeze and thaw for a stage, as far as `adaptation` trains at all."""
        self.stage = stage
        self.tokenizer.requires_grad_(stage.trains_tokenizer)
        # What no loss reaches must be frozen: processes would wait for its gradients for ever.
        self.model.requires_grad_(stage.world_weight > 0 or self.objective.q_shapes_backbone)
        self.model.q_networks.requires_grad_(stage.trains_q)
        self.model.q_target.requires_grad_(False)
        if stage.world_weight == 0:
            for unused in (self.model.observation_head, self.model.reward_head, self.model.end_head):
                unused.requires_grad_(False)
        restrict(self.model, self.adaptation)

    def train(self, mode: bool = True) -> Learner:
        super().train(mode)
        if self.perceptual is not None:
            self.perceptual.eval()
        return self

    def loss_weights(self) -> dict[str, float]:
        """The losses of the present stage and their weights."""
        stage, weights = self.stage, {}
        if stage.trains_tokenizer:
            weights = dict.fromkeys(FRAME_LOSSES, 1.0) | {"squared_error": self.tokenizer.config.squared_weight}
            if self.perceptual is None:
                del weights["perceptual"]
        if stage.world_weight > 0:
            weights |= dict.fromkeys(("observation", "reward", "end"), stage.world_weight)
        if stage.trains_q:
            weights["td"] = stage.td_weight
            if self.objective.conservative != "none" and stage.conservative_weight > 0:
                weights |= dict.fromkeys(("conservative_all", "conservative_data"), stage.conservative_weight)
        return weights

    def places(self, part: Part) -> Tensors:
        """How many places each loss sums over: (B,) by sequence, (F,) by frame for the tokenizer's losses, and for the
        Q losses (B + B',) with the imagined sequences.
        """
        sequences = part.sequences
        places = dict(world_counts(part.batch.valid, self.model.tokens_per_frame))
        places["td"] = td_count(sequences.ends, sequences.valid, sequences.taken)
        places |= conservative_counts(sequences.steps, self._real(sequences))
        return {name: places.get(name, part.frame_weight).float() for name in self.loss_weights()}

    def counts(self, part: Part) -> Tensors:
        """The sums of `places`."""
        return {name: places.sum() for name, places in self.places(part).items()}

    def forward(self, part: Part, counts: Tensors, mixture: Tensor | None = None) -> tuple[Tensor, Tensors]:
        """This part's share of the loss, and its share of every metric (they add up over parts and processes).

        counts: sums of `counts` over all parts and processes. mixture (E,): the random ensemble mixture's weights.
        """
        sums, tallies = self._sums(part, mixture)
        weights, places = self.loss_weights(), self.places(part)
        losses = {name: sums[name].sum() / counts[name].clamp(min=1) for name in weights}
        loss = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        frame_tasks = part.batch.tasks[part.frame_index // part.batch.valid.shape[1]]
        tasks_of = dict.fromkeys(FRAME_LOSSES, frame_tasks) | dict.fromkeys(Q_LOSSES, part.sequences.tasks)
        for name, values in sums.items():
            tasks = tasks_of.get(name, part.batch.tasks)
            tallies |= {f"losses/{name}": by_game(values, tasks), f"places/{name}": by_game(places[name], tasks)}
        metrics = {f"loss/{name}": value.detach() for name, value in losses.items()}
        metrics |= {"loss/total": loss.detach()}
        return loss * self.ranks, metrics | {f"{TALLY}{name}": value for name, value in tallies.items()}

    def _sums(self, part: Part, mixture: Tensor | None) -> tuple[Tensors, Tensors]:
        """Every loss by sequence or frame, shaped as in `places`, and the tallies, which are of the real sequences."""
        stage, model, batch = self.stage, self.model, part.batch
        losses = self._tokenizer_losses(part) if stage.trains_tokenizer else {}
        codes = self.codes(batch)
        tallies = code_tallies(codes, batch.valid, model.vocabulary)
        sequences = part._replace(batch=batch.with_codes(codes)).sequences
        assert sequences.codes is not None, "imagined sequences carry codes"
        everything = model.hidden(sequences.codes, sequences.actions, sequences.tasks)
        hidden = everything if part.imagined is None else Hidden(*(states[: len(batch)] for states in everything))
        if stage.world_weight > 0:
            heads = (
                model.observation_logits(hidden.observation),
                model.reward_logits(hidden.action),
                model.end_logits(hidden.action),
            )
            labels = codes, batch.rewards, batch.ends, batch.valid
            losses |= world_losses(*heads, *labels)
            tallies |= world_tallies(*heads, *labels)
        if stage.trains_q:
            q_losses, q = self._q_losses(everything.last_code, sequences, mixture)
            losses |= q_losses
            tallies |= q_tallies(q[: len(batch)], batch.actions, batch.valid, batch.tasks, self.legal[batch.tasks])
        return losses, tallies

    def _tokenizer_losses(self, part: Part) -> Tensors:
        frames = part.batch.frames
        assert frames is not None, "training the tokenizer needs frames"
        x, reconstruction, quantised = self.tokenizer(frames.flatten(0, 1)[part.frame_index])
        losses = autoencoding_losses(x, reconstruction, quantised.latents, quantised.nearest, part.frame_weight)
        if self.perceptual is not None:
            losses["perceptual"] = self.perceptual(x, reconstruction) * part.frame_weight
        return losses

    def _q_losses(self, h: Tensor, batch: Batch, mixture: Tensor | None) -> tuple[Tensors, Tensor]:
        """The Q losses by sequence, and expected Q (B, L, A)."""
        model = self.model
        logits = model.q_logits(h if self.objective.q_shapes_backbone else h.detach())
        target = model.q_target_logits(h.detach())
        # Under autocast even float32 inputs are multiplied in bfloat16, whose steps at Q = 10 are 0.06.
        with torch.autocast(h.device.type, enabled=False):
            return self._q_objectives(logits.float(), target.float(), batch, mixture)

    def _q_objectives(
        self, logits: Tensor, target: Tensor, batch: Batch, mixture: Tensor | None
    ) -> tuple[Tensors, Tensor]:
        model = self.model
        steps = batch.actions, batch.rewards, batch.ends, batch.valid, self.legal[batch.tasks]
        gamma = self.objective.gamma
        if model.config.q_loss == "c51":
            td = c51_loss(logits, target, *steps, model.support, gamma, mixture, batch.taken)
        else:
            td = mse_loss(logits[..., 0], target[..., 0], *steps, gamma, mixture, batch.taken)
        losses = {"td": td}
        expected = model.expected_q(logits, mixture)
        if "conservative_all" in self.loss_weights():
            losses |= conservative_losses(expected, batch.actions, batch.steps, self._real(batch))
        return losses, expected

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
