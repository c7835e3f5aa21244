"""Which ROM file a game is played from."""

from __future__ import annotations

import hashlib
from pathlib import Path

from jowa.errors import UserError
from jowa.games import packaged_rom, rom_name

_SMALLEST = 2048


def rom_path(game: str, rom_dir: str | None = None) -> Path:
    """The game's ROM: `<rom_dir>/<rom>.bin`, or ale-py's own without `rom_dir`.

    Raises UserError if the file is missing or can't be a cartridge (the emulator would end the process).
    """
    if rom_dir is None:
        return packaged_rom(game)
    path = Path(rom_dir).expanduser() / f"{rom_name(game)}.bin"
    if not path.is_file():
        raise UserError(f"There is no ROM {path} for {game}: set protocol.rom_dir to a folder that has it, or to null.")
    size = path.stat().st_size
    if size < _SMALLEST or size % _SMALLEST:
        raise UserError(f"{path} ({size} bytes) is no Atari cartridge: replace it, or set protocol.rom_dir to null.")
    return path


def rom_md5(game: str, rom_dir: str | None = None) -> str:
    """MD5 of the ROM in hexadecimal, the identity that data and results are labelled with."""
    return hashlib.md5(rom_path(game, rom_dir).read_bytes(), usedforsecurity=False).hexdigest()
