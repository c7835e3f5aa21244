"""From episodes to sequences: fixed-length windows, found by cumulative counts and never listed one by one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jowa.data.batch import Batch
from jowa.data.codes import CodeCache
from jowa.data.layout import FRAME_SHAPE
from jowa.data.order import Order
from jowa.data.selection import Selection
from jowa.data.split import Split, select_episodes
from jowa.data.store import EpisodeStore
from jowa.errors import UserError
from jowa.games import legal_mask, task_id

PADS = ("right", "left")


@dataclass(frozen=True)
class Windows:
    """Where n sequences lie.

    Attributes:
        games: (n,) int64, positions in the list of games.
        rows: (n, L) int64 row numbers in the game's data; padding repeats the episode's nearest row.
        valid: (n, L) bool, False where the window reaches beyond its episode.
    """

    games: NDArray[np.int64]
    rows: NDArray[np.int64]
    valid: NDArray[np.bool_]

    def real_steps_first(self) -> Windows:
        """The same windows with their padding, wherever it was, behind their real steps."""
        first = self.valid.argmax(1)
        order = (first[:, None] + np.arange(self.valid.shape[1])) % self.valid.shape[1]
        return Windows(self.games, np.take_along_axis(self.rows, order, 1), np.take_along_axis(self.valid, order, 1))


class SequenceIndex:
    """Windows of `length` agent steps over the chosen episodes, numbered game by game, episode by episode, in time.

    Of an episode of T steps there are ceil(T / stride), which cover every step, and there are two ways to lay them:

    right: they start at 0, stride, 2·stride ... < T; those that reach beyond the episode's end are padded there.
    left: the mirror image. They end at the steps t ≡ T - 1 (mod stride), so that one ends with the episode; those that
    reach back beyond its beginning are padded there. At stride 1 every step ends one window, its context being the
    steps before it.
    """

    def __init__(
        self,
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        games: NDArray[np.int64],
        length: int = 8,
        stride: int = 4,
        pad: str = "right",
    ) -> None:
        """Index E episodes, whose first rows, lengths (agent steps) and games (positions in a list) are all (E,)."""
        if not 1 <= stride <= length:
            raise ValueError(f"a stride of {stride} over windows of {length} steps would skip or repeat steps")
        if pad not in PADS:
            raise ValueError(f"pad must be one of {', '.join(PADS)}, not {pad!r}")
        self.length, self.stride = length, stride
        self._starts, self._lengths, self._games = starts, lengths, games
        # The first step of each episode's first window.
        self._offsets = (lengths - 1) % stride - (length - 1) if pad == "left" else np.zeros_like(lengths)
        self._before = np.concatenate([np.zeros(1, np.int64), np.cumsum(-(-lengths // stride))])

    def __len__(self) -> int:
        """Windows in all."""
        return int(self._before[-1])

    def locate(self, indices: NDArray[np.integer[Any]]) -> Windows:
        """Find windows by number (n,); IndexError for numbers that do not exist."""
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"sequences {indices.min()}..{indices.max()} of {len(self)}")
        episodes = np.searchsorted(self._before, indices, side="right") - 1
        first = self._offsets[episodes] + (indices - self._before[episodes]) * self.stride
        steps = first[:, None] + np.arange(self.length)
        real = np.clip(steps, 0, self._lengths[episodes, None] - 1)
        return Windows(self._games[episodes], self._starts[episodes, None] + real, steps == real)


@dataclass(frozen=True)
class GameSummary:
    """What a data set holds of one game: agent steps, episodes, sequences and the bytes they take on disk.

    An episode that was selected several times counts as often, but takes its bytes once.
    """

    game: str
    transitions: int
    episodes: int
    sequences: int
    bytes: int


class SequenceDataset:
    """Sequences of one or several games, read a batch at a time.

    Args:
        store: where the episodes are.
        games: ALE names; the store's games if None.
        split: the training episodes, the held-out ones, or all.
        holdout: fraction of a game's episodes that are held out.
        length: frames (agent steps) a sequence.
        stride: agent steps between the starts of two sequences.
        pad: on which side sequences reach beyond their episode (see `SequenceIndex`).
        real_steps_first: move left padding behind the real steps, for a causal model whose positions start at 0.
        balance: how often training draws each game (see `Order`).
        selection: take only these episodes, as often as each is in it. The split is by episode all the same: one
            that is held out never trains, and the held-out ones are all of the store's, chosen or not.
        codes: cached codes; batches then carry these.
        with_frames: whether batches carry frames; if None, they do when no codes are given.

    Raises:
        UserError: all that is selected of a game is held out.
    """

    def __init__(
        self,
        store: EpisodeStore,
        games: Sequence[str] | None = None,
        *,
        split: Split = "all",
        holdout: float = 0.0,
        length: int = 8,
        stride: int = 4,
        pad: str = "right",
        balance: str = "proportional",
        selection: Selection | None = None,
        codes: CodeCache | None = None,
        with_frames: bool | None = None,
        real_steps_first: bool = False,
    ) -> None:
        self.store, self.split, self.length, self.stride = store, split, length, stride
        self.games = store.games if games is None else tuple(games)
        self._codes = codes
        self._with_frames = codes is None if with_frames is None else with_frames
        self._tasks = np.array([task_id(game) for game in self.games], np.int64)
        self._balance = balance
        self._real_steps_first = real_steps_first
        self.episodes = {game: _episodes(store, game, holdout, split, selection) for game in self.games}
        lengths = [store.tables[game].lengths[self.episodes[game]] for game in self.games]
        starts = [store.tables[game].starts[self.episodes[game]] for game in self.games]
        numbers = np.repeat(np.arange(len(self.games)), [len(part) for part in lengths])
        self._index = SequenceIndex(np.concatenate(starts), np.concatenate(lengths), numbers, length, stride, pad)
        self._summaries = tuple(_summary(store, game, self.episodes[game], stride) for game in self.games)

    def __len__(self) -> int:
        """Sequences in all; they are numbered game by game."""
        return len(self._index)

    @property
    def counts(self) -> dict[str, int]:
        """Sequences of each game."""
        return {summary.game: summary.sequences for summary in self._summaries}

    def order(self, seed: int) -> Order:
        """The order in which training takes the sequences."""
        return Order(self.counts, seed, self._balance)

    def describe(self) -> tuple[GameSummary, ...]:
        """What there is of each game."""
        return self._summaries

    def batch(self, indices: NDArray[np.integer[Any]]) -> Batch:
        """Read the sequences with these numbers, (B,) in 0..len-1, into one batch on the CPU."""
        windows = self._index.locate(indices)
        if self._real_steps_first:
            windows = windows.real_steps_first()
        shape = windows.valid.shape
        padding = np.flatnonzero(~windows.valid)
        frames = np.empty((*shape, 1, *FRAME_SHAPE), np.uint8) if self._with_frames else None
        codes = None if self._codes is None else np.empty((*shape, self._codes.tokens_per_frame), np.uint16)
        actions, rewards, ends = np.empty(shape, np.int64), np.empty(shape, np.float32), np.empty(shape, np.bool_)
        waiting = []
        for game, here in self._by_game(windows.games):
            rows = windows.rows[here]
            if frames is not None:
                # Real rows alone are read from disk, those of all games together.
                valid = windows.valid[here]
                places = (here[:, None] * self.length + np.arange(self.length))[valid]
                waiting.append(self.store.start_frames(game, rows[valid], frames.reshape(-1, *FRAME_SHAPE), places))
            actions[here] = self.store.column(game, "actions")[rows]
            rewards[here] = self.store.column(game, "rewards")[rows]
            ends[here] = self.store.column(game, "ends")[rows]
            if codes is not None and self._codes is not None:
                codes[here] = self._codes.read(game, rows)
        for finish in waiting:
            finish()
        for column in (frames, codes, actions, rewards, ends):
            if column is not None:
                column.reshape(-1, *column.shape[2:])[padding] = 0
        if not np.isfinite(rewards).all():
            raise self._not_finite(windows, rewards)
        return Batch(
            frames=None if frames is None else torch.from_numpy(frames),
            codes=None if codes is None else torch.from_numpy(codes),
            actions=torch.from_numpy(actions),
            rewards=torch.from_numpy(rewards),
            ends=torch.from_numpy(ends),
            valid=torch.from_numpy(windows.valid),
            tasks=torch.from_numpy(self._tasks[windows.games]),
        )

    def _by_game(self, numbers: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """The games among `numbers` (B,), and where in it each is."""
        order = np.argsort(numbers, kind="stable")
        bounds = np.searchsorted(numbers[order], np.arange(len(self.games) + 1)).tolist()
        for game, (start, stop) in zip(self.games, itertools.pairwise(bounds), strict=True):
            if start < stop:
                yield game, order[start:stop]

    def coordinates(self, indices: NDArray[np.integer[Any]]) -> list[dict[str, Any]]:
        """Where sequences (B,) lie: game, episode (its name in the store) and its steps that are the first and last."""
        windows = self._index.locate(indices)
        places = []
        for number, rows, valid in zip(windows.games, windows.rows, windows.valid, strict=True):
            game = self.games[number]
            table, real = self.store.tables[game], rows[valid]
            episode = int(np.searchsorted(table.starts, real[0], side="right")) - 1
            first, last = (int(row - table.starts[episode]) for row in (real[0], real[-1]))
            name = self.store.episode_names(game)[episode]
            places.append({"game": game, "episode": name, "first_step": first, "last_step": last})
        return places

    def _not_finite(self, windows: Windows, rewards: NDArray[np.float32]) -> UserError:
        sequence, step = np.argwhere(~np.isfinite(rewards))[0]
        return _bad_reward(self.store, self.games[windows.games[sequence]], int(windows.rows[sequence, step]))


def check_rewards(store: EpisodeStore) -> None:
    """Raises UserError naming the first row of a game whose reward isn't a finite number."""
    for game in store.games:
        bad = np.flatnonzero(~np.isfinite(store.column(game, "rewards")))
        if len(bad):
            raise _bad_reward(store, game, int(bad[0]))


def check_actions(store: EpisodeStore) -> None:
    """Raises UserError naming the first row of a game whose action the game doesn't have."""
    for game in store.games:
        actions, legal = store.column(game, "actions"), legal_mask(game)
        beyond = np.flatnonzero((actions >= len(legal)) | ~legal[np.minimum(actions, len(legal) - 1)])
        if len(beyond):
            known = ", ".join(map(str, np.flatnonzero(legal)))
            raise UserError(
                f"{game} in {store.folder} was played with action {actions[beyond[0]]} (row {beyond[0]}), but the "
                f"game's actions are {known}: these episodes are of another game or another set of actions, record or "
                "import them anew."
            )


def _bad_reward(store: EpisodeStore, game: str, row: int) -> UserError:
    return UserError(
        f"{game} in {store.folder} has a reward that is {store.column(game, 'rewards')[row]} (row {row}): check the "
        "data with `python -m jowa.data.verify`, and record or import that part again."
    )


def _episodes(
    store: EpisodeStore, game: str, holdout: float, split: Split, selection: Selection | None
) -> NDArray[np.int64]:
    """The numbers of a game's episodes to cut sequences from: (n,) int64."""
    in_split = select_episodes(game, store.episode_names(game), holdout, split)
    if selection is None or split == "held_out":
        return in_split
    chosen = selection.games[game].episodes
    kept = chosen[np.isin(chosen, in_split)]
    if not len(kept):
        raise UserError(
            f"{selection.source} has only held-out episodes of {game}: lower data.holdout, or select "
            "more of them with `python -m jowa.data.select`."
        )
    return kept


def _summary(store: EpisodeStore, game: str, episodes: NDArray[np.int64], stride: int) -> GameSummary:
    lengths = store.tables[game].lengths
    sequences = int((-(-lengths[episodes] // stride)).sum())
    share = int(lengths[np.unique(episodes)].sum()) / store.transitions(game)
    return GameSummary(game, int(lengths[episodes].sum()), len(episodes), sequences, round(store.bytes(game) * share))
