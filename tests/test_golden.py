"""Our arithmetic is the published one: exact expected outputs for weights drawn by rule (tests/golden)."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from golden_weights import FOLDER, golden_lpips, golden_state

from jowa.games import GAMES, legal_mask
from jowa.models.perceptual import LPIPS
from jowa.models.published import MODELS, model_from_published
from jowa.models.tokenizer import Tokenizer, TokenizerConfig
from jowa.models.unfilled import Unfilled
from jowa.models.world_action_model import WorldActionModel
from jowa.objectives.autoencoding import autoencoding_losses
from jowa.objectives.conservative import conservative_counts, conservative_losses
from jowa.objectives.temporal_difference import c51_loss, mse_loss, td_count
from jowa.objectives.world import world_counts, world_losses
from jowa.planning.beam_search import BeamSearch
from jowa.planning.dream import Context
from jowa.planning.mcts import MonteCarloTreeSearch
from jowa.planning.planner import Planner
from jowa.planning.tree_dream import TreeDream

GOLDEN = np.load(FOLDER / "golden.npz")
SALT = str(GOLDEN["salt"])
CASES = sorted({tuple(name.split("_")[:2]) for name in GOLDEN.files if name.split("_")[0] in MODELS})
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def close(actual: torch.Tensor, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    actual_array = actual.detach().double().cpu().numpy()
    assert actual_array.shape == expected.shape
    scale = np.nanmax(np.abs(expected))
    np.testing.assert_allclose(actual_array, expected, rtol=0, atol=tolerance * scale)


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return request.param


@pytest.fixture(scope="module")
def tokenizer(device: str) -> Tokenizer:
    with Unfilled():
        tokenizer = Tokenizer(TokenizerConfig())
    tokenizer.load_state_dict(golden_state("tokenizer", SALT))
    return tokenizer.to(device).eval()


@pytest.fixture(scope="module", params=CASES, ids=["-".join(case) for case in CASES])
def model(request: pytest.FixtureRequest, device: str) -> tuple[str, WorldActionModel]:
    size, q_loss = request.param
    config = replace(MODELS[size], q_loss=q_loss)
    with Unfilled():
        model = WorldActionModel(config, 2048)
    model.load_state_dict(model_from_published(golden_state(f"JOWA_{size}", SALT, q_loss == "mse"), config.layers))
    return f"{size}_{q_loss}", model.to(device).eval()


@pytest.fixture(scope="module")
def batch(device: str) -> dict[str, torch.Tensor]:
    names = {"codes": "b_tokens", "actions": "b_actions", "tasks": "b_games"}
    batch = {ours: torch.from_numpy(GOLDEN[theirs].astype(np.int64)) for ours, theirs in names.items()}
    batch["rewards"] = torch.from_numpy(GOLDEN["b_rewards"]).sign()
    batch["ends"] = torch.from_numpy(GOLDEN["b_ends"].astype(bool))
    batch["valid"] = torch.from_numpy(GOLDEN["b_mask"])
    return {name: tensor.to(device) for name, tensor in batch.items()}


def legal(tasks: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.stack([legal_mask(GAMES[task]) for task in tasks.tolist()])).to(tasks.device)


@torch.inference_mode()
def test_tokenizer(tokenizer: Tokenizer, device: str) -> None:
    frames = torch.from_numpy(GOLDEN["tok_frames"]).flatten(0, 1).to(device)
    x, reconstruction, quantised = tokenizer(frames)
    expected = GOLDEN["tok_tokens"].reshape(-1, 36)
    differs = quantised.codes.cpu().numpy() != expected
    assert not (differs & (GOLDEN["tok_margin"].reshape(-1, 36) > 1e-3)).any()
    assert differs.mean() < 0.01
    assert torch.equal(tokenizer.encode(frames), quantised.codes)
    close(quantised.latents[0], GOLDEN["tok_z"])
    if not differs[0].any():
        close(quantised.nearest[0], GOLDEN["tok_zq"])
    for frame in (0, 1):
        if not differs[frame].any():
            close((reconstruction[frame] + 1) / 2, GOLDEN["tok_rec"][frame])
    weight = torch.ones(len(frames), device=device)
    sums = autoencoding_losses(x, reconstruction, quantised.latents, quantised.nearest, weight)
    losses = torch.stack([sums["quantisation"].sum(), sums["reconstruction"].sum()]) / weight.sum()
    close(losses, GOLDEN["tok_losses"])


@torch.inference_mode()
def test_lpips(device: str) -> None:
    data = np.load(FOLDER / "golden_lpips.npz")
    lpips = LPIPS()
    weights = golden_lpips(str(data["salt"]))
    lpips.load_state_dict({name.removeprefix("lpips."): tensor for name, tensor in weights.items()})
    pair = [torch.from_numpy(data[name]).to(device) for name in ("lpips_a", "lpips_b")]
    distance = lpips.to(device)(*pair)
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
    world = torch.stack([sums[key].sum() / counts[key].sum() for key in ("observation", "reward", "end")])
    close(world, GOLDEN[f"{name}_loss_stage1"][:3])
    assert np.isnan(GOLDEN[f"{name}_loss_stage1"][3:]).all()
    logits, target = net.q_logits(h.last_code), net.q_target_logits(h.last_code)
    steps = actions, rewards, ends, valid, legal(tasks)
    if name.endswith("c51"):
        td = c51_loss(logits, target, *steps, net.support, 0.99)
    else:
        td = mse_loss(logits[..., 0], target[..., 0], *steps, 0.99)
    stage2 = [*(0.1 * world), td.sum() / td_count(ends, valid).sum()]
    expected = GOLDEN[f"{name}_loss_stage2"]
    if not np.isnan(expected[4]):
        real = torch.ones(len(codes), dtype=torch.bool, device=codes.device)
        penalty = conservative_losses(net.expected_q(logits), actions, valid, real)
        penalty_counts = conservative_counts(valid, real)
        stage2.append(torch.stack([0.1 * penalty[key].sum() / penalty_counts[key].sum() for key in penalty]).sum())
    close(torch.stack(stage2), expected[: len(stage2)])


class Case(NamedTuple):
    """A golden array of planning: its game, its frames of context, and what else its name says."""

    array: str
    game: str
    frames: int
    rest: str


def planning_cases(name: str, kind: str) -> list[Case]:
    """Every golden array of one kind."""
    prefix = f"{name}_{kind}_"
    arrays = [array for array in GOLDEN.files if array.startswith(prefix)]
    parts = [array.removeprefix(prefix).split("_", 2) for array in arrays]
    return [
        Case(array, game, int(frames), "".join(rest))
        for array, (game, frames, *rest) in zip(arrays, parts, strict=True)
    ]


def contexts_of(batch: dict[str, torch.Tensor], cases: list[Case]) -> tuple[Context, torch.Tensor]:
    """The first frames of the cases' rows side by side, and the actions (N, 1) withheld from the last of each."""
    device = batch["tasks"].device
    rows = torch.tensor([batch["tasks"].tolist().index(GAMES.index(case.game)) for case in cases], device=device)
    lengths = torch.tensor([case.frames for case in cases], device=device)
    longest = int(lengths.max())
    codes, actions, tasks = batch["codes"][rows, :longest], batch["actions"][rows, :longest], batch["tasks"][rows]
    return Context(codes, actions, lengths, tasks), actions.gather(1, lengths[:, None] - 1)


@torch.inference_mode()
def test_imagination(model: tuple[str, WorldActionModel], batch: dict[str, torch.Tensor]) -> None:
    name, net = model
    cases = [case for case in planning_cases(name, "imag") if case.rest == "q0"]
    assert cases or name.endswith("mse")
    if not cases:
        return
    context, action = contexts_of(batch, cases)
    dream = TreeDream(net)
    root = dream.reset(context, room=1)
    child = dream.expand(root.ids, action)
    codes, possible = dream.codes(child.ids), legal(context.tasks).cpu()
    for row, case in enumerate(cases):
        stem, mask = case.array.removesuffix("q0"), possible[row]
        close(root.q[row, 0].cpu()[mask], GOLDEN[case.array][mask])
        close(child.q[row, 0].cpu()[mask], GOLDEN[f"{stem}q1"][mask])
        assert np.isneginf(GOLDEN[case.array][~mask]).all()
        assert codes[row, 0].tolist() == GOLDEN[f"{stem}tokens"].tolist()
        reward, end = GOLDEN[f"{stem}rd"]
        assert (child.reward[row].item(), 1 - child.continuation[row].item()) == (reward, end)


def beam_search(settings: str) -> BeamSearch:
    width, horizon = (int(number) for number in settings.removeprefix("K").split("H"))
    return BeamSearch(width, horizon, gamma=0.99, use_termination=False)


def tree_search() -> MonteCarloTreeSearch:
    # The vectors' horizon 4 counts the root: three imagined steps.
    return MonteCarloTreeSearch(12, 3, temperature=0.9, gamma=0.99, choice="value", use_termination=False)


def assert_same_decisions(
    net: WorldActionModel, batch: dict[str, torch.Tensor], planner: Planner, cases: list[Case]
) -> None:
    """The cases' contexts, of different games and lengths, in one batch."""
    context, _ = contexts_of(batch, cases)
    plan = planner.plan(TreeDream(net), context, legal(context.tasks))
    expected = {case.array: GOLDEN[case.array].tolist() for case in cases}
    assert {case.array: [action] for case, action in zip(cases, plan.actions.tolist(), strict=True)} == expected


@torch.inference_mode()
def test_beam_search(model: tuple[str, WorldActionModel], batch: dict[str, torch.Tensor]) -> None:
    name, net = model
    cases = planning_cases(name, "beam")
    assert cases or name.endswith("mse")
    for settings in sorted({case.rest for case in cases}):
        chosen = [case for case in cases if case.rest == settings]
        assert_same_decisions(net, batch, beam_search(settings), chosen)


@torch.inference_mode()
def test_mcts(model: tuple[str, WorldActionModel], batch: dict[str, torch.Tensor]) -> None:
    name, net = model
    cases = planning_cases(name, "mcts")
    assert len(cases) == 9 or name != "40M_c51"
    if cases:
        assert_same_decisions(net, batch, tree_search(), cases)


@torch.inference_mode()
def test_the_same_decisions_one_by_one(model: tuple[str, WorldActionModel], batch: dict[str, torch.Tensor]) -> None:
    """Each planner by itself on a context of every game, of every length among them; the largest model on one."""
    name, net = model
    for kind, rest, planner in (("beam", "K2H2", beam_search("K2H2")), ("mcts", "", tree_search())):
        cases = [case for case in planning_cases(name, kind) if case.rest == rest]
        lengths = sorted({case.frames for case in cases})
        games = list(dict.fromkeys(case.game for case in cases))[: 1 if name.startswith("150M") else None]
        for number, game in enumerate(games):
            length = lengths[number % len(lengths)]
            alone = [case for case in cases if (case.game, case.frames) == (game, length)]
            assert len(alone) == 1
            assert_same_decisions(net, batch, planner, alone)


def test_no_array_goes_unproven() -> None:
    """There is no array but those that the tests above read, and none of those is missing."""
    inputs = {"salt", *(f"tok_{name}" for name in ("frames", "tokens", "margin", "z", "zq", "rec", "losses"))}
    known = inputs | {f"b_{name}" for name in ("tokens", "actions", "rewards", "ends", "mask", "games")}
    assert {("40M", "c51"), ("40M", "mse"), ("150M", "c51")} <= set(CASES)
    for size, loss in CASES:
        heads = ["obs", "obs_lse", "rew", "end", "q", "loss_stage1", "loss_stage2"]
        heads += ["q_mean", "q_target_mean"] if loss == "c51" else []
        known |= {f"{size}_{loss}_{name}" for name in heads}
        contexts = {case.array.rsplit("_", 1)[0] for case in planning_cases(f"{size}_{loss}", "imag")}
        known |= {f"{stem}_{part}" for stem in contexts for part in ("q0", "tokens", "rd", "q1")}
        planned = [case.array for kind in ("beam", "mcts") for case in planning_cases(f"{size}_{loss}", kind)]
        known |= set(planned)
        assert loss == "mse" or (contexts and planned)
    assert set(GOLDEN.files) == known
    assert set(np.load(FOLDER / "golden_lpips.npz").files) == {"lpips_a", "lpips_b", "lpips_out", "salt"}
