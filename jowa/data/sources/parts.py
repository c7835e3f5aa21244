"""Putting what a source yields into the episode store, one part (one imported file, say) at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jowa.data.sources.episode import SourceEpisode
from jowa.data.writer import EpisodeWriter


@dataclass(frozen=True)
class Added:
    """What one part holds: its name, its episodes, its transitions (agent steps) and its episodes' mean return."""

    part: str
    episodes: int
    transitions: int
    mean_return: float


def write_part(
    store: Path,
    game: str,
    name: str,
    episodes: Iterable[SourceEpisode],
    provenance: dict[str, Any],
    allow_mixed: bool,
    facts: Callable[[], Mapping[str, Any]] = dict,
) -> Added:
    """Write all episodes into one new part of the game; afterwards it is wholly there or, after an error, not at all.

    Args:
        store: the episode store's folder.
        game: ALE name.
        name: the part's name, `rlu-1-00003` say.
        episodes: read one at a time, so that a part need not fit into memory.
        provenance: JSON-compatible facts; its `SOURCE_FACTS` are compared with what the game already has.
        allow_mixed: accept a difference there.
        facts: asked when all episodes have been read, for what is only known then; it joins the provenance.

    Raises:
        UserError: the part is there already, its ROM or stickiness differs, or the episodes can't be read.
    """
    count = transitions = 0
    returns = 0.0
    with EpisodeWriter(store, game, provenance=provenance, append=True, part=name, allow_mixed=allow_mixed) as writer:
        for episode in episodes:
            writer.append(episode.frames, episode.actions, episode.rewards, episode.terminated, episode.info)
            count += 1
            transitions += len(episode.actions)
            returns += float(episode.rewards.sum(dtype="float64"))
        writer.note(dict(facts()))
    return Added(name, count, transitions, returns / max(count, 1))
