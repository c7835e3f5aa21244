"""Pictures of what the model sees and dreams: real frames, their codes, the next one predicted, and a dream."""

import io
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from jowa.data.batch import Batch
from jowa.games import game_of
from jowa.models.tokenizer import Tokenizer
from jowa.planning.continuation import free_running, one_step_ahead
from jowa.planning.tree_dream import TreeDream

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Strip:
    """Consecutive frames of one held-out episode, each (T, 84, 84) uint8: as they were, through the tokenizer, each
    predicted one step ahead from the true ones before it (the first is given), and dreamed.

    The first `context` dreamed frames are the given ones; the rest follow from the recorded actions alone.
    """

    game: str
    original: Frames
    reconstructed: Frames
    one_step: Frames
    dreamed: Frames
    context: int

    @property
    def rows(self) -> tuple[tuple[str, Frames], ...]:
        """The frames by what they show, in the order in which they are drawn."""
        return (
            ("screen", self.original),
            ("codes", self.reconstructed),
            ("one step", self.one_step),
            ("dream", self.dreamed),
        )


def reconstruct(tokenizer: Tokenizer, frames: Frames, chunk: int = 64) -> Frames:
    """What the tokenizer keeps of frames (T, 84, 84) uint8: decoded from their codes, same shape."""
    device = tokenizer.embedding.weight.device
    parts = [torch.from_numpy(frames[i : i + chunk, None]).to(device) for i in range(0, len(frames), chunk)]
    return np.concatenate([decode_frames(tokenizer, tokenizer.encode(part)) for part in parts])


@torch.inference_mode()
def dream_strips(tokenizer: Tokenizer, dream: TreeDream, batch: Batch, context: int | None = None) -> list[Strip]:
    """One strip for every sequence without padding of a batch with frames: `context` frames are given, half if None.

    Raises:
        ValueError: the batch has no frames, or nothing is left to dream.
    """
    if batch.frames is None:
        raise ValueError("strips need batches with frames")
    length = batch.frames.shape[1]
    context = length // 2 if context is None else context
    if not 1 <= context < length:
        raise ValueError(f"a context of {context} frames leaves nothing of {length} to dream")
    whole = batch.valid.all(1)
    device = tokenizer.embedding.weight.device
    frames, actions = batch.frames[whole].to(device), batch.actions[whole].to(device)
    if not len(frames):
        return []
    tasks = batch.tasks[whole].to(device)
    codes = tokenizer.encode(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
    ahead, dreamed = codes.clone(), codes.clone()
    ahead[:, 1:] = one_step_ahead(dream, codes, actions, tasks, 1)
    dreamed[:, context:] = free_running(dream, codes, actions, tasks, context)
    seen, predicted, imagined = (
        decode_frames(tokenizer, kind.flatten(0, 1)).reshape(len(frames), length, 84, 84)
        for kind in (codes, ahead, dreamed)
    )
    originals = frames[:, :, 0].cpu().numpy()
    return [
        Strip(game_of(task), originals[i], seen[i], predicted[i], imagined[i], context)
        for i, task in enumerate(tasks.tolist())
    ]


def strip_png(strip: Strip, scale: int = 2, gap: int = 4) -> bytes:
    """A PNG, clear between frames: `strip.rows` above each other; columns: agent steps; what is dreamed apart."""
    side, count = 84 * scale, len(strip.original)
    lefts = [i * (side + gap) + (2 * gap if i >= strip.context else 0) for i in range(count)]
    canvas = np.zeros((len(strip.rows) * (side + gap) - gap, lefts[-1] + side, 2), np.uint8)
    for row, (_, frames) in enumerate(strip.rows):
        top = row * (side + gap)
        for left, frame in zip(lefts, frames, strict=True):
            canvas[top : top + side, left : left + side, 0] = frame.repeat(scale, 0).repeat(scale, 1)
            canvas[top : top + side, left : left + side, 1] = 255
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def decode_frames(tokenizer: Tokenizer, codes: torch.Tensor) -> Frames:
    """Codes (N, K) → (N, 84, 84) uint8."""
    pixels: Frames = (tokenizer.decode(codes)[:, 0] * 255).round().to(torch.uint8).cpu().numpy()
    return pixels
