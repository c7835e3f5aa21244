"""Exports: what a folder for a hub holds, that it is the agent bit for bit, and that nothing private is in it."""

from __future__ import annotations

import json
import shutil
from html import escape
from pathlib import Path
from unittest import mock

import pytest
import torch
from export_calls import HOME, export_agent, write_evaluation
from fake_results import fake_results
from golden_weights import golden_files
from huggingface_hub import ModelCard, constants
from safetensors.torch import load_file, save_file
from test_evaluate import SMALL
from test_hub import cache_agent
from tiny_store import final_weights, finetune_run, states_equal

from jowa import evaluate, export, games
from jowa.cli import load_config
from jowa.evaluate import EvaluateConfig
from jowa.evaluation.results.protocol_names import PROTOCOLS
from jowa.evaluation.results.results import plain
from jowa.evaluation.results.stored import read_evaluation
from jowa.models.agent_files import DESCRIPTION, WEIGHTS, load_agent, read_description, weights_hash
from jowa.models.conversion import LPIPS_FILE
from jowa.models.perceptual import LPIPS
from jowa.private_paths import PrivatePaths
from jowa.training.starting_point import open_agent


@pytest.fixture
def mine(smoke_run: Path, tmp_path: Path) -> Path:
    """A copy of the smoke run."""
    return Path(shutil.copytree(smoke_run, tmp_path / "mine"))


def test_a_folder_holds_the_agent_and_its_evaluation(mine: Path, tmp_path: Path) -> None:
    write_evaluation(mine)
    code, out, errors = export_agent(f"ckpt={mine}", f"out={tmp_path / 'hub'}", "license=mit")
    assert (code, errors) == (0, "")
    hub = tmp_path / "hub"
    names = {"README.md", DESCRIPTION, WEIGHTS, "config.yaml", "report.html", "results.json", "scores.csv"}
    assert {path.name for path in hub.iterdir()} == names
    assert all(f"  {name} " in out for name in names) and f"{(hub / WEIGHTS).stat().st_size / 1e3:,.1f} kB" in out
    assert out.endswith(f"It is in {hub} now; nothing was uploaded.\n")
    assert (hub / WEIGHTS).read_bytes() == final_weights(mine)
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "hub"}
    before, after = load_agent(next((mine / "checkpoints").glob("stage2-*04"))), load_agent(hub)
    for part in ("tokenizer", "model"):
        assert states_equal(getattr(before, part).state_dict(), getattr(after, part).state_dict())
    private = {"data", "tokenizer"}
    assert {k: v for k, v in before.description.items() if k not in private} == {
        k: v for k, v in after.description.items() if k not in private
    }
    assert after.description["tokenizer"] == before.description["tokenizer"] and after.description["data"] is None


def test_nothing_private_is_in_it(mine: Path, tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", HOME)
    write_evaluation(mine)
    code, out, _ = export_agent(f"ckpt={mine}", f"out={tmp_path / 'hub'}")
    assert code == 0
    assert "shortened in agent.json, results.json, report.html, scores.csv, config.yaml." in out
    for path in (tmp_path / "hub").iterdir():
        if path.suffix != ".safetensors":
            text = path.read_text().replace(f"data:image/png;base64,{HOME}/x==", "picture")
            for secret in ("alice", str(tmp_path), str(tiny_data.parent), str(Path.cwd())):
                assert secret not in text, (path.name, secret)
    results = json.loads((tmp_path / "hub" / "results.json").read_text())
    assert results["checkpoint"] == "stage2-00000004" and results["protocol"]["rom_dir"] == "~"
    assert results["command"] == "python -m jowa.evaluate ckpt=mine data=[data,other] protocol.rom_dir=roms"
    page = (tmp_path / "hub" / "report.html").read_text()
    assert f'<p>stage2-00000004</p><pre>"{results["command"]}"</pre><img src="data:image/png;base64,' in page
    assert f"base64,{HOME}/x==" in page and page.endswith("</img> pictures")


def test_unusual_paths_are_found_however_a_page_writes_them(tmp_path: Path) -> None:
    paths = PrivatePaths(tmp_path / "mine")
    odd = "/disks/bücher & <co>/a b"
    assert paths.values([odd, f"{tmp_path}/mine/x"]) == ["a b", "mine/x"]
    written = (odd, escape(odd), json.dumps(odd), escape(json.dumps(odd)))
    assert [paths.page(f"<p>{text}</p>") for text in written] == [
        "<p>a b</p>", "<p>a b</p>", '<p>"a b"</p>', "<p>&quot;a b&quot;</p>"
    ]  # fmt: skip
    for harmless in ("ALE/Pong-v5", "1/2 and 3 / 4", "eyes/left", "gs://bucket/x", "https://a.org/b", "</p><br />"):
        assert paths.text(harmless) == paths.page(harmless) == harmless
    addresses = "file:///home/bob/x file://localhost/Users/bob/x -I/home/bob/inc -L/opt/lib --to=/home/bob /Users/bob/"
    shortened = "file://x file://localhostx -Iinc -Llib --to=… …"
    assert paths.text(addresses) == paths.page(addresses) == shortened
    assert PrivatePaths(Path("/home/bob")).text("/home/bob/x, /home/bob") == "…/x, …", "a home that is a run's folder"
    script = "<script>\ntext.replace( /a/g, '')</script>"
    assert paths.page(f"{script} at /disks/a/g.") == f"{script} at g."


def test_an_environments_settings_are_kept_and_named(mine: Path, tmp_path: Path) -> None:
    spec = {
        "name": "Mine-v0",
        "legal": [0, 1],
        "actions": 2,
        "environment": {"id": "mine", "kwargs": {"map": "/maps/1"}},
    }
    for path in (mine / "checkpoints").glob("*/agent.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"environments": [spec]}))
    try:
        text = export_agent(f"ckpt={mine}", f"out={tmp_path / 'hub'}")[1]
    finally:
        games._registered.clear()
    assert "agent.json keeps paths of this computer, without which Mine-v0 can't be played" in text
    assert read_description(tmp_path / "hub")["environments"] == [spec]


def test_an_export_that_fails_half_way_leaves_nothing(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "render", mock.Mock(side_effect=OSError(28, "No space left on device")))
    code, _, errors = export_agent(f"ckpt={mine}", f"out={tmp_path / 'hub'}")
    assert code == 2 and "can't be written" in errors and "No space left" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_card_says_what_was_measured(mine: Path, tmp_path: Path) -> None:
    results = fake_results(("random", "no planning", "planning"), ("Pong", "Breakout"))
    write_evaluation(mine)
    export_agent(f"ckpt={mine}", f"out={tmp_path / 'hub'}", "license=mit", "repo=me/mine-v1")
    text = (tmp_path / "hub" / "README.md").read_text()
    for mode in results.modes:
        for score in mode.games:
            mean = score.mean
            numbers = f"{mean.value:.1f} | {mean.low:.1f} to {mean.high:.1f} | {score.median:.1f}"
            assert f"| {score.game} | {mode.mode} | {numbers} |" in text
            assert f"| {score.episodes} | {score.episodes - 3} | {score.mean_agent_steps:,.1f} |" in text
    aggregate = results.modes[-1].human_normalised
    assert aggregate is not None
    iqm = aggregate.interquartile_mean
    numbers = f"{iqm.value:.3f} | {iqm.low:.3f} to {iqm.high:.3f}"
    assert f"| human normalised, interquartile mean | planning | {numbers} | 2 |" in text
    for words in (
        "- The agent was never trained on Breakout.", "protocol is none of those that have a name",
        "after 108,000 emulator frames",
        "(27,000 agent steps)",
        "| Pong | planning | beam | 6 | 2 | – |",
        "| Pong | no planning | greedy | 6 | – | – | – |", "Pong 60e0ea3cbe0913d39803477945e9e5ec", "torch 2.13.0",
        "ckpt=hub:me/mine-v1", "# mine-v1", "Licence: mit.", "arXiv:2410.00564", "games: Breakout, Pong", "step: 4",
        "Nothing in the results says that the planner's settings were tuned",
        "*optimality gap* is by how much episodes fall short of 1 on average: lower is better",
        "This repeats the evaluation below:", "python -m jowa.evaluate ckpt=hub:me/mine-v1 'games=[Pong,Breakout]'",
        "*pooled interquartile mean* is that of all games' episodes",
    ):  # fmt: skip
        assert words in text, words
    assert "No licence" not in text and "Not evaluated" not in text


def test_protocols_and_tuning_are_named(mine: Path, tmp_path: Path) -> None:
    rules = load_config(EvaluateConfig, "evaluate", ["ckpt=x", "protocol=machado"]).protocol
    tuning = {"first_seed": 1000, "episodes": 8, "same_weights": True, "same_protocol": False}
    write_evaluation(mine, protocol=plain(rules) | {"rom_dir": "/roms"}, tuning=tuning)
    export_agent(f"ckpt={mine}", f"out={tmp_path / 'hub'}")
    text = (tmp_path / "hub" / "README.md").read_text()
    assert "The protocol is `machado`:" in text and "repeats the previous action with probability 0.25" in text
    assert "tuned, game by game, on 8 other episodes of each game (seeds 1000 to 1007)" in text
    assert "**Warning**: they were tuned under another protocol" in text and "for other weights" not in text
    assert "Nothing in the results" not in text and "same_weights" not in text


def test_the_hub_understands_the_front_matter(mine: Path, tmp_path: Path) -> None:
    write_evaluation(mine)
    export_agent(f"ckpt={mine}", f"out={tmp_path / 'hub'}", "license=apache-2.0")
    data = ModelCard.load(tmp_path / "hub" / "README.md").data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "jowa", "reinforcement-learning")
    assert {"atari", "world-model"} <= set(data.tags or ())
    planning = fake_results(("planning",), ("Pong", "Breakout")).modes[0]
    found = {(one.dataset_name, one.metric_type): one.metric_value for one in data.eval_results or ()}
    assert found[("Pong", "mean_reward")] == planning.games[0].mean.value
    assert planning.human_normalised is not None
    assert found[("Pong, Breakout", "iqm_human_normalised")] == planning.human_normalised.interquartile_mean.value
    assert len(found) == 4 and all(one.task_type == "reinforcement-learning" for one in data.eval_results or ())


def test_an_agent_without_an_evaluation_goes_without(mine: Path, tmp_path: Path) -> None:
    out = export_agent(f"ckpt={mine}", f"out={tmp_path / 'none'}")[1]
    assert "The card says 'not evaluated'" in out and "no finished evaluation" in out and "No licence was chosen" in out
    card = tmp_path / "none" / "README.md"
    assert "**Not evaluated**" in card.read_text() and "No licence was chosen" in card.read_text()
    assert ModelCard.load(card).data.eval_results is None and ModelCard.load(card).data.license is None
    write_evaluation(mine, 1, weights="0" * 16)
    assert "are of other checkpoints" in export_agent(f"ckpt={mine}", f"out={tmp_path / 'other'}")[1]
    assert not (tmp_path / "other" / "results.json").exists()
    write_evaluation(mine, 2)
    assert "evaluation=none" in export_agent(f"ckpt={mine}", f"out={tmp_path / 'left'}", "evaluation=none")[1]
    assert not (tmp_path / "left" / "results.json").exists()


def test_the_latest_evaluation_of_this_checkpoint_is_taken(mine: Path, tmp_path: Path) -> None:
    for number, weights in ((2, None), (999, None), (1000, None), (1001, "0" * 16)):
        write_evaluation(mine, number, weights, seed=number)
    (mine / "evaluations" / "1002").mkdir()  # not finished
    export_agent(f"ckpt={mine}", f"out={tmp_path / 'latest'}")
    assert read_evaluation(tmp_path / "latest").results["seed"] == 1000
    export_agent(f"ckpt={mine}", f"out={tmp_path / 'chosen'}", f"evaluation={mine / 'evaluations' / '002'}")
    assert read_evaluation(tmp_path / "chosen").results["seed"] == 2
    # What was exported can be exported again, with its evaluation.
    export_agent(f"ckpt={tmp_path / 'chosen'}", f"out={tmp_path / 'again'}")
    assert read_evaluation(tmp_path / "again").results["seed"] == 2
    earlier = next((mine / "checkpoints").glob("stage1-*"))
    assert "are of other checkpoints" in export_agent(f"ckpt={earlier}", f"out={tmp_path / 'earlier'}")[1]


def test_the_evaluation_that_says_most_is_taken(mine: Path, tmp_path: Path) -> None:
    few = fake_results(("planning",), ("Pong",))
    quick = plain(PROTOCOLS["quick"])
    write_evaluation(mine, 1, seed=1, protocol=plain(PROTOCOLS["published"]))
    write_evaluation(mine, 2, seed=2, protocol=plain(PROTOCOLS["published"]), modes=plain(few.modes))
    write_evaluation(mine, 3, seed=3, protocol=quick)
    (write_evaluation(mine, 4) / "results.json").write_text("{")
    out = export_agent(f"ckpt={mine}", f"out={tmp_path / 'hub'}")[1]
    assert read_evaluation(tmp_path / "hub").results["seed"] == 1
    assert f"the evaluation {mine}/evaluations/001 (protocol published, 32 episodes)." in out
    assert "2 are of this checkpoint too and 1 is damaged, or of another jowa: evaluation=<folder> chooses" in out
    shutil.rmtree(mine / "evaluations" / "001")
    export_agent(f"ckpt={mine}", f"out={tmp_path / 'full'}")
    assert read_evaluation(tmp_path / "full").results["seed"] == 2, "a quick look is no match for few full episodes"


def test_what_came_from_the_hub_is_exported_with_its_evaluation(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_evaluation(mine, seed=7)
    export_agent(f"ckpt={mine}", f"out={tmp_path / 'hub'}")
    cache_agent(tmp_path / "hub", tmp_path / "cache")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    assert export_agent("ckpt=hub:me/agent", f"out={tmp_path / 'again'}")[0] == 0
    assert read_evaluation(tmp_path / "again").results["seed"] == 7
    assert (tmp_path / "again" / "config.yaml").read_text() == (tmp_path / "hub" / "config.yaml").read_text()


def test_lpips_goes_along(mine: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = LPIPS().state_dict()
    save_file(weights, tmp_path / "vgg.safetensors")
    for path in (mine / "checkpoints").glob("*/agent.json"):
        description = json.loads(path.read_text())
        description["tokenizer"] |= {"perceptual": "lpips", "perceptual_weights": str(tmp_path / "vgg.safetensors")}
        path.write_text(json.dumps(description))
    assert export_agent(f"ckpt={mine}", f"out={tmp_path / 'hub'}")[0] == 0
    (tmp_path / "vgg.safetensors").unlink()
    start = open_agent(str(tmp_path / "hub"))
    assert start.perceptual_weights == tmp_path / "hub" / LPIPS_FILE
    assert states_equal(load_file(start.perceptual_weights), weights)
    assert start.agent.tokenizer.config.perceptual_weights is None
    assert str(tmp_path) not in (tmp_path / "hub" / DESCRIPTION).read_text()


def test_published_files_are_exported_as_an_agent(tmp_path: Path) -> None:
    tokenizer, model = golden_files("40M")
    (tmp_path / "weights").mkdir()
    without_lpips = {name: tensor for name, tensor in tokenizer.items() if not name.startswith("lpips.")}
    torch.save(without_lpips, tmp_path / "weights" / "tokenizer.pt")
    torch.save(model, tmp_path / "weights" / "JOWA_40M.pt")
    before = open_agent(str(tmp_path / "weights")).agent
    assert export_agent(f"ckpt={tmp_path / 'weights'}", f"out={tmp_path / 'hub'}")[0] == 0
    shutil.rmtree(tmp_path / "weights")
    after = load_agent(tmp_path / "hub")
    assert weights_hash(after) == weights_hash(before) and after.model.config == before.model.config
    assert after.description["published"] == {"tokenizer": "weights/tokenizer.pt", "model": "weights/JOWA_40M.pt"}
    shutil.rmtree(tmp_path / "hub")  # large


def test_it_plays_the_same_from_the_cache_and_trains_the_same(
    mine: Path, tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_agent(f"ckpt={mine}", f"out={tmp_path / 'hub'}")
    cache_agent(tmp_path / "hub", tmp_path / "cache")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    episodes = []
    for name, ckpt in (("run", mine), ("folder", tmp_path / "hub"), ("cache", "hub:me/agent")):
        line = [*SMALL, "games=[Pong]", "modes=[no planning]", "protocol.max_episode_frames=600", "report=false"]
        line += ["world_model_sequences=0"]
        line += [f"ckpt={ckpt}", f"out={tmp_path / 'played' / name}"]
        evaluate.main(load_config(EvaluateConfig, "evaluate", line))
        (mode,) = json.loads((tmp_path / "played" / name / "results.json").read_text())["modes"]
        episodes.append(mode["episodes"])
    assert episodes[0] == episodes[1] == episodes[2]
    assert all(episode["episode_return"] != 0 for episode in episodes[0])
    tuned = [finetune_run(tiny_data, tmp_path / f"tuned-{ckpt.name}", ckpt) for ckpt in (mine, tmp_path / "hub")]
    assert final_weights(tuned[0]) == final_weights(tuned[1])
