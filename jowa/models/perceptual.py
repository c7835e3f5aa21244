"""LPIPS: the distance of two images in the features of a VGG16 (Zhang et al. 2018), frozen."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from jowa.errors import UserError

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
    """LPIPS with weights from a safetensors file, or from a published `tokenizer.pt` (tensors only, never unpickled).

    Raises UserError when no file is named, it is missing, or it holds other tensors.
    """
    advice = "set tokenizer.perceptual_weights to a file with the LPIPS weights, or tokenizer.perceptual=none."
    wanted = LPIPS()
    if path is None:
        raise UserError(f"tokenizer.perceptual=lpips needs weights that don't ship with jowa: {advice}")
    if not Path(path).is_file():
        raise UserError(f"There is no file {path}: {advice}")
    try:
        if path.endswith(".safetensors"):
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        tensors = {name.split("lpips.")[-1]: tensor for name, tensor in state.items()}
        wanted.load_state_dict({name: tensors[name] for name in wanted.state_dict()})
    except Exception as error:  # files of other kinds fail in many ways
        raise UserError(f"{path} doesn't hold the LPIPS weights: {advice}") from error
    return wanted
