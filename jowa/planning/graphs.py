"""One CUDA graph a block: what a decoder asks of the GPU is recorded once a shape and replayed from then on.

For few environments decoding takes thousands of kernels that are shorter than it takes to launch them one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from jowa.models.transformer import KeyValueCache
from jowa.planning.decoder import Block, Decoder, Imagined
from jowa.planning.tree import Growth

MOST_GRAPHS = 64
"""Graphs kept at once: batch sizes in use times rounds of a search."""


class Recording(NamedTuple):
    """A replayable computation: `replay` writes the results of what `block` holds by then into `imagined`."""

    block: Block
    replay: Callable[[], None]
    imagined: Imagined


Record = Callable[[Callable[[], Imagined]], tuple[Callable[[], None], Imagined]]
"""Records a computation: what replays it, and the tensors it writes its results to."""


class GraphedDecoder:
    """Decodes blocks as `decode` does, which may neither wait for the GPU nor draw random numbers.

    A recording holds addresses: it serves one place of the cache and of the model's weights, and blocks of one shape.
    Recordings used longest ago are dropped when there are too many.
    """

    def __init__(self, model: torch.nn.Module, decode: Decoder, record: Record | None = None) -> None:
        self._model = model
        self._decode = decode
        self._record = record or CudaGraphs().record
        self._recordings: dict[tuple[object, ...], Recording] = {}

    def __call__(self, cache: KeyValueCache, block: Block) -> Imagined:
        key = _places(cache) + _shapes(block) + tuple(weight.data_ptr() for weight in self._model.parameters())
        recording = self._recordings.pop(key, None) or self._new(cache, block)
        self._recordings[key] = recording
        if len(self._recordings) > MOST_GRAPHS:
            del self._recordings[next(iter(self._recordings))]
        for held, given in zip(_tensors(recording.block), _tensors(block), strict=True):
            held.copy_(given)
        recording.replay()
        return Imagined(*(part.clone() for part in recording.imagined))

    def _new(self, cache: KeyValueCache, block: Block) -> Recording:
        own = [torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device) for x in _tensors(block)]
        for held, given in zip(own, _tensors(block), strict=True):
            held.copy_(given)
        actions, tasks, draft, slots, positions, bias = own
        held_block = Block(actions, tasks, draft, Growth(slots, positions, bias, block.growth.padded))
        return Recording(held_block, *self._record(lambda: self._decode(cache, held_block)))


class CudaGraphs:
    """Records CUDA graphs that share their working memory, since only one replays at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._beside = torch.cuda.Stream()

    def record(self, compute: Callable[[], Imagined]) -> tuple[Callable[[], None], Imagined]:
        """Compute once beside the present stream, so that libraries set themselves up, and once more to record it."""
        self._beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._beside):
            compute()
        torch.cuda.current_stream().wait_stream(self._beside)
        graph = torch.cuda.CUDAGraph()
        # Other threads, which load data and save checkpoints, may use the GPU meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            imagined = compute()
        return graph.replay, imagined


def _tensors(block: Block) -> tuple[Tensor, ...]:
    growth = block.growth
    return (block.actions, block.tasks, block.draft, growth.slots, growth.positions, growth.bias)


def _shapes(block: Block) -> tuple[object, ...]:
    return (block.growth.padded, *((tuple(part.shape), part.stride()) for part in _tensors(block)))


def _places(cache: KeyValueCache) -> tuple[object, ...]:
    return (*(layer.data_ptr() for layer in cache.layers), tuple(cache.layers[0].shape), cache.layers[0].stride())
