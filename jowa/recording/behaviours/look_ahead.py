"""A player for any game: tries random plans in the emulator itself and plays the best one's first action."""

from __future__ import annotations

from typing import Any

import numpy as np

from jowa.envs.single import SingleAtari

_LONGEST_HOLD = 4
_LIFE = 5.0
_DISCOUNT = 0.99


class LookAhead:
    """Scores plans by Σ γ^k·sign(r)·log(1 + |r|), less a penalty for a lost life, and plays the best.

    Plans hold each action for 1 … 4 agent steps. What is left of the best plan competes again at the next step, so
    that a good plan is only given up for a better one. About 40 decisions a second and core.
    """

    watchful = False

    def __init__(self, seed: int, plans: int = 8, horizon: int = 12) -> None:
        """`plans` new plans a decision, each `horizon` agent steps long."""
        self._rng = np.random.default_rng(seed)
        self._plans = plans
        self._horizon = horizon
        self._scratch: SingleAtari | None = None
        self.reset()

    def reset(self, progress: float = 1.0) -> None:
        """Forget the plan."""
        self._kept: list[int] = []

    def act(self, env: SingleAtari) -> int:
        """The first action of the best plan; the environment is left as it was."""
        # Plans are tried in an emulator of our own: going back in `env` would not restore quite everything.
        if self._scratch is None or self._scratch.game != env.game:
            self._scratch = SingleAtari(env.game, env.protocol, 0)
            self._scratch.reset()
        here, lives = env.clone(), env.lives()
        candidates = [self._random_plan(env) for _ in range(self._plans)]
        if self._kept:
            # First, so that it wins ties.
            candidates.insert(0, self._kept + self._random_plan(env)[: self._horizon - len(self._kept)])
        scores = []
        for plan in candidates:
            self._scratch.restore(here)
            scores.append(_score(self._scratch, plan, lives))
        best = candidates[int(np.argmax(scores))]
        self._kept = best[1:]
        return best[0]

    def describe(self) -> dict[str, Any]:
        """Its name and how far it looks."""
        return {"policy": "lookahead", "plans": self._plans, "horizon": self._horizon}

    def _random_plan(self, env: SingleAtari) -> list[int]:
        plan: list[int] = []
        while len(plan) < self._horizon:
            action = env.legal[int(self._rng.integers(len(env.legal)))]
            plan += [action] * int(self._rng.integers(1, _LONGEST_HOLD + 1))
        return plan[: self._horizon]


def _score(env: SingleAtari, plan: list[int], lives: int) -> float:
    """Play the plan from the present state, in which `lives` were left."""
    score, weight = 0.0, 1.0
    for action in plan:
        step = env.step(action, render=False)
        score += weight * float(np.sign(step.reward) * np.log1p(abs(step.reward)))
        if env.lives() < lives:
            return score - weight * _LIFE
        if step.terminated or step.truncated:
            return score
        weight *= _DISCOUNT
    return score
