"""Recognises state dicts that are no supported generator, to say what they are."""

from __future__ import annotations

import re
from collections.abc import Mapping

Shape = tuple[int, ...]

SUPPORTED = (
    "supported are ResNet and U-Net generators of the original CycleGAN/pix2pix implementation "
    "(files like latest_net_G.pth or latest_net_G_A.pth), and those of CUT, pix2pixHD, joliGEN, "
    "GAN Compression and AnimeGANv2; ONNX graphs are taken as they are"
)

FAMILIES: tuple[tuple[str, str], ...] = (
    (
        r".*\.(weight_orig|weight_bar|parametrizations\.)",
        "a network with spectral norm: remove it before saving",
    ),
    (r".*\.weight_[gv]$", "a network with weight norm: remove it before saving"),
    (r"scale\d+_layer\d+\.", "a discriminator of pix2pixHD"),
    (r"net\.0\.weight$", "a pixel discriminator (netD) of the original implementation"),
    (r"mlp_\d+\.0\.weight$", "the feature network (netF) of CUT"),
    (r"model\.model\.\d+\.conv_block\.", "a generator with one wrapper too many"),
    (
        r"model\.\d+\.block\.\d+\.weight$",
        "the CycleGAN generator of another implementation (blocks named 'block')",
    ),
    (r"(down_blocks|up_blocks|mid_block)\.", "a diffusion model (diffusers)"),
    (r"(model\.diffusion_model|first_stage_model|cond_stage_model)\.", "Stable Diffusion"),
    (r".*lora_(up|down|A|B|unet)", "LoRA weights for a diffusion or language model"),
    (r"(mapping|synthesis)\.", "StyleGAN"),
    (r"convs\.\d+\.conv\.modulation\.", "StyleGAN2"),
    (r"(body|RRDB_trunk)\.\d+\.(rdb|RDB)\d\.|model\.1\.sub\.\d+\.", "an ESRGAN or Real-ESRGAN upscaler"),
    (r"upsampler\.|conv_after_body\.|upconv\d\.", "a super-resolution network"),
    (r"DownBlock\.|UpBlock\d_|UpBlock\d\.", "U-GAT-IT"),
    (r"in\d\.(weight|scale)$|res\d\.conv1\.conv2d\.", "a fast-neural-style transformer"),
    (r"layer\d\.\d+\.(conv|bn)\d\.", "a torchvision ResNet, which is a classifier"),
    (r"features\.\d+\.", "a torchvision VGG, DenseNet or MobileNet, which is a classifier"),
    (r"(encoder|decoder)\.layers?\.\d+\.|transformer\.", "a transformer"),
    (r"(inc|down\d|up\d)\.(double_conv|maxpool_conv|conv)\.", "a segmentation U-Net"),
    (r"body\.\d+\.weight$", "a compact Real-ESRGAN upscaler"),
)
"""Pattern at the beginning of a tensor's name -> what has such names. The first that fits is told."""


def looks_like(shapes: Mapping[str, Shape]) -> str:
    """One clause: which tensor, and what it looks like."""
    if not shapes:
        return "it holds no weights"
    discriminator = _as_discriminator(shapes)
    if discriminator:
        return discriminator
    for pattern, family in FAMILIES:
        for name in shapes:
            if re.match(pattern, name):
                return f"{name!r:.100} looks like {family}"
    shown = ", ".join(f"{name!r:.60}" for name in list(shapes)[:3])
    return f"its {len(shapes)} tensors are of no known network (the first: {shown})"


def _as_discriminator(shapes: Mapping[str, Shape]) -> str | None:
    """The PatchGAN discriminator: 4x4 convolutions in a flat list, the last with one channel out."""
    convs = {name: shape for name, shape in shapes.items() if len(shape) == 4}
    if not convs or not all(re.fullmatch(r"model\.\d+\.weight", name) for name in convs):
        return None
    last = max(convs, key=lambda name: int(name.split(".")[1]))
    if any(shape[2:] != (4, 4) for shape in convs.values()) or convs[last][0] != 1:
        return None
    return f"{last!r} has one channel out: a PatchGAN discriminator (netD), not a generator (netG)"
