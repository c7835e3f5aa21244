"""Make an agent's folder ready for a model hub: weights, configuration, its evaluation, and a card that tells of it.

    python -m jowa.export ckpt=runs/mine out=hub/mine license=apache-2.0
    python -m jowa.export ckpt=runs/mine out=hub/mine push=true repo=me/mine

Nothing is uploaded without push=true. Paths of this computer are shortened in everything that is written.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jowa.cli import run
from jowa.errors import UserError
from jowa.evaluation.cards.card import SharedAgent, render
from jowa.evaluation.results.folder import RESULTS
from jowa.evaluation.results.stored import StoredEvaluation, find_evaluation, read_evaluation
from jowa.files import check_destination, in_new_folder, write_json, write_text
from jowa.models.agent_files import DESCRIPTION, WEIGHTS, Agent, read_description, save_tensors, weights_hash
from jowa.models.conversion import BUFFERS_FILE, LPIPS_FILE, write_agent
from jowa.models.hub import check_login, check_repo, push_folder
from jowa.models.perceptual import read_lpips
from jowa.models.published_files import find_published, read_published
from jowa.private_paths import PrivatePaths
from jowa.resuming import CONFIG
from jowa.training.run_plan import count
from jowa.training.starting_point import StartingPoint, open_agent

CARD = "README.md"
REPORT = "report.html"
TABLES = ("scores.csv", "scores.md", "scores.tex")
NONE = "none"
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True)
class ExportConfig:
    """ckpt: a run's folder, one checkpoint's, published files, or hub:<owner>/<name>. out: a new folder.

    size: refuse an agent of another size. evaluation: the folder of one of this checkpoint; null takes, of those in
    the run's folder, one of a full protocol and of most episodes, none leaves it out. license: as the hub abbreviates
    it (apache-2.0, mit, cc-by-4.0); the card says so if none is chosen. repo: <owner>/<name>, for the card and for
    push=true, which uploads; private: only the owner sees what was uploaded.
    """

    ckpt: str = "???"
    out: str = "???"
    size: str | None = None
    evaluation: str | None = None
    license: str | None = None
    repo: str | None = None
    push: bool = False
    private: bool = True


def check(config: ExportConfig) -> None:
    """Everything that can be refused before any file is read. Raises UserError."""
    check_destination(config.out, "out")
    if config.license is not None and not _LICENCE.fullmatch(config.license):
        raise UserError(f"license={config.license} is no abbreviation of the hub's: write apache-2.0, mit, other, ….")
    if config.repo is not None:
        check_repo(config.repo)
    if config.push:
        if config.repo is None:
            raise UserError("push=true needs a name: give repo=<owner>/<name>.")
        check_login()


def main(config: ExportConfig) -> None:
    """Write the folder, say what is in it, and upload it if that was asked for."""
    check(config)
    start = open_agent(config.ckpt, config.size)
    evaluation, choice = choose_evaluation(config, start)
    paths = PrivatePaths(start.folder)
    shortened: list[str] = []

    def write(folder: Path) -> None:
        shortened.extend(write_shared(folder, config, start, evaluation, paths))

    in_new_folder(config.out, "out", write)
    folder = Path(config.out).expanduser()
    print(listing(folder))
    if shortened:
        print(f"Paths of this computer were shortened in {', '.join(shortened)}.")
    for game in games_with_paths(start.agent, paths):
        print(f"{DESCRIPTION} keeps paths of this computer, without which {game} can't be played: look at them.")
    print(choice if evaluation else f"The card says 'not evaluated': {choice}.")
    if config.license is None:
        print("No licence was chosen, and the card says so: license=apache-2.0, for example, names one.")
    if not config.push:
        print(f"It is in {folder} now; nothing was uploaded{' (push=true does that)' if config.repo else ''}.")
        return
    assert config.repo is not None
    address = push_folder(folder, config.repo, config.private)
    seen = "private" if config.private else "public"
    print(f"All of it was uploaded to {address} ({seen}).")


def choose_evaluation(config: ExportConfig, start: StartingPoint) -> tuple[StoredEvaluation | None, str]:
    """The evaluation to tell of and a sentence on it, or else why there is none.

    Raises:
        UserError: the one that was asked for is damaged or another checkpoint's.
    """
    if config.evaluation == NONE:
        return None, "evaluation=none"
    weights = weights_hash(start.agent)
    if config.evaluation is None:
        return find_evaluation(start.folder, start.checkpoint, weights)
    evaluation = read_evaluation(Path(config.evaluation).expanduser())
    if not evaluation.is_of(weights):
        raise UserError(
            f"evaluation={config.evaluation} is of another checkpoint ({evaluation.results['checkpoint']}) than "
            f"{start.checkpoint}: give that one as ckpt, choose another evaluation, or evaluation=none."
        )
    return evaluation, f"The card tells of the evaluation {evaluation.label}."


def write_shared(
    folder: Path, config: ExportConfig, start: StartingPoint, evaluation: StoredEvaluation | None, paths: PrivatePaths
) -> list[str]:
    """Fill the folder, the card last; returns the names of files in which paths were shortened."""
    description = write_agent_files(folder, start)
    shared = shared_description(description, paths)
    write_json(folder / DESCRIPTION, shared)
    shortened = [DESCRIPTION] if shared != description else []
    results = None
    if evaluation is not None:
        results = paths.values(evaluation.results)
        write_json(folder / RESULTS, results)
        shortened += [RESULTS] if results != evaluation.results else []
        shortened += [name for name in (REPORT, *TABLES) if copied(evaluation.folder / name, folder, paths)]
    shortened += [path.name for path in training_configs(start) if copied(path, folder, paths)]
    name = config.repo.split("/")[1] if config.repo else Path(config.out).expanduser().resolve().name
    card = SharedAgent(
        name=name,
        repo=config.repo,
        license=config.license,
        description=shared,
        files=sorted(path.name for path in folder.iterdir()),
        parameters={
            part: (count(module), count(module, trained_only=True))
            for part, module in (("world-action model", start.agent.model), ("tokenizer", start.agent.tokenizer))
        },
        results=results,
        protocol=None if evaluation is None else evaluation.protocol,
    )
    write_text(folder / CARD, render(card))
    return shortened


def write_agent_files(folder: Path, start: StartingPoint) -> dict[str, Any]:
    """The agent as `open_agent` reads it, without what only training needs; returns its description."""
    if start.checkpoint.is_file():
        files = find_published(start.checkpoint)
        assert files is not None, "the agent was just read from them"
        write_agent(folder, read_published(files))
        return read_description(folder)
    for name in (WEIGHTS, BUFFERS_FILE):
        if (start.checkpoint / name).is_file():
            shutil.copyfile(start.checkpoint / name, folder / name)
    if start.perceptual_weights is not None:
        save_tensors(folder / LPIPS_FILE, read_lpips(start.perceptual_weights))
    return start.agent.description


def shared_description(description: dict[str, Any], paths: PrivatePaths) -> dict[str, Any]:
    """The description without the places of files that stay here; an environment's settings are kept whole."""
    shared: dict[str, Any] = paths.values(description) | {"environments": description.get("environments", [])}
    shared["tokenizer"] = description["tokenizer"] | {"perceptual_weights": None}
    return shared | {"data": None}


def games_with_paths(agent: Agent, paths: PrivatePaths) -> list[str]:
    specs = agent.description.get("environments", [])
    return [spec["name"] for spec in specs if paths.values(spec) != spec]


def copied(path: Path, folder: Path, paths: PrivatePaths) -> bool:
    """Copy a text file, if there is one; returns whether paths in it were shortened."""
    if not path.is_file():
        return False
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}): put it right, or move it away.") from error
    shared = paths.page(text) if path.suffix == ".html" else paths.text(text)
    write_text(folder / path.name, shared)
    return shared != text


def training_configs(start: StartingPoint) -> Sequence[Path]:
    """What the run was started with, and what it was gone on with; a hub's lies beside the checkpoint."""
    folder = start.folder if (start.folder / CONFIG).is_file() else start.checkpoint
    return [folder / CONFIG, *sorted(folder.glob("config-resumed-*.yaml"))]


def listing(folder: Path) -> str:
    """The files that were written, with their sizes."""
    files = sorted(folder.iterdir())
    width = max(len(path.name) for path in files)
    sizes = [path.stat().st_size for path in files]
    rows = zip(files, sizes, strict=True)
    return "\n".join(f"  {path.name:<{width}}  {size / 1e3:>12,.1f} kB" for path, size in rows)


if __name__ == "__main__":
    run(main, ExportConfig, "export")
