"""What rules of play are called, so that scores are quoted with their protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from jowa.envs.protocol import ProtocolConfig

PROTOCOLS = {
    "published": ProtocolConfig(max_episode_frames=432_000),
    "machado": ProtocolConfig(repeat_action_probability=0.25, random_action_probability=0.0),
    "nature": ProtocolConfig(max_no_op_frames=30, random_action_probability=0.0),
    "quick": ProtocolConfig(max_episode_frames=18_000),
}
"""The presets of `configs/protocol`."""


def protocol_name(settings: Mapping[str, Any]) -> str | None:
    """The preset that a protocol's settings are those of, whatever ROMs are played; None if there is none."""
    wanted = {key: value for key, value in settings.items() if key != "rom_dir"}
    for name, protocol in PROTOCOLS.items():
        if {key: value for key, value in asdict(protocol).items() if key != "rom_dir"} == wanted:
            return name
    return None


def rules(settings: Mapping[str, Any]) -> str:
    """A protocol's name and settings in a sentence."""
    values = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in settings.items() if value is not None)
    name = protocol_name(settings)
    return f"Protocol {name}: {values}." if name else f"Protocol of its own: {values}."
