"""Our arithmetic is the published one: exact expected outputs for weights drawn by rule (tests/golden)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_weights import FOLDER, from_published, golden_lpips_tensor, golden_state, keys

from jowa.games import GAMES, legal_mask
from jowa.models.perceptual import LPIPS
from jowa.models.tokenizer import Tokenizer, TokenizerConfig
from jowa.models.world_action_model import ModelConfig, WorldActionModel
from jowa.objectives.autoencoding import autoencoding_losses
from jowa.objectives.conservative import conservative_counts, conservative_losses
from jowa.objectives.temporal_difference import c51_loss, mse_loss, td_count
from jowa.objectives.world import world_counts, world_losses
from jowa.planning.beam_search import BeamSearch
from jowa.planning.dream import Context
from jowa.planning.tree_dream import TreeDream

GOLDEN = np.load(FOLDER / "golden.npz")
SALT = str(GOLDEN["salt"])
SIZES = {
    "40M": ModelConfig("40M", 4, 8, 512, 1, 768),
    "150M": ModelConfig("150M", 12, 12, 768, 3, 1792),
}
CASES = [("40M", "c51"), ("40M", "mse"), ("150M", "c51")]


def close(actual: torch.Tensor, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    actual_array = actual.detach().double().numpy()
    assert actual_array.shape == expected.shape
    scale = np.nanmax(np.abs(expected))
    np.testing.assert_allclose(actual_array, expected, rtol=0, atol=tolerance * scale)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(TokenizerConfig())
    tokenizer.load_state_dict(golden_state("tokenizer", SALT))
    return tokenizer.eval()


@pytest.fixture(scope="module", params=CASES, ids=["-".join(case) for case in CASES])
def model(request: pytest.FixtureRequest) -> tuple[str, WorldActionModel]:
    size, q_loss = request.param
    config = SIZES[size]
    config = ModelConfig(**{**vars(config), "q_loss": q_loss})
    model = WorldActionModel(config, 2048)
    model.load_state_dict(from_published(golden_state(f"JOWA_{size}", SALT, q_loss == "mse"), config.layers))
    return f"{size}_{q_loss}", model.eval()


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    names = {"codes": "b_tokens", "actions": "b_actions", "tasks": "b_games"}
    batch = {ours: torch.from_numpy(GOLDEN[theirs].astype(np.int64)) for ours, theirs in names.items()}
    batch["rewards"] = torch.from_numpy(GOLDEN["b_rewards"]).sign()
    batch["ends"] = torch.from_numpy(GOLDEN["b_ends"].astype(bool))
    batch["valid"] = torch.from_numpy(GOLDEN["b_mask"])
    return batch


def legal(tasks: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.stack([legal_mask(GAMES[int(task)]) for task in tasks]))


@torch.inference_mode()
def test_tokenizer(tokenizer: Tokenizer) -> None:
    frames = torch.from_numpy(GOLDEN["tok_frames"]).flatten(0, 1)
    x, reconstruction, quantised = tokenizer(frames)
    expected = GOLDEN["tok_tokens"].reshape(-1, 36)
    differs = quantised.codes.numpy() != expected
    assert not (differs & (GOLDEN["tok_margin"].reshape(-1, 36) > 1e-3)).any()
    assert differs.mean() < 0.01
    assert torch.equal(tokenizer.encode(frames), quantised.codes)
    close(quantised.latents[0], GOLDEN["tok_z"])
    close(quantised.nearest[0], GOLDEN["tok_zq"])
    close((reconstruction[:2] + 1) / 2, GOLDEN["tok_rec"])
    weight = torch.ones(len(frames))
    sums = autoencoding_losses(x, reconstruction, quantised.latents, quantised.nearest, weight)
    losses = torch.stack([sums["quantisation"], sums["reconstruction"]]) / weight.sum()
    close(losses, GOLDEN["tok_losses"])


@torch.inference_mode()
def test_lpips() -> None:
    data = np.load(FOLDER / "golden_lpips.npz")
    lpips = LPIPS()
    state = lpips.state_dict()
    for name, (shape, _) in keys("tokenizer").items():
        if name.startswith("lpips.") and "scaling" not in name:
            state[name.removeprefix("lpips.")] = golden_lpips_tensor(name, shape, str(data["salt"]))
    lpips.load_state_dict(state)
    distance = lpips(torch.from_numpy(data["lpips_a"]), torch.from_numpy(data["lpips_b"]))
    close(distance.view(-1, 1, 1, 1), data["lpips_out"])


@torch.inference_mode()
def test_heads(model: tuple[str, WorldActionModel], batch: dict[str, torch.Tensor]) -> None:
    name, net = model
    h = net.hidden(batch["codes"], batch["actions"], batch["tasks"])
    logits = net.observation_logits(h.observation).flatten(1, 2)
    close(logits[:, ::17, :48], GOLDEN[f"{name}_obs"])
    close(logits.logsumexp(-1), GOLDEN[f"{name}_obs_lse"])
    close(net.reward_logits(h.action), GOLDEN[f"{name}_rew"])
    close(net.end_logits(h.action), GOLDEN[f"{name}_end"])
    q = net.q_logits(h.last_code)
    if name.endswith("c51"):
        close(q.flatten(-2)[..., ::17], GOLDEN[f"{name}_q"])
        close(net.q_values(h.last_code), GOLDEN[f"{name}_q_mean"])
        close(net.expected_q(net.q_target_logits(h.last_code)), GOLDEN[f"{name}_q_target_mean"])
    else:
        close(q[..., 0], GOLDEN[f"{name}_q"])


@torch.inference_mode()
def test_losses(model: tuple[str, WorldActionModel], batch: dict[str, torch.Tensor]) -> None:
    name, net = model
    codes, actions, tasks = batch["codes"], batch["actions"], batch["tasks"]
    rewards, ends, valid = batch["rewards"], batch["ends"], batch["valid"]
    h = net.hidden(codes, actions, tasks)
    heads = net.observation_logits(h.observation), net.reward_logits(h.action), net.end_logits(h.action)
    sums = world_losses(*heads, codes, rewards, ends, valid)
    counts = world_counts(valid, codes.shape[2])
    world = torch.stack([sums[key] / counts[key] for key in ("observation", "reward", "end")])
    close(world, GOLDEN[f"{name}_loss_stage1"][:3])
    logits, target = net.q_logits(h.last_code), net.q_target_logits(h.last_code)
    steps = actions, rewards, ends, valid, legal(tasks)
    if name.endswith("c51"):
        td = c51_loss(logits, target, *steps, net.support, 0.99)
    else:
        td = mse_loss(logits[..., 0], target[..., 0], *steps, 0.99)
    stage2 = [*(0.1 * world), td / td_count(ends, valid)]
    expected = GOLDEN[f"{name}_loss_stage2"]
    if not np.isnan(expected[4]):
        real = torch.ones(len(codes), dtype=torch.bool)
        penalty = conservative_losses(net.expected_q(logits), actions, valid, real)
        penalty_counts = conservative_counts(valid, real)
        stage2.append(torch.stack([0.1 * penalty[key] / penalty_counts[key] for key in penalty]).sum())
    close(torch.stack(stage2), expected[: len(stage2)])


def imagination_cases(name: str, kind: str) -> list[tuple[str, str, int, list[str]]]:
    """(array, game, frames of context, what else the name says) of every golden array of one kind."""
    prefix = f"{name}_{kind}_"
    arrays = [array for array in GOLDEN.files if array.startswith(prefix)]
    parts = [array.removeprefix(prefix).split("_") for array in arrays]
    return [(array, game, int(frames), rest) for array, (game, frames, *rest) in zip(arrays, parts, strict=True)]


def context_of(batch: dict[str, torch.Tensor], game: str, frames: int) -> tuple[Context, torch.Tensor]:
    """The first frames of the game's row, and the action withheld from the last of them."""
    row = batch["tasks"].tolist().index(GAMES.index(game))
    codes, actions = batch["codes"][row : row + 1, :frames], batch["actions"][row : row + 1, :frames]
    context = Context(codes, actions, torch.tensor([frames]), batch["tasks"][row : row + 1])
    return context, actions[:, -1:]


@torch.inference_mode()
def test_imagination(model: tuple[str, WorldActionModel], batch: dict[str, torch.Tensor]) -> None:
    name, net = model
    for array, game, frames, (what,) in imagination_cases(name, "imag"):
        if what != "q0":
            continue
        context, action = context_of(batch, game, frames)
        dream = TreeDream(net)
        root = dream.reset(context)
        child = dream.expand(root.ids, action)
        stem = array.removesuffix("q0")
        illegal = ~legal(context.tasks)[0]
        close(root.q[0, 0][~illegal], GOLDEN[array][~illegal])
        close(child.q[0, 0][~illegal], GOLDEN[f"{stem}q1"][~illegal])
        assert np.isneginf(GOLDEN[array][illegal]).all()
        assert dream.codes(child.ids)[0, 0].tolist() == GOLDEN[f"{stem}tokens"].tolist()
        reward, end = GOLDEN[f"{stem}rd"]
        assert (child.reward.item(), 1 - child.continuation.item()) == (reward, end)


@torch.inference_mode()
def test_beam_search(model: tuple[str, WorldActionModel], batch: dict[str, torch.Tensor]) -> None:
    name, net = model
    cases = imagination_cases(name, "beam")
    assert cases or name.endswith("mse")
    for array, game, frames, (settings,) in cases:
        width, horizon = (int(number) for number in settings.removeprefix("K").split("H"))
        context, _ = context_of(batch, game, frames)
        planner = BeamSearch(width, horizon, gamma=0.99, respect_termination=False)
        plan = planner.plan(TreeDream(net), context, legal(context.tasks))
        assert plan.actions.tolist() == GOLDEN[array].tolist(), array
