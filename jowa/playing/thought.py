"""What an agent considers at the present frame, for people to look at: its plan in numbers and pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jowa.games import legal_actions, legal_mask, task_id
from jowa.models.agent_files import Agent
from jowa.planning.config import PlannerConfig
from jowa.planning.execution import ExecutionConfig
from jowa.planning.making import make_dream, make_planner
from jowa.planning.planner import Plan
from jowa.planning.strips import decode_frames
from jowa.playing.history import Frame, History


@dataclass(frozen=True)
class ImaginedStep:
    """One agent step of a future: the action, the reward and end it is predicted to bring, the frame (84, 84)."""

    action: int
    reward: float
    ends: bool
    frame: Frame


@dataclass(frozen=True)
class Future:
    """One imagined future: its score, by which the planner ranks, the action it begins with, and its steps."""

    score: float
    action: int
    steps: tuple[ImaginedStep, ...]


@dataclass(frozen=True)
class Thought:
    """A decision: the action chosen, expected Q of every legal action, and the futures considered, best first."""

    action: int
    q: dict[int, float]
    futures: tuple[Future, ...]

    @property
    def value(self) -> float:
        """What the chosen future is worth."""
        return self.futures[0].score


class Thinker:
    """An agent's planning, whatever the planner's settings; draws nothing by chance."""

    def __init__(self, agent: Agent, execution: ExecutionConfig) -> None:
        """agent: on its device, in eval mode."""
        self._tokenizer = agent.tokenizer
        self._dream = make_dream(agent.model, execution)

    @torch.inference_mode()
    def encode(self, frame: Frame) -> Tensor:
        """A screen (84, 84) uint8 as codes (K,) int64."""
        pixels = torch.from_numpy(frame[None, None]).to(self._tokenizer.embedding.weight.device)
        return self._tokenizer.encode(pixels)[0]

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Frame:
        """What codes (K,) look like: (84, 84) uint8."""
        frame: Frame = decode_frames(self._tokenizer, codes[None])[0]
        return frame

    @torch.inference_mode()
    def think(self, history: History, game: str, settings: PlannerConfig) -> Thought:
        """Plan from the history's present frame with checked settings of one game."""
        context = history.context(settings.context, task_id(game))
        plan = make_planner(settings).plan(self._dream, context, torch.from_numpy(legal_mask(game))[None])
        legal = legal_actions(game)
        q = plan.root_q[0].tolist()
        return Thought(int(plan.actions[0]), {action: q[action] for action in legal}, self._futures(plan, legal))

    def _futures(self, plan: Plan, legal: tuple[int, ...]) -> tuple[Future, ...]:
        """The futures there are; rows that stand for none, or for an action never tried, are left out."""
        rewards, continuations, actions = (
            part[0].tolist() for part in (plan.rewards, plan.continuations, plan.future_actions)
        )
        futures = []
        for row, (score, first) in enumerate(zip(plan.scores[0].tolist(), plan.first_actions[0].tolist(), strict=True)):
            if row > 0 and (score == float("-inf") or first not in legal):
                continue
            codes = plan.frames[0, row]
            frames = decode_frames(self._tokenizer, codes) if len(codes) else ()
            steps = zip(actions[row], rewards[row], continuations[row], frames, strict=True)
            futures.append(Future(score, first, tuple(ImaginedStep(a, r, c == 0, frame) for a, r, c, frame in steps)))
        return tuple(futures)
