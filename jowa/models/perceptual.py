"""LPIPS: the distance of two images in the features of a VGG16 (Zhang et al. 2018), frozen."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from jowa.errors import UserError
from jowa.models.state_dicts import load_tensors

SLICES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Where VGG16's convolutions sit, slice by slice; a 2×2 max-pooling comes before every slice but the first."""
CHANNELS = (64, 128, 256, 512, 512)


class ScalingLayer(nn.Module):
    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (x - self.shift) / self.scale
        return out


class VGG16(nn.Module):
    """The five taps relu1_2 … relu5_3. Tensor names are those of the published weights."""

    def __init__(self) -> None:
        super().__init__()
        inputs = 3
        for number, (places, channels) in enumerate(zip(SLICES, CHANNELS, strict=True), start=1):
            convolutions = nn.ModuleDict()
            for place in places:
                convolutions[str(place)] = nn.Conv2d(inputs, channels, 3, padding=1)
                inputs = channels
            self.add_module(f"slice{number}", convolutions)

    def forward(self, x: Tensor) -> list[Tensor]:
        taps = []
        for number, slice_ in enumerate(self.children()):
            if number:
                x = F.max_pool2d(x, 2)
            for convolution in slice_.children():
                x = F.relu(convolution(x))
            taps.append(x)
        return taps


class LinearTap(nn.Module):
    """A 1×1 convolution to one channel; its weight's name is `model.1.weight` in the published files."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.ModuleDict({"1": nn.Conv2d(channels, 1, 1, bias=False)})

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model["1"](x)
        return out


class LPIPS(nn.Module):
    """Distance of grey images x, y (N, 1, H, W) in [−1, 1], one number an image: (N,). Always frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.scaling_layer = ScalingLayer()
        self.net = VGG16()
        for i, channels in enumerate(CHANNELS):
            self.add_module(f"lin{i}", LinearTap(channels))
        self.requires_grad_(False)

    def forward(self, target: Tensor, image: Tensor) -> Tensor:
        with torch.no_grad():
            target_taps = self.net(self.scaling_layer(target.expand(-1, 3, -1, -1)))
        image_taps = self.net(self.scaling_layer(image.expand(-1, 3, -1, -1)))
        total = target.new_zeros(target.shape[0], dtype=torch.float32)
        for i, (a, b) in enumerate(zip(target_taps, image_taps, strict=True)):
            difference = (unit(a) - unit(b)).square()
            total = total + self.get_submodule(f"lin{i}")(difference).float().mean(dim=(1, 2, 3))
        return total


def unit(features: Tensor) -> Tensor:
    norm = features.square().sum(1, keepdim=True).sqrt()
    return features / (norm + 1e-10)


def load_lpips(path: str | None) -> LPIPS:
    """LPIPS with weights from a file (see `read_lpips`). Raises UserError also when none is named."""
    if path is None:
        raise UserError(
            "tokenizer.perceptual=lpips needs weights that don't ship with jowa: set tokenizer.perceptual_weights to a "
            "file with them (a published tokenizer.pt), or tokenizer.perceptual=none."
        )
    lpips = LPIPS()
    try:
        lpips.load_state_dict(read_lpips(Path(path)))
    except UserError as error:
        advice = "name another file under perceptual_weights, or set tokenizer.perceptual=none"
        raise UserError(f"{str(error).removesuffix('.')}: {advice}.") from error
    return lpips


def read_lpips(path: Path) -> dict[str, Tensor]:
    """LPIPS weights under the module's names, from a safetensors file or a published `tokenizer.pt`.

    Raises:
        UserError: the file is missing or damaged, or lacks a tensor or has it in another shape.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path} with LPIPS weights.")
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else load_tensors(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} can't be read ({error}): name another file with LPIPS weights.") from error
    found = {name.split("lpips.")[-1]: tensor for name, tensor in tensors.items()}
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in LPIPS().state_dict().items()}
    for name, shape in shapes.items():
        tensor = found.get(name)
        plain = tensor is not None and tensor.shape == shape and tensor.dtype == torch.float32
        if tensor is None or not plain or not bool(tensor.isfinite().all()):
            what = f"no finite float32 tensor {name} of shape {tuple(shape)}"
            raise UserError(f"{path} doesn't hold the LPIPS weights: it has {what}.")
    return {name: found[name] for name in shapes}
