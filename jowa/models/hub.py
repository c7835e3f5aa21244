"""Agents on a model hub (huggingface.co, or what HF_ENDPOINT names), by the hub's own library."""

from __future__ import annotations

from pathlib import Path

from jowa.errors import UserError
from jowa.models.agent_files import DESCRIPTION, WEIGHTS
from jowa.models.conversion import LPIPS_FILE
from jowa.models.published_files import TOKENIZER_FILE

PREFIX = "hub:"
_AGENT = (DESCRIPTION, WEIGHTS, LPIPS_FILE)


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
        raise UserError(f"ckpt={ckpt} needs the hub's library: pip install 'jowa[hub]'.") from error
    wanted = [*_AGENT, TOKENIZER_FILE, f"JOWA_{size or '*'}.pt"]
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=wanted))
    except HFValidationError as error:
        raise UserError(f"ckpt={ckpt} names no model: write ckpt=hub:<owner>/<name>.") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"The hub has no model {name}, or it is private (log in by `hf auth login`).") from error
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"{name} isn't in the hub's cache, and the hub is out of reach: connect, or give ckpt a folder."
        ) from error
    except Exception as error:  # networks, disks and servers fail in many ways
        raise UserError(f"ckpt={ckpt} can't be fetched ({str(error).splitlines()[0]}).") from error
