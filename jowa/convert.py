"""Convert agents between the published files and jowa's format.

    python -m jowa.convert src=weights/JOWA_150M.pt dst=agents/150M
    python -m jowa.convert src=runs/mine dst=published/mine to=published

Published files are `JOWA_<size>.pt` and `tokenizer.pt` beside it, plain state dicts with or without the prefixes that
data parallelism and compilation leave. The size is recognised from the tensors, LPIPS is kept, and both ways together
change no bit. Nothing but tensors is ever unpickled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jowa.cli import run
from jowa.errors import UserError
from jowa.files import check_destination, in_new_folder
from jowa.models.conversion import (
    BUFFERS_FILE,
    kept_tensors,
    published_size,
    write_agent,
    write_published,
)
from jowa.models.perceptual import read_lpips
from jowa.models.published_files import find_published, read_published
from jowa.training.checkpoint import holds_checkpoint
from jowa.training.starting_point import open_agent

FORMS = ("jowa", "published")


@dataclass(frozen=True)
class ConvertConfig:
    """src: to=jowa: a published model's file, or its folder; to=published: a run's folder or one checkpoint's.

    dst: a new folder. to: jowa or published. size: refuse an agent of another size; chooses among a folder's models.
    lpips: for to=published, the LPIPS weights that belong into tokenizer.pt, if the agent came without.
    """

    src: str = "???"
    dst: str = "???"
    to: str = "jowa"
    size: str | None = None
    lpips: str | None = None


def check(config: ConvertConfig) -> None:
    """Everything that can be refused before any file is read. Raises UserError."""
    if config.to not in FORMS:
        raise UserError(f"to={config.to} is unknown: choose one of {', '.join(FORMS)}.")
    if config.to == "jowa" and config.lpips is not None:
        raise UserError("lpips is for to=published: what the published tokenizer holds is kept anyway.")
    check_destination(config.dst, "dst")


def main(config: ConvertConfig) -> None:
    """Convert one way or the other."""
    check(config)
    if config.to == "jowa":
        to_jowa(config)
    else:
        to_published(config)


def to_jowa(config: ConvertConfig) -> None:
    """Published files to an agent's folder."""
    source = Path(config.src).expanduser()
    files = None if holds_checkpoint(source) else find_published(source, config.size)
    if files is None:
        what = "does not exist" if not source.exists() else "holds no published files"
        what = "is jowa's format already" if holds_checkpoint(source) else what
        raise UserError(f"src={config.src} {what}: give a JOWA_<size>.pt, or a folder with one and its tokenizer.pt.")
    published = read_published(files, config.size)
    in_new_folder(config.dst, "dst", lambda folder: write_agent(folder, published))
    lpips = "with LPIPS" if published.lpips else "without LPIPS"
    print(f"{files.model} is a {published.config.name} model ({published.config.q_loss}), its tokenizer {lpips}.")
    print(f"It is in {config.dst} now; evaluate it by: python -m jowa.evaluate ckpt={config.dst}")


def to_published(config: ConvertConfig) -> None:
    """An agent to published files."""
    start = open_agent(config.src, config.size)
    if start.checkpoint.is_file():
        raise UserError(f"src={config.src} is published already: give a run's folder or one of its checkpoints.")
    published_size(start.agent)
    weights = Path(config.lpips).expanduser() if config.lpips is not None else start.perceptual_weights
    lpips = {} if weights is None else read_lpips(weights)
    buffers = kept_tensors(start.checkpoint, BUFFERS_FILE)
    in_new_folder(config.dst, "dst", lambda folder: write_published(folder, start.agent, lpips, buffers))
    print(f"{start.checkpoint} is in {config.dst} now, as published files.")
    if not lpips:
        print("Its tokenizer.pt holds no LPIPS weights, since none came with the agent: lpips=<file> adds them.")
    if not buffers:
        print("Integer tensors 'indices', which carry nothing, are left out: there are none beside this agent.")


if __name__ == "__main__":
    run(main, ConvertConfig, "convert")
