"""Tests run on few cores beside each other: one thread each."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two games; tests may add cached codes to it, nothing else."""
    from tiny_store import write_store

    return write_store(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="session")
def smoke_run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of +exp=smoke on it; nobody may change its weights."""
    from tiny_store import pretrain_run

    return pretrain_run(tiny_data, tmp_path_factory.mktemp("smoke") / "run", "training.picture_every=4")
