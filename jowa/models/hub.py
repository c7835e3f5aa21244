"""Agents from and to a model hub (huggingface.co, or what HF_ENDPOINT names), by the hub's own library."""

from __future__ import annotations

import re
from pathlib import Path

from jowa import __version__
from jowa.errors import UserError
from jowa.models.agent_files import DESCRIPTION, WEIGHTS
from jowa.models.conversion import BUFFERS_FILE, LPIPS_FILE
from jowa.models.published_files import TOKENIZER_FILE
from jowa.resuming import CONFIG

PREFIX = "hub:"
AGENT_FILES = (DESCRIPTION, WEIGHTS, LPIPS_FILE, BUFFERS_FILE, CONFIG, "results.json")
"""What an agent's folder may hold of the agent itself, its training and its evaluation: all that is downloaded."""
_NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_][\w.-]{0,94}(?<![.-])", re.ASCII)


def hub_folder(ckpt: str, size: str | None = None) -> Path:
    """The folder with the files of `hub:<owner>/<name>`, or of one revision, `hub:<owner>/<name>@<revision>`.

    They are those of an agent, or published ones, of one `size` alone if it is given. What isn't in the library's cache
    is downloaded; without a network (or with HF_HUB_OFFLINE=1) the cache has to do.

    Raises:
        UserError: the library isn't installed, there is no such model, or it is neither in reach nor in the cache.
    """
    name, _, revision = ckpt.removeprefix(PREFIX).partition("@")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
    except ImportError as error:
        raise UserError(f"{ckpt} needs the hub's library: pip install 'jowa[hub]'.") from error
    wanted = [*AGENT_FILES, TOKENIZER_FILE, f"JOWA_{size or '*'}.pt"]
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=wanted))
    except HFValidationError as error:
        raise UserError(f"{ckpt} names no model: write hub:<owner>/<name>.") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"The hub has no model {name}, or it is private (log in by `hf auth login`).") from error
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"{name} isn't in the hub's cache, and the hub is out of reach: connect, or give a folder."
        ) from error
    except Exception as error:  # networks, disks and servers fail in many ways
        raise UserError(f"{ckpt} can't be fetched ({_first_line(error)}).") from error


def check_repo(repo: str) -> None:
    """Raises UserError unless it can be a model's name on the hub."""
    parts = repo.split("/")
    if len(parts) != 2 or not all(map(_NAME.fullmatch, parts)) or len(repo) > 96 or repo.endswith(".git"):
        raise UserError(
            f"repo={repo} can't be a model's name: write repo=<owner>/<name>, of letters, digits, '-', '_' and '.'."
        )


def check_login() -> None:
    """Raises UserError when nothing could be uploaded: no library, or nobody logged in. Asks no server."""
    try:
        from huggingface_hub import get_token
    except ImportError as error:
        raise UserError("push=true needs the hub's library: pip install 'jowa[hub]'.") from error
    if get_token() is None:
        raise UserError("push=true needs an account on the hub: log in by `hf auth login`, or set HF_TOKEN.")


def push_folder(folder: Path, repo: str, private: bool) -> str:
    """Make a new model on the hub, upload everything in the folder, and return the model's address.

    Raises:
        UserError: the model exists, the account may not make it, or the hub is out of reach; the folder stays.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    kept = f"nothing was uploaded, and the folder {folder} is complete"
    try:
        address = str(api.create_repo(repo, repo_type="model", private=private, exist_ok=False))
    except Exception as error:  # networks and servers fail in many ways
        raise UserError(f"{_refusal(repo, error)}; {kept}: `hf upload {repo} {folder}` sends it later.") from error
    try:
        api.upload_folder(
            repo_id=repo, folder_path=folder, repo_type="model", commit_message=f"Exported by jowa {__version__}"
        )
    except Exception as error:
        raise UserError(
            f"{address} was made, but the upload failed ({_first_line(error)}); the folder {folder} is complete: "
            f"`hf upload {repo} {folder}` sends it again."
        ) from error
    return address


def _refusal(repo: str, error: Exception) -> str:
    """Why a model couldn't be made."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 409:
        return f"The hub has a model {repo} already, which is not changed"
    if status in (401, 403):
        return f"The account that is logged in may not make {repo} (`hf auth whoami` names it)"
    return f"{repo} could not be made on the hub ({_first_line(error)})"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
