"""The model's sizes, what may look at what, and what is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_learner import MODEL, TOKENIZER, one_part, padded_batch, small_learner, small_model
from tiny_store import states_equal
from torch import Tensor, nn

from jowa.cli import load_config
from jowa.errors import UserError
from jowa.models.agent_files import load_agent
from jowa.models.tokenizer import Tokenizer, TokenizerConfig, check_tokenizer, nearest_code
from jowa.models.world_action_model import ModelConfig, WorldActionModel, check_model
from jowa.objectives.world import observation_targets
from jowa.pretrain import PretrainConfig
from jowa.training.checkpoint import latest_checkpoint
from jowa.training.config import ObjectiveConfig, StageConfig, TrainingConfig
from jowa.training.learner import Learner
from jowa.training.optimization import Optimizers, decay_groups
from jowa.training.run_plan import count


@pytest.mark.parametrize(
    ("size", "trained", "with_target"),
    [("40M", 17.416, 19.110), ("70M", 50.568, 53.350), ("150M", 109.045, 127.778)],
)
def test_published_parameter_counts(size: str, trained: float, with_target: float) -> None:
    config = load_config(PretrainConfig, "pretrain", [f"model={size}"])
    with torch.device("meta"):
        tokenizer, model = Tokenizer(config.tokenizer), WorldActionModel(config.model, config.tokenizer.vocabulary)
    assert round(count(model, trained_only=True) / 1e6, 3) == trained
    assert round(count(model) / 1e6, 3) == with_target
    assert round(count(tokenizer) / 1e6, 2) == 4.05
    assert config.model.name == size


@torch.inference_mode()
def test_nothing_looks_ahead() -> None:
    model = small_model().eval()
    batch = padded_batch([8, 8], codes=True)
    assert batch.codes is not None
    before = model.hidden(batch.codes, batch.actions, batch.tasks)

    def changed(frame: int, place: int) -> list[Tensor]:
        """Where the states (observation, action, last code) differ once one token has changed; all (B, L, …)."""
        codes, actions = batch.codes.clone(), batch.actions.clone()
        if place < 36:
            codes[:, frame, place] = (codes[:, frame, place] + 1) % 32
        else:
            actions[:, frame] = (actions[:, frame] + 1) % 18
        after = model.hidden(codes, actions, batch.tasks)
        return [(one != other).any(-1) for one, other in zip(before, after, strict=True)]

    for frame, place in ((3, 0), (3, 17), (5, 35), (4, 36)):
        observation, action, last_code = changed(frame, place)
        # The 36 places that predict are codes 0 … 34 and the action.
        own = min(place, 35)
        earlier = torch.cat([observation[:, :frame].flatten(1), observation[:, frame, :own]], dim=1)
        assert not earlier[:, : frame * 36 + own].any()
        assert observation[:, frame, -1].all() and observation[:, frame + 1 :].all()
        assert not action[:, :frame].any() and action[:, frame:].all()
        first_q = frame if place < 36 else frame + 1
        assert not last_code[:, :first_q].any() and last_code[:, first_q:].all()


@torch.inference_mode()
def test_positions_tasks_and_heads() -> None:
    model = small_model().eval()
    batch = padded_batch([8, 8], codes=True)
    hidden = model.hidden(batch.codes, batch.actions, batch.tasks)
    assert hidden.observation.shape == (2, 8, 36, 16)
    assert hidden.action.shape == hidden.last_code.shape == (2, 8, 16)
    x = torch.cat([
        torch.cat([
            model.embed_codes(batch.codes[:, t], torch.arange(36)[None] + 37 * t, batch.tasks),
            model.embed_actions(batch.actions[:, t : t + 1], torch.tensor([[37 * t + 36]]), batch.tasks),
        ], dim=1)
        for t in range(8)
    ], dim=1)  # fmt: skip
    h = model.trunk(x).view(2, 8, 37, 16)
    torch.testing.assert_close(hidden.action, h[:, :, 36])
    torch.testing.assert_close(hidden.last_code, h[:, :, 35])
    torch.testing.assert_close(hidden.observation, h[:, :, [*range(35), 36]])
    other = model.hidden(batch.codes, batch.actions, (batch.tasks + 1) % 60)
    assert (other.observation != hidden.observation).any(-1).all()
    assert model.q_logits(h).shape == (2, 2, 8, 37, 18, 51) and model.q_values(h).shape == (*h.shape[:3], 18)
    assert [f(h).shape[-1] for f in (model.observation_logits, model.reward_logits, model.end_logits)] == [32, 3, 2]
    scalar = small_model(q_loss="mse")
    assert scalar.q_logits(h).shape[-1] == 1 and scalar.q_values(h).shape == (*h.shape[:3], 18)


@torch.no_grad()
def test_losses_count_the_codes_there_are() -> None:
    tokenizer = Tokenizer(replace(TOKENIZER, factors=(7, 4)))
    model = WorldActionModel(replace(MODEL, blocks=5), TOKENIZER.vocabulary, tokenizer.tokens_per_frame)
    learner = Learner(tokenizer, model, ObjectiveConfig(), torch.ones(60, 18, dtype=torch.bool))
    learner.begin(StageConfig())
    long = padded_batch([5, 2])
    columns = ("frames", "actions", "rewards", "ends", "valid")
    batch = replace(long, **{name: getattr(long, name)[:, :5] for name in columns})
    codes = learner.codes(batch)
    assert codes.shape == (2, 5, 9)
    assert learner.counts(one_part(batch))["observation"] == observation_targets(codes, batch.valid)[1].sum()
    assert model.hidden(codes, batch.actions, batch.tasks).observation.shape == (2, 5, 9, 16)


@torch.inference_mode()
def test_without_task_embeddings_no_game_is_told_from_another() -> None:
    model = small_model(task_embedding=False).eval()
    assert not any("task" in name for name in model.state_dict())
    batch = padded_batch([8, 8], codes=True)
    assert batch.codes is not None
    one = model.hidden(batch.codes, batch.actions, batch.tasks)
    other = model.hidden(batch.codes, batch.actions, (batch.tasks + 1) % 60)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_expected_q_is_the_mean_distributions_mean() -> None:
    model = small_model()
    logits = torch.full((2, 18, 51), -torch.inf)
    logits[0, :, 0] = logits[1, :, 50] = 0.0
    torch.testing.assert_close(model.expected_q(logits), torch.full((18,), 10.0))
    torch.testing.assert_close(model.expected_q(logits, torch.tensor([0.25, 0.75])), torch.full((18,), 20.0))
    assert model.support[0] == -10 and model.support[50] == 30 and model.support.diff().std() < 1e-5


def test_dropout_is_in_training_alone_and_never_in_the_target_copy() -> None:
    learner = small_learner(dropout=0.3, attention_dropout=0.3, q_dropout=0.3)
    batch = padded_batch([8], codes=True)
    model = learner.model

    def outputs() -> tuple[Tensor, Tensor, Tensor]:
        h = model.hidden(batch.codes, batch.actions, batch.tasks).last_code
        fixed = torch.ones_like(h)
        return h, model.q_logits(fixed), model.q_target_logits(fixed)

    learner.train()
    assert model.training and not model.q_target.training
    first, second = outputs(), outputs()
    assert [torch.equal(a, b) for a, b in zip(first, second, strict=True)] == [False, False, True]
    learner.eval()
    first, second = outputs(), outputs()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_target_copy_is_hard_and_untrained() -> None:
    learner = small_learner()
    model = learner.model
    assert not states_equal(model.q_target.state_dict(), model.q_networks.state_dict())
    model.synchronise_target()
    assert states_equal(model.q_target.state_dict(), model.q_networks.state_dict())
    h = torch.randn(2, 16, requires_grad=True)
    assert not model.q_target_logits(h).requires_grad
    stage = StageConfig(td_weight=1.0, learning_rate=0.1)
    learner.begin(stage)
    optimizers = Optimizers(learner, stage, TrainingConfig())
    before = {name: tensor.clone() for name, tensor in model.q_target.state_dict().items()}
    gradients_of(learner)
    optimizers.step(0, torch.zeros(()))
    assert states_equal(model.q_target.state_dict(), before)
    assert not states_equal(model.q_networks.state_dict(), before)
    for parameter in model.q_target.parameters():
        assert parameter.grad is None and not parameter.requires_grad


def gradients_of(learner) -> dict[str, Tensor]:
    learner.zero_grad()
    batch = padded_batch([8, 5], codes=True)
    part = one_part(batch)
    learner(part, learner.counts(part))[0].backward()
    return {name: parameter.grad for name, parameter in learner.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("world_weight", [0.0, 0.1])
def test_q_gradients_reach_the_backbone_only_when_they_may(world_weight: float) -> None:
    def trunk_gradient(shapes: bool, td: float, conservative: float = 0.0) -> Tensor:
        learner = small_learner(objective=ObjectiveConfig(q_shapes_backbone=shapes))
        learner.begin(StageConfig(world_weight=world_weight, td_weight=td, conservative_weight=conservative))
        gradients = gradients_of(learner)
        assert all(f"model.q_networks.{name}" in gradients for name, _ in learner.model.q_networks.named_parameters())
        return gradients.get("model.trunk.layers.0.qkv.weight", torch.zeros(48, 16))

    alone = trunk_gradient(False, 1.0, 1.0)
    assert torch.equal(alone, trunk_gradient(False, 5.0)) and bool(alone.abs().sum() > 0) == (world_weight > 0)
    assert not torch.allclose(alone, trunk_gradient(True, 1.0))


@pytest.mark.parametrize("shapes", [True, False])
@pytest.mark.parametrize("world_weight", [0.0, 0.1])
@pytest.mark.parametrize("td_weight", [0.0, 1.0])
def test_whatever_may_be_trained_is_trained(shapes: bool, world_weight: float, td_weight: float) -> None:
    """Several processes would wait for ever for a gradient that never comes."""
    if world_weight == td_weight == 0:
        return
    learner = small_learner(objective=ObjectiveConfig(q_shapes_backbone=shapes))
    learner.begin(StageConfig(world_weight=world_weight, td_weight=td_weight))
    trained = {name for name, parameter in learner.named_parameters() if parameter.requires_grad}
    assert trained == set(gradients_of(learner))
    assert not any(name.startswith("tokenizer") for name in trained)
    assert any("q_networks" in name for name in trained) == (td_weight > 0)
    assert any("observation_head" in name for name in trained) == (world_weight > 0)


def test_only_matrices_of_linear_maps_decay() -> None:
    model = small_model()
    names = {parameter: name for name, parameter in model.named_parameters()}
    decaying, others = ({names[p] for p in group} for group in decay_groups(model))
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert decaying == linear | {f"q_networks.weight{i}" for i in (1, 2, 3)}
    assert len(linear) == 2 * 4 + 3 * 2
    assert not any("norm" in name or "embedding" in name or "bias" in name for name in decaying)
    assert decaying | others == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not decaying & others


def test_stage_one_leaves_the_q_networks_and_stage_two_the_tokenizer_alone() -> None:
    learner = small_learner()
    for stage, optimizers, frozen in (
        (StageConfig(tokenizer_frames=4), {"model", "tokenizer"}, "model.q_networks"),
        (StageConfig(td_weight=1.0), {"model"}, "tokenizer"),
    ):
        learner.begin(stage)
        made = Optimizers(learner, stage, TrainingConfig())
        assert set(made.optimizers) == optimizers
        held = {id(p) for one in made.optimizers.values() for group in one.param_groups for p in group["params"]}
        for name, parameter in learner.named_parameters():
            assert (id(parameter) in held) != name.startswith((frozen, "model.q_target")), name


def test_straight_through_gradient() -> None:
    tokenizer = Tokenizer(TOKENIZER)
    frames = torch.rand(2, 1, 84, 84)
    _, reconstruction, quantised = tokenizer(frames)
    quantised.latents.retain_grad()
    reconstruction.square().sum().backward()
    assert tokenizer.embedding.weight.grad is None
    latents, nearest = quantised.latents.detach(), quantised.nearest.detach()
    z = (latents + (nearest - latents)).requires_grad_()
    tokenizer.decoder(tokenizer.post_quant_conv(z)).square().sum().backward()
    assert quantised.latents.grad is not None and z.grad is not None
    torch.testing.assert_close(quantised.latents.grad, z.grad)
    torch.testing.assert_close(z, nearest)
    assert tokenizer.encoder.conv_in.weight.grad is not None
    vectors = tokenizer.embedding.weight[quantised.codes].transpose(1, 2).reshape(2, 8, 6, 6)
    torch.testing.assert_close(vectors, quantised.nearest)


def test_codes_are_chosen_in_float32_whatever_the_autocast() -> None:
    tokenizer = Tokenizer(TOKENIZER)
    frames = torch.randint(0, 256, (6, 1, 84, 84), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    # Twin codes, a hair's breadth apart: bfloat16 can't tell them from each other.
    with torch.no_grad():
        seen = tokenizer(frames)[2].latents.flatten(2).transpose(1, 2).flatten(0, 1)[::13][:16]
        tokenizer.embedding.weight[:] = torch.cat([seen, seen * 1.001])
    plain = tokenizer.encode(frames)
    assert torch.equal(plain, tokenizer(frames)[2].codes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(tokenizer.encode(frames), plain)
        x, reconstruction, quantised = tokenizer(frames)
    latents = quantised.latents.flatten(2).transpose(1, 2)
    assert latents.dtype == torch.float32
    exact = torch.cdist(latents.double(), tokenizer.embedding.weight.double()[None].expand(6, -1, -1)).argmin(-1)
    assert (quantised.codes == exact).float().mean() > 0.995
    assert plain.unique().numel() > 4
    assert torch.isfinite(reconstruction).all() and x.dtype == torch.float32


def test_nearest_code_is_nearest() -> None:
    random = torch.Generator().manual_seed(0)
    vectors, codebook = torch.randn(500, 8, generator=random), torch.randn(40, 8, generator=random)
    expected = torch.cdist(vectors.double(), codebook.double()).argmin(1)
    assert torch.equal(nearest_code(vectors, codebook), expected)
    assert torch.equal(nearest_code(vectors, codebook, chunk=7), expected)


def test_bytes_and_floats_are_the_same_screen() -> None:
    tokenizer = Tokenizer(TOKENIZER)
    frames = torch.randint(0, 256, (3, 1, 84, 84)).to(torch.uint8)
    assert torch.equal(tokenizer.encode(frames), tokenizer.encode(frames.float() / 255))
    x = tokenizer(frames)[0]
    assert torch.equal(x, tokenizer(frames.float() / 255)[0])
    assert x.min() == -1 and x.max() == 1
    screens = tokenizer.decode(tokenizer.encode(frames))
    assert screens.shape == (3, 1, 84, 84) and screens.min() >= 0 and screens.max() <= 1


@pytest.mark.parametrize(
    ("factors", "codes", "sides"),
    [((7, 2), 36, (12, 42)), ((7, 4), 9, (12, 21)), ((7, 3), 16, (12, 28)), ((4, 3), 49, (21, 28)),
     ((7, 1), 144, (12, 84)), ((1, 84), 1, (84, 1))],
)  # fmt: skip
@torch.no_grad()
def test_factors_decide_how_many_codes_a_frame_has(
    factors: tuple[int, int], codes: int, sides: tuple[int, int]
) -> None:
    tokenizer = Tokenizer(replace(TOKENIZER, factors=factors, encoder_blocks=(0, 0, 1)))
    frames = torch.randint(0, 256, (2, 1, 84, 84)).to(torch.uint8)
    met: list[int] = []
    for level in (tokenizer.encoder.down[0], tokenizer.decoder.up[2]):
        level.register_forward_hook(lambda module, inputs, output: met.append(output.shape[-1]))
    x, reconstruction, quantised = tokenizer(frames)
    assert tokenizer.tokens_per_frame == codes and tuple(met) == sides
    assert x.shape == reconstruction.shape == (2, 1, 84, 84)
    assert quantised.latents.shape == quantised.nearest.shape == (2, 8, tokenizer.grid, tokenizer.grid)
    assert torch.equal(tokenizer.encode(frames), quantised.codes) and quantised.codes.shape == (2, codes)
    assert tokenizer.decode(quantised.codes).shape == (2, 1, 84, 84)
    row_by_row = quantised.codes.view(2, tokenizer.grid, tokenizer.grid)
    assert torch.equal(tokenizer.embedding(row_by_row).permute(0, 3, 1, 2), quantised.nearest)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"heads": 3}, "model.heads=3"),
        ({"heads": 32, "width": 16}, "model.heads=32"),
        ({"layers": 0}, "model.layers"),
        ({"q_loss": "huber"}, "model.q_loss"),
        ({"atoms": 1}, "model.atoms"),
        ({"support_low": 30.0}, "model.support_high"),
        ({"blocks": 1}, "model.blocks"),
        ({"blocks": 65}, "model.blocks"),
        ({"dropout": 1.5}, "model.dropout"),
        ({"q_dropout": -0.1}, "q_dropout"),
    ],
)
def test_models_that_cannot_be_built(changes: dict[str, object], key: str) -> None:
    with pytest.raises(UserError, match=key):
        check_model(ModelConfig(**{**vars(MODEL), **changes}))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"widths": (4, 4)}, "tokenizer.widths"),
        ({"widths": (4, 5, 4)}, "tokenizer.widths"),
        ({"encoder_blocks": (1, 1)}, "tokenizer.encoder_blocks"),
        ({"decoder_blocks": (0, 0, -1)}, "tokenizer.decoder_blocks"),
        ({"factors": (7,)}, "tokenizer.factors"),
        ({"factors": (0, 7)}, "tokenizer.factors"),
        ({"factors": (-7, -2)}, "tokenizer.factors"),
        ({"factors": (7, 5)}, r"tokenizer.factors .* \[7, 5\]: \[7,2\] gives 36 codes"),
        ({"embedding_width": 0}, "tokenizer.embedding_width"),
        ({"vocabulary": 70_000}, "tokenizer.vocabulary"),
        ({"perceptual": "ssim"}, "tokenizer.perceptual"),
    ],
)
def test_tokenizers_that_cannot_be_built(changes: dict[str, object], key: str) -> None:
    with pytest.raises(UserError, match=key):
        check_tokenizer(replace(TokenizerConfig(), **changes))


def test_what_is_read_from_a_file_is_not_drawn_first(smoke_run: Path) -> None:
    """Only numbers drawn are left out: constants, the layout in memory and what trains are as ever."""
    before = torch.get_rng_state()
    agent = load_agent(latest_checkpoint(smoke_run))
    assert torch.equal(torch.get_rng_state(), before)
    drawn = Tokenizer(agent.tokenizer.config), WorldActionModel(agent.model.config, agent.model.vocabulary)
    assert torch.equal(agent.model.support, drawn[1].support)
    for module, read in zip(drawn, (agent.tokenizer, agent.model), strict=True):
        ours = [(p.shape, p.stride(), p.dtype, p.requires_grad) for p in read.parameters()]
        assert ours == [(p.shape, p.stride(), p.dtype, p.requires_grad) for p in module.parameters()]
