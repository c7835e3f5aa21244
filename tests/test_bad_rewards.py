"""Rewards that are no numbers, which no importer writes: training doesn't begin with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_store import pretrain_run, write_store

from jowa.data.store import EpisodeStore
from jowa.errors import UserError


def test_bad_rewards_are_refused_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, column = write_store(tmp_path / "data"), EpisodeStore.column

    def with_one_bad(self: EpisodeStore, game: str, name: str) -> np.ndarray:
        values = column(self, game, name)
        bad = (game, name) == ("Pong", "rewards") and np.arange(len(values)) == 90
        return np.where(bad, np.float32(np.nan), values) if name == "rewards" else values

    monkeypatch.setattr(EpisodeStore, "column", with_one_bad)
    with pytest.raises(UserError, match=rf"Pong in {data} has a reward that is nan \(row 90\): check the data"):
        pretrain_run(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()
