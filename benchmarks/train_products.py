"""The matrix products and convolutions that a training step can't do without, and nothing else.

They are listed from the configuration, not recorded from the program, so that a wasteful program isn't measured against
its own waste. Outputs are allocated beforehand, and layers of one shape work on the same tensors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from jowa.models.perceptual import LPIPS
from jowa.models.tokenizer import Tokenizer
from jowa.training.learner import Learner
from jowa.training.parts import Part

Work = Callable[[], object]


class Product(NamedTuple):
    """`batch` products (rows × inner)·(inner × columns); backward: two more of the same size."""

    batch: int
    rows: int
    inner: int
    columns: int
    backward: bool = True

    @property
    def flops(self) -> float:
        return 2.0 * self.batch * self.rows * self.inner * self.columns * (3 if self.backward else 1)


class Convolution(NamedTuple):
    """One convolution of inputs (N, C, H, W); which of its gradients training needs."""

    inputs: tuple[int, ...]
    weight: tuple[int, ...]
    stride: int
    padding: int
    dtype: torch.dtype
    input_gradient: bool
    weight_gradient: bool

    @property
    def flops(self) -> float:
        side = (self.inputs[2] + 2 * self.padding - self.weight[2]) // self.stride + 1
        once = 2.0 * self.inputs[0] * side**2 * self.weight[0] * self.weight[1] * self.weight[2] ** 2
        return once * (1 + self.input_gradient + self.weight_gradient)


def attention_products(learner: Learner, part: Part) -> Counter[Product]:
    """Queries times keys and weights times values, as full squares though attention is causal."""
    config, tokens = learner.model.config, learner.model.block_tokens * part.batch.valid.shape[1]
    heads, size = len(part.batch) * config.heads, config.width // config.heads
    return Counter({Product(heads, tokens, size, tokens): config.layers}) + Counter(
        {Product(heads, tokens, tokens, size): config.layers}
    )


def linear_products(learner: Learner, part: Part) -> Counter[Product]:
    """Those of the trunk's and the heads' linear layers, and of the nearest codes."""
    model, stage, config = learner.model, learner.stage, learner.model.config
    steps, width = part.batch.valid.numel(), config.width
    tokens = steps * model.block_tokens
    found: Counter[Product] = Counter()
    for inner, columns in ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)):
        found[Product(1, tokens, inner, columns)] += config.layers
    if stage.world_weight > 0:
        for rows, outputs in ((steps * model.tokens_per_frame, model.vocabulary), (steps, 3), (steps, 2)):
            found[Product(1, rows, width, width)] += 1
            found[Product(1, rows, width, outputs)] += 1
    if stage.trains_q:
        hidden, outputs = config.q_width, model.q_networks.actions * model.q_networks.atoms
        for inner, columns in ((width, hidden), (hidden, hidden), (hidden, outputs)):
            found[Product(config.q_networks, steps, inner, columns)] += 1
            found[Product(config.q_networks, steps, inner, columns, backward=False)] += 1
    if stage.trains_tokenizer:
        tokenizer = learner.tokenizer.config
        for frames in (steps, len(part.frame_index)):
            rows = frames * model.tokens_per_frame
            found[Product(1, rows, tokenizer.embedding_width, tokenizer.vocabulary, backward=False)] += 1
    return found


def convolutions(learner: Learner, part: Part, dtype: torch.dtype) -> Counter[Convolution]:
    """The tokenizer's: codes of all frames in float32, training on some, and LPIPS on these twice."""
    if not learner.stage.trains_tokenizer:
        return Counter()
    tokenizer, frames = learner.tokenizer, len(part.frame_index)
    found = shapes(tokenizer, lambda fake: fake.encode(screens(part.batch.valid.numel())), torch.float32, False, False)
    found += shapes(tokenizer, lambda fake: fake(screens(frames)), dtype, True, True)
    if learner.perceptual is not None:
        both = shapes(learner.perceptual, lambda fake: fake(screens(frames), screens(frames)), dtype, True, False)
        # Half of them see the target, which has no gradients.
        for convolution, count in both.items():
            found[convolution] += count // 2
            found[convolution._replace(input_gradient=False)] += count // 2
    return found


def screens(frames: int) -> Tensor:
    return torch.empty(frames, 1, 84, 84)


def shapes(
    module: nn.Module, call: Callable[[Any], object], dtype: torch.dtype, input_gradient: bool, weight_gradient: bool
) -> Counter[Convolution]:
    """The convolutions of one call, found on a copy of the module without data."""
    found: Counter[Convolution] = Counter()

    def record(conv: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d) and isinstance(conv.padding, tuple)
        # Nothing asks for the screens' own gradients.
        wanted = input_gradient and not (isinstance(fake, Tokenizer) and conv is fake.encoder.conv_in)
        sizes = tuple(inputs[0].shape), tuple(conv.weight.shape), conv.stride[0], conv.padding[0]
        found[Convolution(*sizes, dtype, wanted, weight_gradient)] += 1

    with FakeTensorMode():
        fake = Tokenizer(module.config) if isinstance(module, Tokenizer) else LPIPS()
        for conv in fake.modules():
            if isinstance(conv, nn.Conv2d):
                conv.register_forward_hook(record)
        call(fake)
    return found


def product_work(products: Counter[Product], dtype: torch.dtype, device: torch.device) -> Work:
    """A call that does all of them once."""
    calls = [call for product, count in products.items() for call in [_product(product, dtype, device)] * count]
    return lambda: [call() for call in calls]


def convolution_work(found: Counter[Convolution], device: torch.device) -> Work:
    """A call that does all of them once."""
    calls = [call for convolution, count in found.items() for call in [_convolution(convolution, device)] * count]
    return lambda: [call() for call in calls]


def _product(product: Product, dtype: torch.dtype, device: torch.device) -> Work:
    def new(*shape: int) -> Tensor:
        return torch.randn(shape if product.batch > 1 else shape[1:], dtype=dtype, device=device)

    batch, rows, inner, columns, backward = product
    # Weights lie as linear layers keep them.
    x, weight, out = new(batch, rows, inner), new(batch, columns, inner), new(batch, rows, columns)
    x_gradient, weight_gradient = torch.empty_like(x), torch.empty_like(weight)

    def work() -> None:
        torch.matmul(x, weight.mT, out=out)
        if backward:
            torch.matmul(out, weight, out=x_gradient)
            torch.matmul(out.mT, x, out=weight_gradient)

    return work


def _convolution(convolution: Convolution, device: torch.device) -> Work:
    def new(shape: tuple[int, ...]) -> Tensor:
        tensor = torch.randn(shape, dtype=convolution.dtype, device=device)
        return tensor.contiguous(memory_format=torch.channels_last)

    x, weight = new(convolution.inputs), new(convolution.weight)
    stride, padding = [convolution.stride] * 2, [convolution.padding] * 2
    wanted = [convolution.input_gradient, convolution.weight_gradient, False]

    def work() -> None:
        out = F.conv2d(x, weight, stride=stride, padding=padding)
        if any(wanted):
            torch.ops.aten.convolution_backward(out, x, weight, None, stride, padding, [1, 1], False, [0, 0], 1, wanted)

    return work
