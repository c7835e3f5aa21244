"""What `ckpt=…` means: a run, one of its checkpoints, a converted agent, published files, or a model on the hub."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from jowa.errors import UserError
from jowa.models.agent_files import Agent, check_finite, load_agent
from jowa.models.conversion import LPIPS_FILE
from jowa.models.hub import PREFIX, hub_folder
from jowa.models.published_files import build_agent, find_published, read_published
from jowa.training.checkpoint import check_size, holds_checkpoint, latest_checkpoint


@dataclass(frozen=True)
class StartingPoint:
    """An agent and where it came from.

    Attributes:
        agent: on the CPU, in eval mode.
        checkpoint: the checkpoint's folder, or the published model's file.
        folder: the run's folder, or the one that holds the agent's files: where evaluations go. Those of a model on
            the hub go to runs/<owner>--<name>, its own files being a cache.
        perceptual_weights: LPIPS weights that came along with the tokenizer, None if none did.
    """

    agent: Agent
    checkpoint: Path
    folder: Path
    perceptual_weights: Path | None


def open_agent(ckpt: str, size: str | None = None) -> StartingPoint:
    """Load the agent that `ckpt` names; `size` must be its size, None asks for nothing.

    Raises:
        UserError: there is none, it is damaged, or of another size.
    """
    if not ckpt.strip():
        raise UserError("ckpt is empty: give a run's folder, a checkpoint's, or published files.")
    start = _opened(ckpt, size)
    check_finite(start.agent, start.checkpoint)
    return start


def _opened(ckpt: str, size: str | None) -> StartingPoint:
    if ckpt.startswith(PREFIX):
        start = _opened(str(hub_folder(ckpt, size)), size)
        return replace(start, folder=Path("runs", ckpt.removeprefix(PREFIX).replace("/", "--").replace("@", "--")))
    path = Path(ckpt).expanduser().absolute()
    if not holds_checkpoint(path):
        files = find_published(path, size)
        if files is not None:
            published = read_published(files, size)
            lpips = files.tokenizer if published.lpips else None
            return StartingPoint(build_agent(published), files.model, files.model.parent, lpips)
    checkpoint = latest_checkpoint(path).resolve()
    check_size(checkpoint, size)
    agent = load_agent(checkpoint)
    folder = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint
    return StartingPoint(agent, checkpoint, folder, _perceptual_weights(checkpoint, agent))


def _perceptual_weights(checkpoint: Path, agent: Agent) -> Path | None:
    """LPIPS beside a converted agent, else the file its tokenizer was trained with, as far as it is there."""
    trained = agent.tokenizer.config
    named = trained.perceptual_weights if trained.perceptual == "lpips" else None
    found = [path for path in (checkpoint / LPIPS_FILE, Path(named) if named else None) if path and path.is_file()]
    return found[0].resolve() if found else None
