"""An agent survives its files, and damaged ones are refused."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from small_learner import MODEL, TOKENIZER, small_model
from tiny_store import states_equal

from jowa.errors import UserError
from jowa.models.agent_files import DESCRIPTION, WEIGHTS, load_agent, save_agent, tokenizer_hash
from jowa.models.perceptual import LPIPS, load_lpips
from jowa.models.tokenizer import Tokenizer
from jowa.training.starting_point import open_agent


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_agent(tmp_path, Tokenizer(TOKENIZER), small_model(q_loss="mse"), {"games": ["Pong"]})
    return tmp_path


def test_an_agent_survives_its_files_bitwise(tmp_path: Path) -> None:
    tokenizer, model = Tokenizer(TOKENIZER), small_model()
    save_agent(tmp_path, tokenizer, model, {"games": ["Pong"]})
    agent = load_agent(tmp_path)
    assert states_equal(agent.model.state_dict(), model.state_dict())
    assert states_equal(agent.tokenizer.state_dict(), tokenizer.state_dict())
    assert json.dumps(asdict(agent.model.config)) == json.dumps(asdict(MODEL))
    assert json.dumps(asdict(agent.tokenizer.config)) == json.dumps(asdict(TOKENIZER))
    assert agent.description["games"] == ["Pong"] and not agent.model.training and not agent.tokenizer.training
    assert tokenizer_hash(agent.tokenizer) == tokenizer_hash(tokenizer)
    frames = torch.rand(2, 1, 84, 84)
    assert torch.equal(agent.tokenizer.encode(frames), tokenizer.encode(frames))


def test_tokenizer_hash_names_what_decides_the_codes() -> None:
    tokenizer = Tokenizer(TOKENIZER)
    name = tokenizer_hash(tokenizer)
    for module, same in ((tokenizer.decoder, True), (tokenizer.post_quant_conv, True), (tokenizer.embedding, False)):
        parameter = next(module.parameters())
        parameter.data[0] += 1e-3
        assert (tokenizer_hash(tokenizer) == name) == same
    assert len(name) == 16


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def edit(folder: Path, change) -> None:
    description = json.loads((folder / DESCRIPTION).read_text())
    change(description)
    (folder / DESCRIPTION).write_text(json.dumps(description))


DAMAGE = {
    "weights cut": lambda folder: cut(folder / WEIGHTS, 0.7),
    "weights empty": lambda folder: cut(folder / WEIGHTS, 0),
    "weights gone": lambda folder: (folder / WEIGHTS).unlink(),
    "weights of another kind": lambda folder: (folder / WEIGHTS).write_bytes(b"PK\x03\x04" + bytes(5000)),
    "description cut": lambda folder: cut(folder / DESCRIPTION, 0.5),
    "description gone": lambda folder: (folder / DESCRIPTION).unlink(),
    "description no object": lambda folder: (folder / DESCRIPTION).write_text("[1, 2]"),
    "description binary": lambda folder: (folder / DESCRIPTION).write_bytes(bytes(range(128, 256))),
    "no model": lambda folder: edit(folder, lambda d: d.pop("model")),
    "no tokenizer": lambda folder: edit(folder, lambda d: d.update(tokenizer=None)),
    "later format": lambda folder: edit(folder, lambda d: d.update(format=99)),
    "unknown setting": lambda folder: edit(folder, lambda d: d["model"].update(new_idea=1)),
    "wrong kind of value": lambda folder: edit(folder, lambda d: d["model"].update(width="wide")),
    "another width": lambda folder: edit(folder, lambda d: d["model"].update(width=32)),
    "another depth": lambda folder: edit(folder, lambda d: d["model"].update(layers=1)),
    "another vocabulary": lambda folder: edit(folder, lambda d: d["tokenizer"].update(vocabulary=64)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_agents_are_refused(saved: Path, damage) -> None:
    damage(saved)
    with pytest.raises(UserError) as error:
        load_agent(saved)
    assert str(saved) in str(error.value) or "newer jowa" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("part", "name"), [("model", "q_networks.bias1"), ("tokenizer", "embedding.weight")])
@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused(saved: Path, part: str, name: str, number: float) -> None:
    agent = load_agent(saved)
    dict(getattr(agent, part).named_parameters())[name].data.view(-1)[-1] = number
    save_agent(saved, agent.tokenizer, agent.model, agent.description)
    with pytest.raises(UserError, match=rf"{saved} has NaN or infinity in {part}\.{name}: choose another checkpoint"):
        open_agent(str(saved))


def test_lpips_weights_come_from_a_file_that_holds_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    lpips = LPIPS()
    torch.save({f"module.lpips.{name}": tensor for name, tensor in lpips.state_dict().items()}, tmp_path / "whole.pt")
    assert states_equal(load_lpips(str(tmp_path / "whole.pt")).state_dict(), lpips.state_dict())
    torch.save({"lpips.something": torch.zeros(1)}, tmp_path / "other.pt")
    shapes = {f"lpips.{name}": torch.zeros(1) for name in lpips.state_dict()}
    torch.save(shapes, tmp_path / "shapes.pt")
    torch.save({"lpips": object}, tmp_path / "code.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:9999])
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    for name in (None, "missing.pt", "other.pt", "shapes.pt", "code.pt", "cut.pt", "cut.safetensors"):
        with pytest.raises(UserError, match=r"tokenizer\.perceptual") as error:
            load_lpips(str(tmp_path / name) if name else None)
        assert "\n" not in str(error.value)
