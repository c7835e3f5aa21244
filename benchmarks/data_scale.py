"""What the paper's data would take: measured import rates, projected to 15 games × 2 runs × 50 checkpoints.

    python benchmarks/data.py --out /tmp/frames           # real frames, once
    python benchmarks/data_scale.py --frames /tmp/frames

The frames are written in the layouts of RL Unplugged and of DQN-Replay and imported by one process with one thread. A
checkpoint is a million transitions. Downloading is not measured. Memory is a process's own peak.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from arguments import user_errors

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from fake_dopamine import Ring
from test_import_rlu import example, png, record

from jowa.data.importing import ImportConfig, import_all
from jowa.data.store import EpisodeStore
from jowa.games import legal_actions
from jowa.models.published import TOKENIZER
from jowa.models.tokenizer import Tokenizer

GAMES, RUNS, CHECKPOINTS, TRANSITIONS = 15, 2, 50, 1_000_000


def write_rlu(folder: Path, store: EpisodeStore, game: str) -> None:
    """A game's episodes as RL Unplugged's first file."""
    (folder / game).mkdir(parents=True)
    table, legal = store.tables[game], list(legal_actions(game))
    content = []
    for number, (start, length) in enumerate(zip(table.starts, table.lengths, strict=True)):
        rows = store.read(game, np.arange(start, start + length))
        frames = [*rows.frames, rows.frames[-1]]
        rewards = [float(x) for x in rows.rewards] + [0.0]
        clipped = np.clip(rewards, -1, 1).tolist()
        discounts = [1.0] * length + [1.0 - float(table.terminated[number])]
        content.append(record(example({
            "checkpoint_idx": [0], "episode_idx": [number], "episode_return": [sum(rewards)],
            "clipped_episode_return": [sum(clipped)], "observations": [png(frame) for frame in frames],
            "actions": [legal.index(int(a)) for a in rows.actions] + [0], "unclipped_rewards": rewards,
            "clipped_rewards": clipped, "discounts": discounts,
        })))  # fmt: skip
    (folder / game / "run_1-00000-of-00050").write_bytes(gzip.compress(b"".join(content), 6))


def write_dqn_replay(folder: Path, store: EpisodeStore, game: str) -> None:
    """A game's episodes as a DQN-Replay run of a full log and the rest."""
    rows = store.read(game, np.arange(store.transitions(game)))
    legal = list(legal_actions(game))
    ring = Ring(folder / game / "1" / "replay_logs", capacity=store.transitions(game) * 3 // 4)
    # Padding follows ends, so each stretch that was cut off counts as ended too.
    last = set((store.tables[game].starts + store.tables[game].lengths - 1).tolist())
    for t in range(len(rows.actions)):
        action, reward = legal.index(int(rows.actions[t])), float(np.clip(rows.rewards[t], -1, 1))
        ring.add(rows.frames[t], action, reward, t in last)
    ring.end()


def timed_import(source: str, path: Path, out: Path, results: multiprocessing.Queue) -> None:
    """In a process of its own, whose peak of memory is the import's."""
    torch.set_num_threads(1)
    started, used = time.perf_counter(), time.process_time()
    import_all(ImportConfig(source=source, path=str(path), out=str(out)))
    wall, cpu = time.perf_counter() - started, time.process_time() - used
    store = EpisodeStore(out)
    transitions = sum(store.transitions(game) for game in store.games)
    size = sum(store.bytes(game) for game in store.games)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    results.put({"transitions": transitions, "wall": wall, "cpu": cpu, "bytes": size / transitions, "peak MB": peak})


def encoding_rate() -> float:
    """Frames a second of the paper's tokenizer on one CPU core."""
    torch.set_num_threads(1)
    tokenizer, frames = Tokenizer(TOKENIZER).eval(), torch.randint(0, 256, (64, 1, 84, 84), dtype=torch.uint8)
    tokenizer.encode(frames)
    started = time.perf_counter()
    for _ in range(4):
        tokenizer.encode(frames)
    return 4 * len(frames) / (time.perf_counter() - started)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=Path, required=True, help="the folder that benchmarks/data.py filled")
    arguments = parser.parse_args(argv)
    with user_errors(parser):
        store = EpisodeStore(arguments.frames, path_key="--frames")
    total = GAMES * RUNS * CHECKPOINTS * TRANSITIONS
    report: dict[str, object] = {"transitions of 15 games × 2 runs × 50 checkpoints": total}
    games = [game for game in store.games if game != "Berzerk"][:6]
    if not games:
        parser.error(f"--frames {arguments.frames} holds no game but Berzerk")
    context = multiprocessing.get_context("spawn")
    for source, write in (("rlu", write_rlu), ("dqn_replay", write_dqn_replay)):
        with tempfile.TemporaryDirectory() as folder:
            for game in games:
                write(Path(folder) / "raw", store, game)
            results = context.Queue()
            child = context.Process(
                target=timed_import, args=(source, Path(folder) / "raw", Path(folder) / "out", results)
            )
            child.start()
            found = results.get()
            child.join()
        rate = found["transitions"] / found["cpu"]
        report[source] = found | {
            "transitions per CPU second": rate,
            "seconds a checkpoint and core": TRANSITIONS / rate,
            "core hours in all": total / rate / 3600,
            "disk in all, GB": total * found["bytes"] / 1e9,
            "disk of the paper's 150 M, GB": 150e6 * found["bytes"] / 1e9,
        }
    frames = encoding_rate()
    report["tokenizer on one core, frames/s"] = frames
    report["core hours to encode 150 M frames"] = 150e6 / frames / 3600
    report["code cache of 150 M frames, GB"] = 150e6 * 72 / 1e9
    report["cores here"] = os.cpu_count()
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
