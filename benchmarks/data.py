"""The episode store against the usual way of keeping such data: size, random sequences a second, memory.

    pip install h5py pandas
    python benchmarks/data.py --out /tmp/frames          # records 12 games of 10 000 frames there, once

The baseline keeps one uncompressed HDF5 file a game and a data frame with a row for each sequence; an item opens its
file, reads 8 consecutive rows of every column and closes it. Both give the same batches; rounds of the two alternate,
and medians are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas
import torch
from arguments import a_folder_to_fill, positive, positive_number, user_errors
from tqdm import tqdm

from jowa.data.codes import CodeCache, build_codes
from jowa.data.sequences import SequenceDataset
from jowa.data.store import EpisodeStore, EpisodeWriter, has_episodes
from jowa.envs.protocol import ProtocolConfig
from jowa.envs.single import SingleAtari
from jowa.games import PRETRAINING_GAMES, legal_actions

GAMES = PRETRAINING_GAMES[:12]
FRAMES = 10_000
BATCH = 32
RAW_BYTES = 84 * 84


def record(folder: Path) -> None:
    """Random play; every frame is a real one."""
    for game in tqdm([game for game in GAMES if not has_episodes(folder, game)], desc="recording", unit="game"):
        random = np.random.default_rng(0)
        env = SingleAtari(game, ProtocolConfig(), 0)
        with EpisodeWriter(folder, game, provenance={"source": "benchmark"}) as writer:
            while writer.transitions < FRAMES:
                frames, actions, rewards, frame, step = [], [], [], env.reset(), None
                while step is None or not (step.terminated or step.truncated):
                    frames.append(frame.copy())
                    actions.append(random.choice(legal_actions(game)))
                    step = env.step(int(actions[-1]))
                    rewards.append(step.reward)
                    frame = step.frame
                columns = np.array(actions, np.uint8), np.array(rewards, np.float32)
                writer.append(np.stack(frames), *columns, terminated=step.terminated)


class Baseline:
    """An HDF5 file a game, opened for every item, and a data frame of all sequences."""

    def __init__(self, folder: Path, store: EpisodeStore) -> None:
        folder.mkdir(exist_ok=True)
        rows = []
        for game in store.games:
            path = folder / f"{game}.h5"
            if not path.exists():
                with h5py.File(path, "w") as file:
                    file["observations"] = store.read_frames(game, slice(None))
                    for name in ("actions", "rewards", "ends"):
                        file[name] = store.column(game, name)
            table = store.tables[game]
            for start, length in zip(table.starts, table.lengths, strict=True):
                rows += [(str(path), start + t) for t in range(0, length - 7, 4)]
        self.index = pandas.DataFrame(rows, columns=["path", "start"])

    def batch(self, indices: np.ndarray) -> list[torch.Tensor]:
        items = [self._item(int(i)) for i in indices]
        return [torch.from_numpy(np.stack(column)) for column in zip(*items, strict=True)]

    def _item(self, number: int) -> tuple[np.ndarray, ...]:
        row = self.index.iloc[number]
        rows = slice(row["start"], row["start"] + 8)
        with h5py.File(row["path"], "r") as file:
            return tuple(file[name][rows] for name in ("observations", "actions", "rewards", "ends"))


def rate(read: Callable[[np.ndarray], object], sequences: int, batch: int, seconds: float, seed: int) -> float:
    """Random sequences a second."""
    random = np.random.default_rng(seed)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        read(random.integers(0, sequences, batch))
        done += batch
    return done / (time.perf_counter() - started)


def resident_megabytes() -> float:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096 / 1e6


def measure(folder: Path, rounds: int, seconds: float) -> dict[str, object]:
    store = EpisodeStore(folder, GAMES)
    baseline = Baseline(folder / "hdf5", store)
    ours = SequenceDataset(store, stride=4)
    for game in store.games:
        random = torch.Generator().manual_seed(0)
        build_codes(
            store, game, "0" * 16, lambda f, r=random: torch.randint(0, 2048, (len(f), 36), generator=r), chunk=4096
        )
    codes = SequenceDataset(store, stride=4, codes=CodeCache.open(store, "0" * 16))
    readers: dict[str, tuple[Callable[[np.ndarray], object], int, int]] = {
        "HDF5 opened per item": (baseline.batch, len(baseline.index), BATCH),
        "episode store": (ours.batch, len(ours), BATCH),
        "episode store, batches of 512": (ours.batch, len(ours), 512),
        "codes, batches of 512": (codes.batch, len(codes), 512),
        "codes, batches of 4096": (codes.batch, len(codes), 4096),
    }
    rates: dict[str, list[float]] = {name: [] for name in readers}
    for seed in range(rounds + 1):
        for name, (read, sequences, batch) in readers.items():
            found = rate(read, sequences, batch, seconds, seed)
            if seed:  # the first round warms up
                rates[name].append(found)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    before = resident_megabytes()
    rate(ours.batch, len(ours), 512, 10 * seconds, 99)
    frames = sum(store.transitions(game) for game in store.games)
    size = sum(store.bytes(game) for game in store.games)
    return {
        "frames": frames,
        "games": len(store.games),
        "bytes a frame": size / frames,
        "times smaller than raw": RAW_BYTES * frames / size,
        "by game": {g: RAW_BYTES * store.transitions(g) / store.bytes(g) for g in store.games},
        "sequences a second": medians,
        "times the baseline": medians["episode store"] / medians["HDF5 opened per item"],
        "resident MB before and after streaming": [before, resident_megabytes()],
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=a_folder_to_fill, required=True, help="folder for the frames")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--seconds", type=positive_number, default=2.0, help="of each measurement")
    arguments = parser.parse_args(argv)
    with user_errors(parser):
        record(arguments.out)
        print(json.dumps(measure(arguments.out, arguments.rounds, arguments.seconds), indent=1))


if __name__ == "__main__":
    main()
