"""The route of a video's frames: as RGB made on the processor, or as YUV planes to the network's device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cgconvert.errors import UnavailableError, first_line
from cgconvert.frames import PlaneFrame
from cgconvert.host.cuda import count_cuda_devices
from cgconvert.media.video.codecs import VIDEO_CODECS
from cgconvert.media.video.cuda import FORMS_ON_CARD, why_not_decoding, why_not_encoding
from cgconvert.media.video.encoder import Encoding
from cgconvert.media.video.planes import yuv_format
from cgconvert.media.video.tone import tone_mapping
from cgconvert.models.describe import FOREIGN

if TYPE_CHECKING:
    import torch

    from cgconvert.engines.planes import PlaneTarget
    from cgconvert.video.plan import VideoPlan


@dataclass(frozen=True)
class VideoRoute:
    """The route that was chosen, with notes on the reasons.

    `device` is torch's name of the device on which the network's input lies. If `target` is None, frames go
    as RGB. `decoding_card` and `encoding_card` are CUDA device numbers, and None for the processor.
    `others` are further devices like `device`, which convert batches too.
    """

    device: str
    target: PlaneTarget | None = None
    decoding_card: int | None = None
    encoding_card: int | None = None
    notes: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def why_not_planes(plan: VideoPlan) -> str | None:
    """Say why a video's frames cannot go as planes on any device. None means that they can."""
    if plan.options.compare:
        return "`compare` joins source and result as RGB"
    if plan.steadiness is not None and plan.options.steady != "auto":
        return "results are steadied on the processor"
    ends = (plan.info.pixel_format, plan.info), (plan.encoding.pixel_format, plan.result_info)
    for name, info in ends:
        if yuv_format(name, info) is None:
            return f"{name} is not made of plain YUV planes"
    return None


def with_route(plan: VideoPlan) -> VideoPlan:
    """Return the plan with the route of its frames, and with the encoder at the end of it.

    Only if the network may run on a card is torch imported, and the card asked what it decodes and encodes.
    Raises `UnavailableError` for a device or a `decoder="nvdec"` that is not available.
    """
    asked = plan.engine.device.lower()
    is_foreign = plan.card.architecture in FOREIGN  # which runs on the processor
    if asked in ("cpu", "gpu") or (asked == "auto" and (is_foreign or not count_cuda_devices())):
        return choose_route(plan, "cpu")
    from cgconvert.engines.choose import choose_devices

    device, *others = map(str, choose_devices(asked))
    return choose_route(plan, device, others=others)


def choose_route(
    plan: VideoPlan, device: str, as_planes: bool | None = None, others: Sequence[str] = ()
) -> VideoPlan:
    """Return the plan with the route of its frames if the network runs on `device` and `others`.

    Frames go as planes if the device is a CUDA card and the video's formats allow it. `as_planes` forces
    either route on any device, which tests and benchmarks do. Frames for several devices come from host
    memory and go back there.
    """
    on_cuda = device.startswith("cuda")
    reason = why_not_planes(plan) or (None if on_cuda or as_planes else f"the network runs on {device}")
    if as_planes is False:
        reason = "asked for"
    if reason is not None:
        if plan.options.decoder == "nvdec":
            raise UnavailableError(
                f'`decoder="nvdec"` is for frames that stay on a CUDA device; here they do not: {reason}; '
                'use `decoder="auto"`'
            )
        told = (f"frames as RGB, converted on the processor: {reason}",) if on_cuda else ()
        return replace(plan, route=VideoRoute(device, notes=told, others=tuple(others)))
    from cgconvert.engines.planes import PlaneTarget

    plan = replace(plan, steadiness=None)  # `auto` does not take frames from a card's memory
    form = yuv_format(plan.encoding.pixel_format, plan.result_info)
    assert form is not None
    target = PlaneTarget(
        form,
        plan.size,
        plan.work_size,
        plan.info.rotation,
        from_hdr=tone_mapping(plan.info),
        to_hdr=tone_mapping(plan.result_info),
        finish=plan.finish,
    )
    where = ", ".join([device, *others])
    route = VideoRoute(
        device, target, notes=(f"frames as YUV planes, converted on {where}",), others=tuple(others)
    )
    if others and plan.options.decoder == "nvdec":
        raise UnavailableError('`decoder="nvdec"` is for one device; use `decoder="auto"`')
    if others or not on_cuda:
        return replace(plan, route=route)
    return _on_cuda(plan, route, target)


def _on_cuda(plan: VideoPlan, route: VideoRoute, target: PlaneTarget) -> VideoPlan:
    """Return the plan with decoding and encoding in the card's memory, as far as card and video allow it."""
    import torch

    from cgconvert.tensors.transfers import own_device

    device = torch.device(route.device)
    own_device(device)
    index = device.index
    card, told = _decoding(plan, index)
    route = replace(route, decoding_card=card, notes=(*route.notes, told))
    asked = plan.encoding.codec.encoder.endswith("_nvenc")
    reason = None if asked else why_not_nvenc(plan)
    encoding = None
    if reason is None:
        wanted = plan.encoding if asked else _with_nvenc(plan.encoding)
        encoding, reason = _encoding_on_card(plan, wanted, device, index)
    if encoding is None:
        where = "frames go to the encoder through host memory" if asked else "encoding on the processor"
        return replace(plan, route=replace(route, notes=(*route.notes, f"{where}: {reason}")))
    form = yuv_format(encoding.pixel_format, plan.result_info)
    assert form is not None
    route = replace(
        route,
        target=replace(target, format=form, on_card=True),
        encoding_card=index,
        notes=(*route.notes, "encoding on the card (NVENC), frames stay in its memory"),
    )
    return replace(plan, encoding=encoding, route=route)


def _decoding(plan: VideoPlan, index: int) -> tuple[int | None, str]:
    """Return the number of the card that decodes, if one does, and a note. Raises `UnavailableError`."""
    if plan.options.decoder == "cpu":
        return None, 'decoding on the processor: `decoder="cpu"`'
    if plan.deinterlacing is not None:
        reason: str | None = "pictures are made of the fields there"
    else:
        reason = why_not_decoding(plan.source, plan.info, index)
    if reason is None:
        return index, "decoding on the card (NVDEC)"
    if plan.options.decoder == "nvdec":
        raise UnavailableError(f'`decoder="nvdec"`: {reason}; use `decoder="auto"` or cpu')
    return None, f"decoding on the processor: {reason}"


def why_not_nvenc(plan: VideoPlan) -> str | None:
    """Say why NVENC cannot replace the encoder of a plan on any card. None means that it can.

    It may do so only if the user chose nothing of the encoding, and if it keeps all that libx264 would.
    """
    options = plan.options
    for name in ("codec", "crf", "preset", "pix_fmt"):
        value = getattr(options, name)
        if value is not None:
            return f"`{name}={value:g}`" if isinstance(value, float) else f"`{name}={value!r}`"
    if plan.codec_name != "h264":
        return f"{plan.output.suffix} is written as {plan.codec_name}"
    if plan.encoding.pixel_format != "yuv420p" or plan.info.bit_depth > 8:
        return f"NVENC would not keep {plan.encoding.pixel_format}"
    if plan.encoding.tags.keys() - {"chroma_sample_location"}:
        return "NVENC would not keep what frames are tagged with"
    return None


def _with_nvenc(encoding: Encoding) -> Encoding:
    """Return the encoding with NVENC's H.264 at its own defaults."""
    codec = VIDEO_CODECS["h264_nvenc"]
    return replace(encoding, codec=codec, quality=codec.quality, preset=codec.preset)


def _encoding_on_card(
    plan: VideoPlan, wanted: Encoding, device: torch.device, index: int
) -> tuple[Encoding | None, str]:
    """Return how NVENC takes frames from the card's memory, or None and the reason why it does not."""
    name = FORMS_ON_CARD.get(wanted.pixel_format)
    if name is None or any(side % 2 for side in plan.size):
        return None, f"not as {wanted.pixel_format} of this size"
    encoding = replace(wanted, pixel_format=name)
    reason = _try_encoding(plan, encoding, device, index)
    return (encoding, "") if reason is None else (None, reason)


def _try_encoding(plan: VideoPlan, encoding: Encoding, device: torch.device, index: int) -> str | None:
    """Say why the card does not encode like this. None means that it took a blank frame from its memory."""
    import torch

    from cgconvert.engines.planes import blank_planes

    name = encoding.pixel_format
    form = yuv_format(name, plan.result_info)
    assert form is not None
    width, height = plan.size
    try:
        blank = PlaneFrame(blank_planes(form, height, width, device), form, width, height, 0, 0, True)
        torch.cuda.synchronize(device)
    except RuntimeError as error:  # memory may be short, of which the run itself will tell
        return f"no frame could be made on {device} ({first_line(error, 100)})"
    return why_not_encoding(encoding, plan.result_info, blank, index)
