"""The losses, against loops and hand-worked numbers; and what must have no influence on them has none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_learner import one_part, padded_batch, small_learner
from torch import Tensor

from jowa.models.q_ensemble import ensemble_mean
from jowa.objectives.autoencoding import autoencoding_losses
from jowa.objectives.conservative import conservative_counts, conservative_losses
from jowa.objectives.temporal_difference import c51_loss, greedy_action, mse_loss, project, td_count, td_masks
from jowa.objectives.world import observation_targets, reward_classes, world_counts, world_losses
from jowa.training.config import ObjectiveConfig, StageConfig

SUPPORT = torch.linspace(-10.0, 30.0, 51)
LEGAL = torch.ones(1, 18, dtype=torch.bool)


def project_by_loop(probabilities: np.ndarray, reward: float, discount: float, support: np.ndarray) -> np.ndarray:
    """Bellemare et al. 2017, algorithm 1, for one distribution."""
    out = np.zeros_like(probabilities)
    step = (support[-1] - support[0]) / (len(support) - 1)
    for mass, atom in zip(probabilities, support, strict=True):
        place = (np.clip(reward + discount * atom, support[0], support[-1]) - support[0]) / step
        low = min(int(np.floor(place)), len(support) - 1)
        high = min(low + 1, len(support) - 1)
        out[low] += mass * (1 - (place - low))
        out[high] += mass * (place - low)
    return out


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 60), st.floats(-20, 20), st.floats(0.5, 40), st.floats(-60, 60), st.floats(0, 1), st.integers(0, 99)
)
def test_projection_is_the_published_loop(
    atoms: int, low: float, span: float, reward: float, discount: float, seed: int
) -> None:
    support = np.linspace(low, low + span, atoms)
    probabilities = np.random.default_rng(seed).dirichlet(np.full(atoms, 0.3))
    arguments = (torch.from_numpy(probabilities), torch.tensor(reward, dtype=torch.float64),
                 torch.tensor(discount, dtype=torch.float64), torch.from_numpy(support))  # fmt: skip
    ours = project(*arguments).numpy()
    np.testing.assert_allclose(ours, project_by_loop(probabilities, reward, discount, support), atol=1e-9)
    assert ours.sum() == pytest.approx(1) and (ours >= 0).all()


def test_projection_keeps_mass_in_single_precision_on_the_models_support() -> None:
    random = torch.Generator().manual_seed(0)
    probabilities = torch.rand(1000, 51, generator=random).softmax(-1)
    rewards = torch.randint(-1, 2, (1000,), generator=random).float()
    out = project(probabilities, rewards, torch.full((1000,), 0.99), SUPPORT)
    torch.testing.assert_close(out.sum(-1), torch.ones(1000))
    moved = (rewards[:, None] + 0.99 * SUPPORT).clamp(-10, 30)
    torch.testing.assert_close(out @ SUPPORT, (moved * probabilities).sum(-1))


def steps(ends: list[bool], valid: list[bool]) -> tuple[Tensor, Tensor]:
    return torch.tensor([ends]), torch.tensor([valid])


def c51_of(
    ends: list[bool], valid: list[bool], rewards: list[float], legal: Tensor = LEGAL, members: int = 1, seed: int = 0,
    weights: Tensor | None = None,
) -> tuple[float, Tensor, Tensor]:  # fmt: skip
    """(summed loss, prediction (L, 51), target networks' distributions (E, L, 18, 51)) of one random sequence."""
    random = torch.Generator().manual_seed(seed)
    length = len(ends)
    logits, target = (2 * torch.randn(members, 1, length, 18, 51, generator=random) for _ in range(2))
    actions = torch.randint(0, 18, (1, length), generator=random)
    loss = c51_loss(
        logits, target, actions, torch.tensor([rewards]), *steps(ends, valid), legal, SUPPORT, 0.99, weights
    )
    chosen = logits.softmax(-1)[:, 0, torch.arange(length), actions[0]]
    return loss.item(), ensemble_mean(chosen, weights), target.softmax(-1)[:, 0]


@pytest.mark.parametrize(("reward", "sign"), [(400.0, 1.0), (-3.0, -1.0), (0.0, 0.0)])
def test_a_terminal_steps_target_is_all_mass_at_the_rewards_sign(reward: float, sign: float) -> None:
    loss, prediction, _ = c51_of([True, False], [True, False], [reward, 0.0])
    place = (sign + 10) / 0.8
    low = int(place)
    expected = torch.zeros(51)
    expected[low], expected[low + 1] = 1 - (place - low), place - low
    assert loss == pytest.approx(-(expected * (prediction[0] + 1e-8).log()).sum().item(), rel=1e-4)


def test_a_cut_sequences_last_step_has_no_temporal_difference() -> None:
    ends, valid = steps([False, False, False, True], [True, True, True, False])
    assert [mask.tolist() for mask in td_masks(ends, valid)] == [[[True, True, False, False]], [[False] * 4]]
    assert td_count(ends, valid) == 2
    assert c51_of([False, False], [True, False], [1.0, 0.0])[0] == 0
    full = steps([False] * 7 + [True], [True] * 8)
    assert td_count(*full) == 8 and td_count(torch.zeros(1, 8, dtype=torch.bool), full[1]) == 7


@pytest.mark.parametrize("members", [1, 3])
def test_c51_loss_by_hand(members: int) -> None:
    rewards, valid = [5.0, 0.0, -2.0, 0.0], [True, True, True, False]
    loss, prediction, target = c51_of([False, False, True, False], valid, rewards, members=members)
    mean = target.mean(0)
    expected = 0.0
    for t in range(3):
        best = (mean[t + 1] @ SUPPORT).argmax()
        discount = 0.0 if t == 2 else 0.99
        goal = project_by_loop(mean[t + 1, best].numpy(), float(np.sign(rewards[t])), discount, SUPPORT.numpy())
        expected -= float((torch.from_numpy(goal) * (prediction[t] + 1e-8).log()).sum())
    assert loss == pytest.approx(expected, rel=1e-4)


def test_the_bootstrap_action_is_legal() -> None:
    values = torch.arange(18.0).expand(2, 3, 18)
    legal = torch.zeros(2, 18, dtype=torch.bool)
    legal[0, [0, 3, 4]] = legal[1, 17] = True
    assert greedy_action(values, legal).tolist() == [[4, 4, 4], [17, 17, 17]]
    assert greedy_action(-values, legal).tolist() == [[0, 0, 0], [17, 17, 17]]
    random = torch.Generator().manual_seed(0)
    values = torch.zeros(1, 1, 2, 18)
    shared = torch.tensor([[3, 3]]), torch.zeros(1, 2), *steps([False, False], [True, True])
    target = torch.randn(1, 1, 2, 18, generator=random)
    with_illegal = target.clone()
    with_illegal[0, 0, 1, 5:] = 100.0
    only = (torch.arange(18) < 5)[None]
    assert mse_loss(values, target, *shared, only, 0.99) == mse_loss(values, with_illegal, *shared, only, 0.99)
    assert mse_loss(values, target, *shared, LEGAL, 0.99) != mse_loss(values, with_illegal, *shared, LEGAL, 0.99)


def test_c51_bootstraps_from_legal_actions_alone() -> None:
    legal = torch.zeros(1, 18, dtype=torch.bool)
    legal[0, 7] = True
    loss, prediction, target = c51_of([False, False], [True, True], [0.0, 0.0], legal)
    goal = project_by_loop(target[0, 1, 7].numpy(), 0.0, 0.99, SUPPORT.numpy())
    assert (target[0, 1] @ SUPPORT).argmax() != 7
    assert loss == pytest.approx(-float((torch.from_numpy(goal) * (prediction[0] + 1e-8).log()).sum()), rel=1e-4)


def test_mse_loss_by_hand() -> None:
    values = torch.zeros(2, 1, 3, 18)
    values[:, 0, :, 4] = torch.tensor([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]])
    target = torch.zeros(2, 1, 3, 18)
    target[:, 0, 1, 9] = torch.tensor([6.0, 8.0])
    target[:, 0, 2, 2] = -50.0
    actions, rewards = torch.full((1, 3), 4), torch.tensor([[250.0, 0.0, -9.0]])
    loss = mse_loss(values, target, actions, rewards, *steps([False, False, True], [True] * 3), LEGAL, 0.5)
    # Means of the two networks: 2, 3, 4. Goals: 1 + 0.5·7, 0 + 0.5·0 (another action's value is 0), −1.
    assert loss.item() == pytest.approx(0.5 * ((2 - 4.5) ** 2 + (3 - 0) ** 2 + (4 + 1) ** 2))


def test_targets_carry_no_gradient() -> None:
    logits, target = (torch.randn(1, 1, 3, 18, 51, requires_grad=True) for _ in range(2))
    shared = torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, 3), *steps([False] * 3, [True] * 3), LEGAL
    c51_loss(logits, target, *shared, SUPPORT, 0.99).sum().backward()
    mse_loss(logits[..., 0], target[..., 0], *shared, 0.99).sum().backward()
    assert target.grad is None and logits.grad is not None and logits.grad.abs().sum() > 0


@pytest.mark.parametrize("member", [0, 1, 2])
def test_a_one_hot_mixture_is_that_member_alone(member: int) -> None:
    random = torch.Generator().manual_seed(3)
    logits, target = (torch.randn(3, 2, 4, 18, 51, generator=random) for _ in range(2))
    weights = torch.nn.functional.one_hot(torch.tensor(member), 3).float()
    actions, rewards = torch.randint(0, 18, (2, 4), generator=random), torch.randn(2, 4, generator=random)
    ends, valid = torch.tensor([[False] * 3 + [True], [False] * 4]), torch.ones(2, 4, dtype=torch.bool)
    shared = actions, rewards, ends, valid, LEGAL.expand(2, -1)
    alone = logits[member : member + 1], target[member : member + 1]
    torch.testing.assert_close(
        c51_loss(logits, target, *shared, SUPPORT, 0.99, weights), c51_loss(*alone, *shared, SUPPORT, 0.99)
    )
    torch.testing.assert_close(
        mse_loss(logits[..., 0], target[..., 0], *shared, 0.99, weights),
        mse_loss(alone[0][..., 0], alone[1][..., 0], *shared, 0.99),
    )
    half = torch.tensor([0.5, 0.5, 0.0])
    torch.testing.assert_close(ensemble_mean(logits, half), logits[:2].mean(0))
    torch.testing.assert_close(ensemble_mean(logits, None), logits.mean(0))


def test_conservative_penalty_by_hand() -> None:
    q = torch.zeros(2, 2, 3)
    q[0, 0] = torch.tensor([0.0, np.log(2.0), np.log(3.0)])
    q[0, 1] = torch.tensor([1.0, 1.0, 1.0])
    q[1] = 77.0
    actions, valid = torch.tensor([[2, 0], [1, 1]]), torch.tensor([[True, True], [False, False]])
    real = torch.tensor([True, True])
    sums, counts = conservative_losses(q, actions, valid, real), conservative_counts(valid, real)
    penalty = sum(sums[name].sum() / counts[name].sum() for name in sums)
    assert penalty.item() == pytest.approx((np.log(6) + 1 + np.log(3)) / 2 - (np.log(3) + 1) / 2)


def test_combos_second_mean_is_over_real_sequences() -> None:
    q = torch.randn(3, 4, 18, generator=torch.Generator().manual_seed(1))
    actions, valid = torch.full((3, 4), 5), torch.tensor([[True] * 4, [True] * 2 + [False] * 2, [True] * 4])
    real = torch.tensor([True, True, False])
    sums, counts = conservative_losses(q, actions, valid, real), conservative_counts(valid, real)
    assert (counts["conservative_all"].tolist(), counts["conservative_data"].tolist()) == ([4, 2, 4], [4, 2, 0])
    torch.testing.assert_close(sums["conservative_all"].sum(), q[valid].logsumexp(-1).sum())
    taken = torch.stack([-q[0, :, 5].sum(), -q[1, :2, 5].sum(), torch.tensor(0.0)])
    torch.testing.assert_close(sums["conservative_data"], taken)


@pytest.mark.parametrize(("kind", "data_steps"), [("cql", 12.0), ("combo", 8.0)])
def test_imagined_sequences_are_data_to_cql_but_not_to_combo(kind: str, data_steps: float) -> None:
    learner = small_learner(objective=ObjectiveConfig(conservative=kind))
    batch = padded_batch([8, 4], codes=True)
    batch = replace(batch, imagined=torch.tensor([False, True]))
    learner.begin(StageConfig(td_weight=1.0, conservative_weight=0.1))
    counts = learner.counts(one_part(batch))
    assert (counts["conservative_all"].item(), counts["conservative_data"].item()) == (12.0, data_steps)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=4), st.integers(0, 99))
def test_every_code_but_a_sequences_first_is_a_label_once(lengths: list[int], seed: int) -> None:
    valid = torch.arange(8) < torch.tensor(lengths)[:, None]
    codes = torch.randint(0, 999, (len(lengths), 8, 36), generator=torch.Generator().manual_seed(seed))
    labels, mask = observation_targets(codes, valid)
    for row, length in enumerate(lengths):
        assert labels[row][mask[row]].tolist() == codes[row, :length].flatten()[1:].tolist()
    counts = world_counts(valid, 36)
    assert counts["observation"].tolist() == mask.sum((1, 2)).tolist() == [36 * length - 1 for length in lengths]
    assert counts["reward"].tolist() == counts["end"].tolist() == lengths


def test_label_counts_fit_the_mask_for_left_padding_too() -> None:
    valid = torch.tensor([[False, False, True, True], [True, True, True, False]])
    _, mask = observation_targets(torch.zeros(2, 4, 36, dtype=torch.int64), valid)
    assert world_counts(valid, 36)["observation"].tolist() == mask.sum((1, 2)).tolist()


def test_world_losses_by_hand() -> None:
    random = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 5, (1, 3, 4), generator=random)
    observation = torch.randn(1, 3, 4, 5, generator=random)
    reward, end = torch.randn(1, 3, 3, generator=random), torch.randn(1, 3, 2, generator=random)
    rewards, ends = torch.tensor([[-30.0, 0.0, 2.0]]), torch.tensor([[False, True, True]])
    valid = torch.tensor([[True, True, False]])
    sums = world_losses(observation, reward, end, codes, rewards, ends, valid)
    flat = codes[0, :2].flatten()
    places = observation[0, :2].flatten(0, 1).log_softmax(-1)
    assert sums["observation"].item() == pytest.approx(-sum(places[i, flat[i + 1]].item() for i in range(7)), rel=1e-5)
    log_reward, log_end = reward[0].log_softmax(-1), end[0].log_softmax(-1)
    assert sums["reward"].item() == pytest.approx(-(log_reward[0, 0] + log_reward[1, 1]).item(), rel=1e-5)
    assert sums["end"].item() == pytest.approx(-(log_end[0, 0] + log_end[1, 1]).item(), rel=1e-5)
    assert reward_classes(torch.tensor([-0.1, 0.0, 400.0])).tolist() == [0, 1, 2]


def test_autoencoding_losses_by_hand_and_their_gradients() -> None:
    x, reconstruction = torch.ones(2, 1, 84, 84), torch.zeros(2, 1, 84, 84)
    latents, nearest = torch.full((2, 3, 6, 6), 2.0), torch.full((2, 3, 6, 6), 5.0)
    latents.requires_grad_(), nearest.requires_grad_()
    weight = torch.tensor([1.0, 0.0])
    sums = autoencoding_losses(x, reconstruction, latents, nearest, weight)
    assert sums["reconstruction"].tolist() == sums["squared_error"].tolist() == [1.0, 0.0]
    halved = autoencoding_losses(x, x / 2, latents, nearest, weight)
    assert (halved["reconstruction"][0].item(), halved["squared_error"][0].item()) == (0.5, 0.25)
    assert sums["quantisation"].tolist() == [9.0 + 9.0, 0.0]
    sums["quantisation"].sum().backward()
    assert latents.grad is not None and nearest.grad is not None
    # Each side is pulled to the other by its own term alone, and a frame of weight 0 by none.
    torch.testing.assert_close(latents.grad[0], torch.full((3, 6, 6), -6.0 / 108))
    torch.testing.assert_close(nearest.grad[0], torch.full((3, 6, 6), 6.0 / 108))
    assert latents.grad[1].abs().max() == 0
