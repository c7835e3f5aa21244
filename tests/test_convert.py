"""Published weights in and out: every size, every prefix, bit by bit; and nothing but whole, plain tensors gets in."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from golden_weights import golden_files, keys
from tiny_store import finetune_run, states_equal
from torch import Tensor

from jowa import convert, evaluate, finetune
from jowa.cli import load_config, run
from jowa.convert import ConvertConfig
from jowa.errors import UserError
from jowa.evaluate import EvaluateConfig
from jowa.finetune import FinetuneConfig
from jowa.games import PRETRAINING_GAMES
from jowa.models.agent_files import Agent, load_agent
from jowa.models.conversion import write_published
from jowa.models.perceptual import load_lpips
from jowa.models.published import MODELS, lpips_shapes, model_from_published, model_shapes, tokenizer_shapes
from jowa.pretrain import PretrainConfig, new_agent
from jowa.training.starting_point import open_agent

PREFIXES = ("", "module.", "_orig_mod.", "_orig_mod.module.")
SIZES = tuple(MODELS)
State = dict[str, Tensor]
Drawn = tuple[str, State, State]


@pytest.fixture(scope="module", params=SIZES)
def drawn(request: pytest.FixtureRequest) -> Drawn:
    """(size, tokenizer.pt's content, the model's content), weights by the golden rule."""
    return request.param, *golden_files(request.param)


@pytest.fixture(scope="module")
def forms(drawn: Drawn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The same as folders, published with every wrapper and converted into ours; nobody may change them."""
    place = tmp_path_factory.mktemp("forms")
    source = save(place / "published", *drawn, PREFIXES[-1])
    converted(f"src={source}", f"dst={place / 'ours'}")
    yield source, place / "ours"
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def smallest() -> tuple[State, State]:
    """What the two files of the 40M agent hold."""
    return golden_files("40M")


@pytest.fixture(scope="module")
def saved(smallest: tuple[State, State], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """These files; nobody may change them."""
    place = tmp_path_factory.mktemp("saved")
    yield save(place / "published", "40M", *smallest)
    shutil.rmtree(place)


@pytest.fixture
def source(saved: Path, place: Path) -> Path:
    """A copy of them."""
    return shutil.copytree(saved, place / "published")


def save(folder: Path, size: str, tokenizer: State, model: State, prefix: str = "") -> Path:
    folder.mkdir(parents=True)
    for name, state in (("tokenizer.pt", tokenizer), (f"JOWA_{size}.pt", model)):
        torch.save({prefix + key: tensor for key, tensor in state.items()}, folder / name)
    return folder


def converted(*changes: str) -> None:
    convert.main(load_config(ConvertConfig, "convert", list(changes)))


def same_bits(one: State, other: State) -> bool:
    """Equal names, types and bits: -0.0 is not 0.0."""
    return one.keys() == other.keys() and all(
        tensor.dtype == other[name].dtype and tensor.numpy().tobytes() == other[name].contiguous().numpy().tobytes()
        for name, tensor in one.items()
    )


def holds(agent: Agent, size: str, tokenizer: State, model: State) -> bool:
    """Whether an agent has exactly these tensors."""
    wanted = {name: tensor for name, tensor in tokenizer.items() if not name.startswith("lpips.")}
    return (
        agent.model.config == MODELS[size]
        and states_equal(dict(agent.tokenizer.state_dict()), wanted)
        and states_equal(dict(agent.model.state_dict()), model_from_published(model, MODELS[size].layers))
    )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder that is gone afterwards: these files are large."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("size", SIZES)
def test_names_and_shapes_are_the_published_ones(size: str) -> None:
    def official(part: str) -> dict[str, tuple[int, ...]]:
        return {name: shape for name, (shape, dtype) in keys(part).items() if "int" not in dtype}

    assert official(f"JOWA_{size}") == dict(model_shapes(MODELS[size]))
    assert official("tokenizer") == {**tokenizer_shapes(), **lpips_shapes()}


@pytest.mark.parametrize("size", SIZES)
def test_the_presets_are_the_published_sizes(size: str) -> None:
    assert load_config(PretrainConfig, "pretrain", ["+exp=atari15", f"model={size}"]).model == MODELS[size]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.blocks=4", "its model.blocks is 4, the published 8"),
        ("model.task_embedding=false", "its model.task_embedding is False, the published True"),
        ("tokenizer.factors=[7,3]", r"its tokenizer.factors is \[7 3\], the published \[7 2\]"),
        ("model.q_networks=2", "its model .40M. is of none of the published sizes"),
    ],
)
def test_other_sizes_have_no_published_form(change: str, message: str, tmp_path: Path) -> None:
    config = load_config(PretrainConfig, "pretrain", ["model=40M", change])
    with torch.device("meta"):
        agent = Agent(*new_agent(config), {})
    with pytest.raises(UserError, match=message):
        write_published(tmp_path, agent, {}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("prefix", PREFIXES[:-1])
def test_every_other_prefix_is_known(smallest: tuple[State, State], prefix: str, place: Path) -> None:
    source = save(place / "published", "40M", *smallest, prefix)
    converted(f"src={source / 'JOWA_40M.pt'}" if prefix else f"src={source}", f"dst={place / 'ours'}")
    assert holds(load_agent(place / "ours"), "40M", *smallest)


def test_there_and_back_changes_no_bit(drawn: Drawn, forms: tuple[Path, Path], place: Path) -> None:
    size, tokenizer, model = drawn
    _, ours = forms
    assert holds(load_agent(ours), *drawn)
    lpips = load_lpips(str(ours / "lpips.safetensors")).state_dict()
    assert states_equal({f"lpips.{name}": t for name, t in lpips.items()}, {n: tokenizer[n] for n in lpips_shapes()})
    converted(f"src={ours}", f"dst={place / 'back'}", "to=published")
    for name, state in (("tokenizer.pt", tokenizer), (f"JOWA_{size}.pt", model)):
        assert same_bits(torch.load(place / "back" / name, weights_only=True), state)
    assert sorted(path.name for path in (place / "back").iterdir()) == [f"JOWA_{size}.pt", "tokenizer.pt"]


def test_each_size_plays_from_published_files(drawn: Drawn, forms: tuple[Path, Path], place: Path) -> None:
    size, *_ = drawn
    play = ["device=cpu", "games=[Phoenix]", "episodes=1", "protocol.max_episode_frames=8", "report=false",
            "threads=1", "bootstrap.resamples=20", "planner.width=2", "planner.horizon=1", f"size={size}"]  # fmt: skip
    # That published files play without planning too, the smallest agent shows.
    modes = ["planning", "no planning"] if size == SIZES[0] else ["planning"]
    results = []
    for number, ckpt in enumerate(forms):
        line = [f"ckpt={ckpt}", f"modes=[{','.join(modes)}]", f"out={place / str(number)}", *play]
        evaluate.main(load_config(EvaluateConfig, "evaluate", line))
        results.append(json.loads((place / str(number) / "results.json").read_text()))
    assert [one["model"]["name"] for one in results] == [size, size]
    for mode in range(len(modes)):
        assert results[0]["modes"][mode]["episodes"] == results[1]["modes"][mode]["episodes"] != []


def test_each_size_learns_from_published_files(
    drawn: Drawn, forms: tuple[Path, Path], place: Path, tiny_data: Path
) -> None:
    """The smallest in all its weights, the others in their heads, which takes less memory."""
    size, tokenizer, _ = drawn
    source, _ = forms
    learn = ["stage.steps=2", "training.batch_size=2", "stage.tokenizer_frames=2", "perceptual_weights=none",
             "training.device=cpu", "training.checkpoint_every=2"]  # fmt: skip
    if size != SIZES[0]:
        learn += ["finetune.method=heads", "stage.steps=1", "stage.tokenizer_frames=0"]
    finetune_run(tiny_data, place / "run", source, f"size={size}", *learn)
    tuned = open_agent(str(place / "run")).agent
    assert tuned.model.config == MODELS[size] and tuned.description["stage"] == "finetune"
    assert not holds(tuned, *drawn)
    if size != SIZES[0]:
        return
    # A finetuned agent can be published in its turn.
    converted(f"src={place / 'run'}", f"dst={place / 'again'}", "to=published", f"lpips={source / 'tokenizer.pt'}")
    published = [torch.load(place / "again" / name, weights_only=True) for name in ("tokenizer.pt", f"JOWA_{size}.pt")]
    assert published[0].keys() == tokenizer.keys()
    assert holds(tuned, size, *published)


def test_a_conversion_that_fails_midway_leaves_nothing(
    source: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = place / ".ours.tmp"
    mine.mkdir()
    (mine / "notes").write_text("precious")

    def full(folder: Path, *_: object) -> None:
        (folder / "half").write_text("")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert, "write_agent", full)
    with pytest.raises(UserError, match=r"dst=.* can't be written .*No space left"):
        converted(f"src={source}", f"dst={place / 'ours'}")
    assert sorted(path.name for path in place.iterdir()) == [".ours.tmp", "published"]
    assert (mine / "notes").read_text() == "precious"


def test_links_are_followed_where_they_lead(smallest: tuple[State, State], saved: Path, place: Path) -> None:
    """As in a download cache, where files with the published names link to others without."""
    source = shutil.copytree(saved, place / "blobs")
    links = place / "links"
    links.mkdir()
    for number, name in enumerate(("tokenizer.pt", "JOWA_40M.pt")):
        (source / name).rename(source / f"{number}")
        (links / name).symlink_to(source / f"{number}")
    assert open_agent(str(links / "JOWA_40M.pt")).checkpoint == links / "JOWA_40M.pt"
    (place / "empty").mkdir()
    (place / "link").symlink_to(place / "empty")
    converted(f"src={links}", f"dst={place / 'link'}")
    assert holds(load_agent(place / "empty"), "40M", *smallest)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["src={run}"], "is jowa's format already"),
        (["src={run}", "to=published"], "tokenizer.widths is"),
        (["src={run}", "to=published", "size=40M"], "is of size nano, not 40M"),
        (["src={data}"], "holds no published files"),
        (["src={data}", "to=published"], "There is no agent in"),
        (["src={run}", "to=mine"], "choose one of jowa, published"),
        (["src={run}", "lpips=x.pt"], "lpips is for to=published"),
        (["src={run}", "dst={data}"], "dst=.* isn't empty"),
    ],
)
def test_what_cannot_be_converted(
    smoke_run: Path, tiny_data: Path, tmp_path: Path, changes: list[str], message: str
) -> None:
    arguments = [change.format(run=smoke_run, data=tiny_data) for change in changes]
    with pytest.raises(UserError, match=message):
        converted(f"dst={tmp_path / 'ours'}", *arguments)
    assert not list(tmp_path.iterdir())


def test_finetuning_trains_the_tokenizer_with_the_lpips_that_came_along(
    smallest: tuple[State, State], source: Path, place: Path
) -> None:
    converted(f"src={source}", f"dst={place / 'ours'}")
    bare = {name: tensor for name, tensor in smallest[0].items() if not name.startswith("lpips.")}
    save(place / "bare", "40M", bare, smallest[1])

    def weights(ckpt: str, *changes: str) -> str | None:
        config = load_config(FinetuneConfig, "finetune", ["game=Pong", f"ckpt={place / ckpt}", *changes])
        return finetune.lpips_file(config, open_agent(config.ckpt))

    assert weights("published") == str(source / "tokenizer.pt")
    assert weights("ours") == str(place / "ours" / "lpips.safetensors")
    assert weights("bare") is None
    assert weights("ours", "perceptual_weights=none") is None
    assert weights("ours", "perceptual_weights=other.pt") == "other.pt"


def test_scalar_q_networks_are_recognised(place: Path) -> None:
    tokenizer, model = golden_files("40M", mse=True)
    source = save(place / "published", "40M", tokenizer, model)
    agent = open_agent(str(source)).agent
    assert agent.model.config == replace(MODELS["40M"], q_loss="mse")
    assert states_equal(dict(agent.model.state_dict()), model_from_published(model, 4))


def test_a_folder_with_several_models(source: Path) -> None:
    (source / "JOWA_70M.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"JOWA_40M\.pt, JOWA_70M\.pt: name one of these files, or choose by size="):
        open_agent(str(source))
    assert open_agent(str(source), "40M").checkpoint == source / "JOWA_40M.pt"
    assert open_agent(str(source / "JOWA_40M.pt")).agent.description["games"] == list(PRETRAINING_GAMES)


def test_a_size_is_believed_from_tensors_alone(source: Path) -> None:
    (source / "JOWA_40M.pt").rename(source / "JOWA_150M.pt")
    message = r"JOWA_150M\.pt holds a 40M model, not the 150M that its name says: its tensor \S+ is"
    for size in (None, "150M", "40M"):
        with pytest.raises(UserError, match=message):
            open_agent(str(source), size)
    (source / "JOWA_150M.pt").rename(source / "mine.pt")
    assert open_agent(str(source / "mine.pt")).agent.model.config == MODELS["40M"]
    with pytest.raises(UserError, match=r"mine\.pt holds a 40M model, not the 70M that size says: its tensor \S+ is"):
        open_agent(str(source / "mine.pt"), "70M")


def test_published_settings_are_facts_of_the_agent(saved: Path, place: Path) -> None:
    """Nothing at hand was trained on, so all recorded episodes may serve as held out."""
    converted(f"src={saved}", f"dst={place / 'ours'}")
    description = load_agent(place / "ours").description
    assert description["holdout"] is None and description["data"] is None
    assert len(description["published_sha256"]["JOWA_40M.pt"]) == 64


class Code:
    """Runs when it is unpickled without care."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, ("run-by-unpickling",)


def without(state: State, name: str) -> State:
    return {key: tensor for key, tensor in state.items() if key != name}


def spoil(source: Path, tokenizer: State, model: State, fault: str) -> None:
    """One fault in a folder of sound published files."""
    name = "head_q.head_module.params.8"
    changed = {
        "missing": without(model, "transformer.ln_f.bias"),
        "shape": model | {name: model[name][:, :-1]},
        "extra": model | {"value_head.weight": torch.ones(3)},
        "half": model | {name: model[name].half()},
        "nan": model | {name: model[name] * float("nan")},
        "step": {"model": model, "step": 3},
        "list": [1, 2],
        "number": {**model, 5: torch.ones(1)},
        "sparse": model | {"pos_emb.weight": model["pos_emb.weight"].to_sparse()},
        "nowhere": model | {"pos_emb.weight": model["pos_emb.weight"].to("meta")},
        "whole": model | {"pos_emb.weight": model["pos_emb.weight"].long()},
        "mask": model | {"transformer.blocks.0.attn.mask": torch.ones(8, dtype=torch.bool)},
        "twice": model | {"module.pos_emb.weight": model["pos_emb.weight"]},
    }
    path = source / "JOWA_40M.pt"
    if fault in changed:
        torch.save(changed[fault], path)
    elif fault == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif fault == "flipped":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif fault == "integers":
        torch.save(tokenizer | {"steps": torch.arange(3)}, source / "tokenizer.pt")
    elif fault == "empty":
        path.write_bytes(b"")
    elif fault == "code":
        torch.save(model | {"evil": Code()}, path)
    elif fault == "plain pickle":
        path.write_bytes(pickle.dumps({"evil": Code()}))
    elif fault == "pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 76485274\n")
    elif fault == "renamed":
        path.rename(source / "JOWA_150M.pt")
    elif fault == "no tokenizer":
        (source / "tokenizer.pt").unlink()
    elif fault == "no model":
        path.unlink()
    elif fault == "tokenizer":
        torch.save(without(tokenizer, "embedding.weight"), source / "tokenizer.pt")
    elif fault == "lpips":
        torch.save(without(tokenizer, "lpips.lin3.model.1.weight"), source / "tokenizer.pt")
    elif fault == "swapped":
        shutil.copy(source / "tokenizer.pt", path)


FAULTS = {
    "missing": ("JOWA_40M.pt lacks the tensor transformer.ln_f.bias",),
    "shape": ("head_q.head_module.params.8", "JOWA_40M.pt", "(1, 917, 768)", "(1, 918, 768)"),
    "extra": ("JOWA_40M.pt holds the tensor value_head.weight",),
    "half": ("head_q.head_module.params.8", "JOWA_40M.pt is float16"),
    "nan": ("head_q.head_module.params.8", "JOWA_40M.pt", "finite"),
    "step": ("JOWA_40M.pt", "'model' is a dict"),
    "list": ("JOWA_40M.pt", "no state dict"),
    "number": ("JOWA_40M.pt", "5 is no name of a tensor"),
    "sparse": ("The tensor pos_emb.weight in", "JOWA_40M.pt", "sparse"),
    "nowhere": ("The tensor pos_emb.weight in", "JOWA_40M.pt", "empty"),
    "whole": ("The tensor pos_emb.weight in", "JOWA_40M.pt", "int64"),
    "mask": ("JOWA_40M.pt holds the tensor transformer.blocks.0.attn.mask",),
    "flipped": ("JOWA_40M.pt is truncated or damaged",),
    "integers": ("tokenizer.pt holds the tensor steps",),
    "twice": ("JOWA_40M.pt", "pos_emb.weight twice"),
    "truncated": ("JOWA_40M.pt is truncated or damaged",),
    "empty": ("JOWA_40M.pt is truncated or damaged",),
    "code": ("JOWA_40M.pt", "mkdir", "nothing was run"),
    "plain pickle": ("JOWA_40M.pt", "nothing was run"),
    "pointer": ("JOWA_40M.pt is a Git LFS pointer",),
    "renamed": ("JOWA_150M.pt holds a 40M model", "its tensor", "512", "768"),
    "no tokenizer": ("holds no tokenizer.pt",),
    "no model": ("no model",),
    "tokenizer": ("tokenizer.pt lacks the tensor embedding.weight",),
    "lpips": ("tokenizer.pt lacks the tensor lpips.lin3.model.1.weight",),
    "swapped": ("JOWA_40M.pt lacks the tensor",),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_files_are_refused_with_one_sentence(
    fault: str, smallest: tuple[State, State], source: Path, place: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tiny_data: Path,
) -> None:  # fmt: skip
    spoil(source, *smallest, fault)
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*")}
    monkeypatch.chdir(place)
    lines = {
        "convert": (convert.main, ConvertConfig, [f"src={source}", "dst=ours"]),
        "evaluate": (evaluate.main, EvaluateConfig, [f"ckpt={source}"]),
        "finetune": (finetune.main, FinetuneConfig, [f"ckpt={source}", "game=Pong", f"data.path={tiny_data}"]),
    }
    for name, (main, schema, arguments) in lines.items():
        monkeypatch.setattr("sys.argv", [name, *arguments])
        with pytest.raises(SystemExit) as stopped:
            run(main, schema, name)
        assert stopped.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith("jowa: ") and said.count("\n") == 1, said
        assert all(part in said for part in FAULTS[fault]), said
    assert {path: path.stat().st_mtime_ns for path in source.rglob("*")} == before
    assert [path.name for path in place.iterdir()] == ["published"]
