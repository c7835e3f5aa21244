"""Plans and training steps of every kind on a pretended GPU: the same as on the CPU, and nobody waits for the GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from pretended_cuda import pretended_gpu
from pretended_gpu import GPU, PretendedGpu
from safetensors.torch import load_file
from small_learner import padded_batch, small_learner
from test_distributed import distance
from test_dream import make_model, random_context
from test_execution import same
from torch import Tensor
from toy_mdp import random_legal

from jowa.data.prefetch import Prefetch
from jowa.data.sequences import SequenceDataset
from jowa.data.store import EpisodeStore
from jowa.models.agent_files import WEIGHTS, agent_tensors
from jowa.planning.beam_search import BeamSearch
from jowa.planning.execution import ExecutionConfig
from jowa.planning.greedy import Greedy
from jowa.planning.making import make_dream
from jowa.planning.mcts import MonteCarloTreeSearch
from jowa.planning.memory import free_bytes
from jowa.planning.planner import Plan, Planner
from jowa.planning.splitting import InParts
from jowa.planning.tree import Tree
from jowa.planning.tree_dream import TreeDream
from jowa.training import loop
from jowa.training.adaptation import AdaptationConfig, adapt
from jowa.training.checkpoint import Place, latest_checkpoint
from jowa.training.config import ObjectiveConfig, StageConfig, TrainingConfig
from jowa.training.distribution import Distribution, choose_device
from jowa.training.finite import FiniteGuard
from jowa.training.imagination import Imagination
from jowa.training.imagination_config import NEVER, ImaginationConfig
from jowa.training.learner import Learner
from jowa.training.loop import prepare, train_step
from jowa.training.meter import Meter
from jowa.training.metrics import MetricsLog
from jowa.training.parts import parts_of_steps
from jowa.training.run import Run
from jowa.training.saver import CheckpointSaver
from jowa.training.speed import workload
from jowa.training.validation import validation_hook

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real GPU")

CODES, COUNT = 4, 3
CPU = torch.device("cpu")
STAGE1 = StageConfig(2, tokenizer_frames=6)
STAGE2 = StageConfig(2, td_weight=1.0, conservative_weight=0.1, world_weight=0.1)
ALL = StageConfig(2, tokenizer_frames=6, td_weight=1.0, conservative_weight=0.1)
MIXED = ObjectiveConfig(random_ensemble_mixture=True)


def plan_on_gpu(gpu: PretendedGpu, planner: Planner, settings: ExecutionConfig, waits: bool = False) -> Plan:
    """Two plans, so that what is recorded is also replayed; the second one, on the CPU."""
    model = make_model(CODES).to(GPU)
    dream = make_dream(model, settings)
    context, legal = random_context(0, [2, 4, 1], [0, 17, 59], CODES).to(GPU), random_legal(0, COUNT, 6).to(GPU)
    gpu.strict = not waits
    for _ in range(2):
        plan = InParts(planner).plan(dream, context, legal)
    gpu.strict = False
    return Plan(**{name: part.cpu() for name, part in vars(plan).items()})


@pytest.mark.parametrize(
    ("planner", "settings", "waits"),
    [
        (Greedy(), ExecutionConfig(), False),
        (BeamSearch(2, 2), ExecutionConfig(), False),
        (BeamSearch(2, 2), ExecutionConfig(graphs=False), False),
        (BeamSearch(2, 2), ExecutionConfig(compile=True), False),
        (BeamSearch(2, 2), ExecutionConfig(compile=True, graphs=False), False),
        (BeamSearch(2, 2), ExecutionConfig(memory=1e-6), False),
        (BeamSearch(2, 2), ExecutionConfig(draft_rows=16), True),
        (MonteCarloTreeSearch(4, 3), ExecutionConfig(), False),
        (MonteCarloTreeSearch(4, 3), ExecutionConfig(draft_rows=16, graphs=False), True),
    ],
    ids=[
        "greedy",
        "beam",
        "beam without graphs",
        "beam compiled",
        "beam compiled without graphs",
        "beam in parts",
        "beam drafted",
        "mcts",
        "mcts drafted without graphs",
    ],
)
def test_every_plan_is_the_same_on_a_gpu(planner: Planner, settings: ExecutionConfig, waits: bool) -> None:
    with pretended_gpu() as gpu:
        found = plan_on_gpu(gpu, planner, settings, waits)
    context, legal = random_context(0, [2, 4, 1], [0, 17, 59], CODES), random_legal(0, COUNT, 6)
    same(found, planner.plan(TreeDream(make_model(CODES)), context, legal))


def test_a_plan_in_half_precision_and_sampled_frames_need_no_wait() -> None:
    with pretended_gpu() as gpu:
        assert plan_on_gpu(gpu, BeamSearch(2, 2), ExecutionConfig(precision="bf16")).scores.dtype == torch.float32
        dream = TreeDream(make_model(CODES).to(GPU), 1.0, torch.Generator(GPU))
        context = random_context(0, [2], [0], CODES).to(GPU)
        with gpu.never_waiting():
            root = dream.reset(context, room=2)
            ids = dream.expand(root.ids.expand(-1, 2), torch.zeros_like(root.ids).expand(-1, 2)).ids
        assert dream.codes(ids).is_cuda


@dataclass(frozen=True)
class Trained:
    metrics: list[dict[str, float]]
    begun: dict[str, Tensor]
    """The agent's weights before."""
    ended: dict[str, Tensor]
    """As the last checkpoint has them."""


def trained(
    device: torch.device, data: Path, folder: Path, stage: StageConfig, method: str, imagines: bool, precision: str
) -> Trained:
    """Two steps of a small learner, the second one resumed from a checkpoint of the first."""
    learner = small_learner(MIXED)
    learner.adaptation = AdaptationConfig(method, rank=2)
    adapt(learner.model, learner.adaptation, seed=0)
    begun = weights_of(learner)
    imagination = ImaginationConfig(0, horizon=1, replay=5) if imagines else NEVER
    config = TrainingConfig(2, precision=precision, validation_sequences=2)
    log = MetricsLog(folder, active=False)
    run = Run(folder, 0, config, Distribution(0, 1, device), log, {"games": []}, imagination)
    learner.to(device)
    dataset = SequenceDataset(EpisodeStore(data))
    metrics = [one_step(run, stage, learner, dataset, step) for step in range(2)]
    ended = load_file(latest_checkpoint(folder) / WEIGHTS)
    held = weights_of(learner)
    assert held.keys() == ended.keys() and all(torch.equal(held[name], ended[name]) for name in held)
    return Trained(metrics, begun, ended)


def weights_of(learner: Learner) -> dict[str, Tensor]:
    tensors = agent_tensors(learner.tokenizer, learner.model)
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def one_step(run: Run, stage: StageConfig, learner: Learner, data: SequenceDataset, step: int) -> dict[str, float]:
    distribution, before = run.distribution, latest_checkpoint(run.folder) if step else None
    wrapped, optimizers = prepare(run, stage, learner, before)
    imagination, guard = Imagination(run.imagination, learner, distribution), FiniteGuard(distribution)
    imagination.resume(before or run.folder, step, 2)
    meter = Meter(distribution, workload(learner.model, stage, 2, distribution.device))
    steps = parts_of_steps(data, range(step, step + 1), "s", stage, run.config, 0, distribution, run.imagination)
    with Prefetch(steps) as ahead, CheckpointSaver(run.folder, run.facts, 3, distribution) as saver:
        parts = next(ahead)
        if distribution.device == GPU:
            PretendedGpu.present.strict = True
        parts = imagination.complete(parts, 0, "s", step)
        meter.add(*train_step(run, "s", step, wrapped, optimizers, guard, parts))
        learner.model.synchronise_target()
        PretendedGpu.present.strict = False
        saver.save(Place("s", step + 1), learner, optimizers, imagination.state())
    # What follows waits for the GPU: had it been before, it would have waited for the saver as well.
    assert guard.failure() is None
    validate = validation_hook(learner, data, run.config, distribution)
    assert validate is not None
    logged = meter.read() | imagination.read() | validate("s", step)
    return {name: value for name, value in logged.items() if name.split("/")[0] not in ("memory", "speed")}


@pytest.mark.parametrize(
    ("stage", "method", "imagines", "precision"),
    [
        (STAGE1, "full", False, "fp32"),
        (STAGE2, "full", False, "fp32"),
        (STAGE2, "full", False, "auto"),
        (ALL, "full", True, "fp32"),
        (STAGE2, "heads", False, "fp32"),
        (STAGE2, "lora", True, "fp32"),
    ],
    ids=["stage 1", "stage 2", "half precision", "imagining", "heads", "lora"],
)
def test_every_training_step_is_the_same_on_a_gpu(
    stage: StageConfig, method: str, imagines: bool, precision: str, tiny_data: Path, tmp_path: Path
) -> None:
    """From pinned memory, with the moving target, gradient clipping, checkpoints, resuming and validation."""
    how = (tiny_data, tmp_path / "gpu", stage, method, imagines, precision)
    with pretended_gpu():
        found = trained(choose_device("auto", "training.device"), *how)
    # On a GPU, half precision is what auto means.
    on_cpu = trained(CPU, tiny_data, tmp_path / "cpu", stage, method, imagines, precision.replace("auto", "bf16"))
    for gpu, cpu in zip(found.metrics, on_cpu.metrics, strict=True):
        cpu.pop("imagination/sequences_per_second", gpu.pop("imagination/sequences_per_second", None))
        assert gpu == pytest.approx(cpu, rel=1e-3, abs=1e-3)
    trained_ones = {name: tensor for name, tensor in on_cpu.ended.items() if "target" not in name}
    moved = distance(trained_ones, on_cpu.begun)
    assert moved > 0 and distance(on_cpu.ended, found.ended) < 0.02 * moved


def test_the_tokenizers_parts_stay_on_the_gpu() -> None:
    frames = padded_batch([8], seed=1).frames
    assert frames is not None
    tokenizer = small_learner().tokenizer
    codes = tokenizer.encode(frames[0])
    with pretended_gpu() as gpu:
        moved, screens = tokenizer.to(GPU), frames[0].to(GPU)
        with gpu.never_waiting():
            found = moved.encode(screens)
            decoded = moved.decode(found)
        assert decoded.is_cuda and torch.equal(found.cpu(), codes)


def test_free_memory_counts_what_torch_holds_unused() -> None:
    with pretended_gpu():
        assert free_bytes(GPU) == 2**33 + 2**30 - 2**29


def plant(patch: pytest.MonkeyPatch, kind: str) -> None:
    positions = Tree._positions

    def planted(tree: Tree, depth: Tensor) -> Tensor:
        if kind == "made on the CPU":
            return torch.arange(CODES + 1)[:, None, None].expand(-1, *depth.shape)
        if kind == "read":
            assert int(depth.max()) > 0
        if kind == "converted":
            depth.numpy()
        return positions(tree, depth)

    patch.setattr(Tree, "_positions", planted)


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [("made on the CPU", "one device"), ("read", "waits for the GPU"), ("converted", "use Tensor.cpu")],
)
def test_a_planted_fault_in_a_plan_is_noticed(kind: str, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, kind)
    with pretended_gpu() as gpu, pytest.raises((RuntimeError, TypeError), match=complaint):
        plan_on_gpu(gpu, BeamSearch(2, 2), ExecutionConfig(graphs=False))


def test_a_wait_in_what_a_graph_records_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def reading(logits: Tensor) -> Tensor:
        return (logits * float(logits.max())).argmax(-1)

    monkeypatch.setattr("jowa.planning.making.likeliest", reading)
    with pretended_gpu() as gpu, pytest.raises(RuntimeError, match="capturing"):
        plan_on_gpu(gpu, BeamSearch(2, 2), ExecutionConfig(), waits=True)


def test_what_is_copied_to_the_host_unwatched_is_rubbish_until_waited_for() -> None:
    with pretended_gpu():
        numbers, there = torch.ones(3, device=GPU), torch.zeros(3)
        there.copy_(numbers, non_blocking=True)
        assert there.isnan().all()
        torch.cuda.Event().synchronize()
        assert (there == 1).all()


def test_a_planted_fault_in_a_training_step_is_noticed(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "draw_mixture", lambda learner, seed: torch.ones(2) / 2)
    with pretended_gpu(), pytest.raises(RuntimeError, match="one device"):
        trained(GPU, tiny_data, tmp_path, STAGE2, "full", False, "fp32")
