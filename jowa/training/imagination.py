"""Sequences imagined while training: real prefixes that go on along the best beam (paper, section 5.4 and appendix)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from jowa.data.batch import Batch
from jowa.data.order import rank_slice
from jowa.errors import UserError
from jowa.planning.beam_search import BeamSearch
from jowa.planning.buckets import BucketedDream
from jowa.planning.dream import Context
from jowa.planning.execution import ExecutionConfig
from jowa.planning.making import make_dream
from jowa.planning.planner import Plan
from jowa.planning.splitting import InParts
from jowa.planning.tree_dream import TreeDream
from jowa.training.checkpoint import REPLAY
from jowa.training.distribution import Distribution
from jowa.training.imagination_config import ImaginationConfig
from jowa.training.imagined_sequences import Future, sequences_along
from jowa.training.learner import Learner
from jowa.training.parts import Part
from jowa.training.replay import Replay, places_to_draw
from jowa.training.stopwatch import Stopwatch


class Imagination:
    """Imagines every step's new sequences with the present model, and gives the step its share of those kept.

    All of a process's starts are planned for at once, in evaluation mode and in float32, whatever training's precision:
    so nothing but the optimisers' own weights is read, and no copy of them can be out of date. Nothing here draws from
    PyTorch's global random state, nor waits for a GPU.
    """

    def __init__(self, config: ImaginationConfig, learner: Learner, distribution: Distribution) -> None:
        self.config = config
        self.learner = learner
        self.distribution = distribution
        search = BeamSearch(config.width, config.horizon, learner.objective.gamma, config.use_termination)
        self._planner = InParts(search)
        self._stopwatch = Stopwatch(learner.model.device)
        self._totals = torch.zeros(3, device=learner.model.device)
        self._count = 0

    @cached_property
    def replay(self) -> Replay:
        """The sequences kept, the same on every process."""
        model = self.learner.model
        return Replay(self.config.replay, model.config.blocks, model.tokens_per_frame, model.device)

    @cached_property
    def _dream(self) -> TreeDream | BucketedDream:
        """Never drafting: what it learns of how well it guesses would be lost with an interrupted run."""
        return make_dream(self.learner.model, ExecutionConfig(draft_rows=0))

    def complete(self, parts: Sequence[Part], seed: int, name: str, step: int) -> list[Part]:
        """A step's parts with imagined sequences where they have starts; called on every process alike."""
        starts = [part.starts for part in parts if part.starts is not None]
        if not starts:
            return list(parts)
        self.replay.add(self.imagine(starts).map(self.distribution.join))
        shares = [len(part.batch) for part in parts]
        count = sum(shares) * self.distribution.ranks
        places = places_to_draw(seed, name, step, len(self.replay), count)
        mine = self.replay.rows(places[rank_slice(count, self.distribution.rank, self.distribution.ranks)])
        bounds = [sum(shares[:number]) for number in range(len(parts))]
        return [
            part._replace(starts=None, imagined=mine[first : first + share])
            for part, first, share in zip(parts, bounds, shares, strict=True)
        ]

    @torch.no_grad()
    def imagine(self, starts: Sequence[Batch]) -> Batch:
        """One sequence for each start, with codes, on the model's device; the learner is in training mode after."""
        learner, model = self.learner, self.learner.model
        learner.eval()
        with self._stopwatch:
            moved = [batch.to(model.device, non_blocking=True) for batch in starts]
            prefixes = joined([batch.with_codes(learner.codes(batch)) for batch in moved])
            future = Future.best(self.plan(prefixes), self.config.use_termination)
            imagined = sequences_along(prefixes, future, model.config.blocks)
        learner.train()
        counted = future.taken.sum(1).float(), future.ends.any(1).float(), future.discounted(learner.objective.gamma)
        self._totals += torch.stack([values.sum() for values in counted])
        self._count += len(imagined)
        return imagined

    def plan(self, prefixes: Batch) -> Plan:
        """Beams from the last valid frame of each prefix, which carry codes."""
        assert prefixes.codes is not None, "prefixes carry codes"
        context = Context(prefixes.codes, prefixes.actions, prefixes.valid.sum(1), prefixes.tasks)
        return self._planner.plan(self._dream, context, self.learner.legal[prefixes.tasks])

    def read(self) -> dict[str, float]:
        """Of the sequences imagined since the last reading, on all processes: how fast, and means over them.

        Nothing if there are none. Called on every process alike.
        """
        if not self._count:
            return {}
        seconds = self._totals.new_tensor([self._count, self._stopwatch.read()])
        count, seconds, steps, ended, returns = self.distribution.sum(torch.cat([seconds, self._totals])).tolist()
        self._totals, self._count = torch.zeros_like(self._totals), 0
        return {
            "imagination/sequences_per_second": count * self.distribution.ranks / max(seconds, 1e-9),
            "imagination/steps": steps / count,
            "imagination/ended": ended / count,
            "imagination/return": returns / count,
        }

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of the sequences imagined so far; nothing if there are none."""
        return self.replay.state() if self.config.from_step is not None and len(self.replay) else {}

    def resume(self, checkpoint: Path, steps: int, batch_size: int) -> None:
        """Go on after so many of the stage's steps. Raises UserError when the checkpoint lacks what was imagined."""
        added = self.config.imagined(steps, batch_size)
        if not added:
            return
        path = checkpoint / REPLAY
        try:
            self.replay.load_state(load_file(path), added)
        except (OSError, SafetensorError, ValueError) as error:
            raise UserError(
                f"{path}, the sequences imagined so far, is missing or damaged ({error}): put it back, or delete "
                f"{checkpoint} to go on from the one before it."
            ) from error


def joined(batches: Sequence[Batch]) -> Batch:
    """All sequences of several batches that carry codes, without frames."""
    first, *others = batches
    for other in others:
        first = first.beside(other)
    return first
