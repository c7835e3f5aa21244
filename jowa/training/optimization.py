"""AdamW for the world-action model, Adam for the tokenizer; only matrices of linear maps decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from jowa.models.low_rank import LowRank
from jowa.models.q_ensemble import QEnsemble
from jowa.training.config import StageConfig, TrainingConfig
from jowa.training.learner import Learner


class Optimizers:
    """The optimisers of one stage, stepped together."""

    def __init__(self, learner: Learner, stage: StageConfig, config: TrainingConfig) -> None:
        self.clip = config.gradient_clip
        self.stage = stage
        decaying, others = decay_groups(learner.model)
        groups = [{"params": decaying, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "model": torch.optim.AdamW(groups, lr=stage.learning_rate, fused=True)
        }
        if stage.trains_tokenizer:
            parameters = list(learner.tokenizer.parameters())
            self.optimizers["tokenizer"] = torch.optim.Adam(parameters, lr=stage.tokenizer_learning_rate, fused=True)

    def zero_grad(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def clip_gradients(self) -> dict[str, Tensor]:
        """Clip, and return the norms before clipping."""
        return {
            f"gradient_norm/{name}": nn.utils.clip_grad_norm_(_parameters(optimizer), self.clip)
            for name, optimizer in self.optimizers.items()
        }

    def step(self, step: int, skip: Tensor) -> dict[str, float]:
        """Step all optimisers unless `skip` () is 1, which nobody has to wait for; returns the learning rates."""
        warmup = min(1.0, (step + 1) / max(1, self.stage.warmup_steps))
        rates = {"model": self.stage.learning_rate * warmup, "tokenizer": self.stage.tokenizer_learning_rate * warmup}
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rates[name]
            # As torch's gradient scaler does it: the fused kernels look at this on the device and leave all as it is.
            optimizer.found_inf = skip  # type: ignore[attr-defined]
            optimizer.step()
        return {f"learning_rate/{name}": rates[name] for name in self.optimizers}

    def state_dict(self) -> dict[str, Any]:
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, optimizer in self.optimizers.items():
            configured = [{"weight_decay": g["weight_decay"], "fused": g["fused"]} for g in optimizer.param_groups]
            optimizer.load_state_dict(state[name])
            for group, settings in zip(optimizer.param_groups, configured, strict=True):
                group.update(settings)
            for parameter, kept in optimizer.state.items():
                # The fused kernels go through memory in order: state must lie as its parameter does.
                moments = {key: value for key, value in kept.items() if value.shape == parameter.shape}
                kept.update({key: torch.empty_like(parameter).copy_(value) for key, value in moments.items()})


def decay_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(decaying, not decaying) trainable parameters: weights of linear maps, or their low-rank factors, against biases,
    norms and embeddings.
    """
    linear: set[Tensor] = set()
    for module in model.modules():
        if isinstance(module, LowRank):
            linear |= {module.a, module.b}
        elif isinstance(module, nn.Linear):
            linear.add(module.weight)
        elif isinstance(module, QEnsemble):
            linear |= {module.get_parameter(f"weight{i}") for i in (1, 2, 3)}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [p for p in trainable if p in linear], [p for p in trainable if p not in linear]


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
