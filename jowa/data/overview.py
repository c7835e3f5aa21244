"""What a store holds of a game, in a few numbers and words."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jowa.data.parts import Part
from jowa.data.store import EpisodeStore
from jowa.games import packaged_rom


@dataclass(frozen=True)
class GameOverview:
    """One game of a store.

    Attributes:
        game: ALE name.
        parts, episodes: how many.
        transitions: agent steps, and as many frames.
        bytes: on disk, everything included.
        returns: (E,) float64, of all episodes, sums of the rewards as they are stored.
        sticky: yes, no, mixed or unknown.
        roms: MD5 of the ROMs that were played, as far as they are known.
        sources: where the episodes come from, and whether their rewards are clipped.
    """

    game: str
    parts: int
    episodes: int
    transitions: int
    bytes: int
    returns: NDArray[np.float64]
    sticky: str
    roms: tuple[str, ...]
    sources: tuple[str, ...]

    @property
    def bytes_per_frame(self) -> float:
        """Bytes on disk a frame, its action and reward included."""
        return self.bytes / self.transitions


def overview(store: EpisodeStore, game: str) -> GameOverview:
    """Look at one game."""
    parts = store.parts(game)
    return GameOverview(
        game=game,
        parts=len(parts),
        episodes=len(store.tables[game]),
        transitions=store.transitions(game),
        bytes=store.bytes(game),
        returns=store.tables[game].returns,
        sticky=_stickiness(parts),
        roms=tuple(sorted({str(md5) for md5 in facts(parts, "rom_md5") if md5})),
        sources=tuple(sorted({_source(part) for part in parts})),
    )


def facts(parts: Sequence[Part], key: str) -> list[Any]:
    """What the parts' provenance says under a key, each thing once, in the parts' order; None where it says nothing."""
    found: list[Any] = []
    for part in parts:
        value = part.provenance.get(key)
        if value not in found:
            found.append(value)
    return found


def is_packaged_rom(game: str, md5: str) -> bool:
    """Whether that is the ROM ale-py plays the game with."""
    return hashlib.md5(packaged_rom(game).read_bytes(), usedforsecurity=False).hexdigest() == md5


def _source(part: Part) -> str:
    source = str(part.provenance.get("source") or "unknown")
    return f"{source} (clipped rewards)" if part.provenance.get("rewards") == "clipped" else source


def _stickiness(parts: Sequence[Part]) -> str:
    words = {None if value is None else bool(value) for value in facts(parts, "sticky")}
    if len(words) > 1:
        return "mixed"
    return {None: "unknown", True: "yes", False: "no"}[words.pop()]


def text_table(overviews: Sequence[GameOverview]) -> str:
    """A line a game and, for several games, one for all together."""
    head = ("game", "parts", "episodes", "transitions", "MB", "bytes/frame", "min", "mean", "max", "sticky", "ROM",
            "sources")  # fmt: skip
    rows = [head, *(_row(one) for one in overviews)]
    if len(overviews) > 1:
        parts, episodes, steps, size = (
            sum(getattr(one, name) for one in overviews) for name in ("parts", "episodes", "transitions", "bytes")
        )
        total = ("all", f"{parts:,}", f"{episodes:,}", f"{steps:,}", _megabytes(size), f"{size / steps:.0f}")
        rows.append(total + ("",) * (len(head) - len(total)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    # Words to the left, numbers to the right.
    left = {0, head.index("sticky"), head.index("ROM"), head.index("sources")}
    lines = (
        "  ".join(f"{word:<{width}}" if column in left else f"{word:>{width}}"
                  for column, (word, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    )  # fmt: skip
    return "\n".join(line.rstrip() for line in lines)


def _row(one: GameOverview) -> tuple[str, ...]:
    returns = (one.returns.min(), one.returns.mean(), one.returns.max())
    rom = {0: "unknown", 1: one.roms[0][:8] if one.roms else ""}.get(len(one.roms), f"{len(one.roms)} ROMs")
    return (
        one.game, f"{one.parts:,}", f"{one.episodes:,}", f"{one.transitions:,}", _megabytes(one.bytes),
        f"{one.bytes_per_frame:.0f}", *(f"{value:,.1f}" for value in returns), one.sticky, rom,
        ", ".join(one.sources),
    )  # fmt: skip


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"
