"""Games of all kinds side by side: Atari's on ale-py's vector environment, others through Gymnasium."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import packages_distributions, version
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jowa.envs.atari import AtariEnvironments, StepResult
from jowa.envs.gymnasium_environments import GymnasiumEnvironments, known, side_by_side
from jowa.envs.gymnasium_game import GymnasiumGame
from jowa.envs.protocol import ProtocolConfig
from jowa.envs.roms import rom_md5, rom_path
from jowa.envs.single import SingleAtari, SingleStep
from jowa.games import check_game, custom_game


class Environments(Protocol):
    """N environments, each with a game and a seed, whose episodes depend on these and on their actions only.

    Attributes:
        games: N names.
        num_envs: N.
        tasks: (N,) int64 task ids.
        legal: (N, A) bool legal actions, A being the largest of the games' sets.
    """

    games: tuple[str, ...]
    num_envs: int
    tasks: NDArray[np.int64]
    legal: NDArray[np.bool_]

    def reset(self, mask: NDArray[np.bool_] | None = None, seeds: Sequence[int] | None = None) -> NDArray[np.uint8]:
        """Begin new episodes where `mask` (N,) is True, with `seeds` if given; frames (N, 84, 84) uint8."""
        ...

    def step(self, actions: NDArray[np.integer]) -> StepResult:
        """One agent step everywhere; environments whose episode has ended ignore it (reward 0, same frame)."""
        ...

    def close(self) -> None:
        """Let go of everything; the environments can't be used afterwards."""
        ...


class SingleGame(Protocol):
    """One environment, whose seed and number of episodes so far decide each episode."""

    @property
    def legal(self) -> tuple[int, ...]:
        """The game's legal actions."""
        ...

    def reset(self, seed: int | None = None) -> NDArray[np.uint8]:
        """Begin a new episode and return its first screen (84, 84) uint8."""
        ...

    def step(self, action: int, render: bool = True) -> SingleStep:
        """One agent step."""
        ...


class MixedEnvironments:
    """Atari games and others in one batch."""

    def __init__(self, games: Sequence[str], protocol: ProtocolConfig, seeds: Sequence[int]) -> None:
        """As for the environments it is made of."""
        if len(games) != len(seeds):
            raise ValueError(f"as many seeds as games: {len(games)} games, {len(seeds)} seeds")
        kinds: list[list[int]] = [[], []]
        for row, game in enumerate(games):
            kinds[custom_game(check_game(game)) is not None].append(row)
        self._members = [
            (
                np.array(rows, np.int64),
                make_environments([games[row] for row in rows], protocol, [seeds[row] for row in rows]),
            )
            for rows in kinds
        ]
        self.games = tuple(games)
        self.num_envs = len(games)
        self.tasks = self._gather([member.tasks for _, member in self._members])
        masks: dict[int, NDArray[np.bool_]] = {
            row: mask for rows, member in self._members for row, mask in zip(rows.tolist(), member.legal, strict=True)
        }
        self.legal = side_by_side([masks[row] for row in range(self.num_envs)])

    def _gather(self, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The members' arrays (n, …) as one (N, …), in the order of the games."""
        whole = np.empty((self.num_envs, *parts[0].shape[1:]), parts[0].dtype)
        for (rows, _), part in zip(self._members, parts, strict=True):
            whole[rows] = part
        return whole

    def reset(self, mask: NDArray[np.bool_] | None = None, seeds: Sequence[int] | None = None) -> NDArray[np.uint8]:
        """As `AtariEnvironments.reset`."""
        frames = []
        for rows, member in self._members:
            own = None if mask is None else np.asarray(mask, np.bool_)[rows]
            frames.append(member.reset(own, None if seeds is None else [int(seeds[row]) for row in rows]))
        return self._gather(frames)

    def step(self, actions: NDArray[np.integer]) -> StepResult:
        """As `AtariEnvironments.step`."""
        results = [member.step(np.asarray(actions)[rows]) for rows, member in self._members]
        fields = ("frames", "rewards", "terminated", "truncated")
        return StepResult(*(self._gather([getattr(result, name) for result in results]) for name in fields))

    def close(self) -> None:
        """Close all of them."""
        for _, member in self._members:
            member.close()


def make_environments(games: Sequence[str], protocol: ProtocolConfig, seeds: Sequence[int]) -> Environments:
    """One environment for each entry of `games`, Atari's or registered ones, seeded by the entry of `seeds`.

    Raises:
        UserError: unknown game, senseless protocol value, missing ROM, or an environment that can't be made.
    """
    custom = {custom_game(check_game(game)) is not None for game in games}
    if custom == {True, False}:
        return MixedEnvironments(games, protocol, seeds)
    kind = GymnasiumEnvironments if custom == {True} else AtariEnvironments
    return kind(games, protocol, seeds)


def open_single(game: str, protocol: ProtocolConfig, seed: int) -> SingleGame:
    """One environment of a game. Raises UserError where `make_environments` does."""
    if custom_game(check_game(game)) is None:
        return SingleAtari(game, protocol, seed)
    return GymnasiumGame(known(game), protocol, seed)


def check_playable(games: Sequence[str], protocol: ProtocolConfig, key: str = "games") -> None:
    """Raise UserError for a game of `key` that is unknown or can't be played here: no ROM, or no environment."""
    for game in games:
        if custom_game(check_game(game, key)) is None:
            rom_path(game, protocol.rom_dir)
        else:
            GymnasiumGame(known(game), protocol, 0).close()


def identity(game: str, protocol: ProtocolConfig) -> dict[str, Any]:
    """What was played: a ROM's MD5, or an environment's description and the versions of its packages."""
    custom = custom_game(check_game(game))
    if custom is None:
        return {"rom_md5": rom_md5(game, protocol.rom_dir)}
    return {"environment": custom.spec(), "versions": _versions(game)}


@cache
def _versions(game: str) -> dict[str, str]:
    """Versions of Gymnasium and of the package that the environment is from, where it is from a package."""
    opened = GymnasiumGame(known(game), ProtocolConfig(), 0)
    packages = ["gymnasium", *packages_distributions().get(opened.package(), [])]
    opened.close()
    return {package: version(package) for package in dict.fromkeys(packages)}
