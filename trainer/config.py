"""The configuration of a training: frozen sections read from TOML, checked before anything runs."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from cgconvert.card import MOST_NOISE
from cgconvert.errors import UsageError
from cgconvert.host.files import real_path

METHODS = ("cyclegan", "pix2pix", "cut", "distill", "one_sided", "gan")
INITS = ("normal", "xavier", "kaiming", "orthogonal", "identity")
PREPROCESS = ("resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "scale_and_crop", "none")
CYCLEGAN_ABLATIONS = ("full", "cycle-alone", "gan-alone", "gan-forward", "gan-backward")
PIX2PIX_ABLATIONS = ("full", "l1-alone", "gan-alone", "cgan-alone", "l1-gan")
ABLATIONS = tuple(dict.fromkeys((*CYCLEGAN_ABLATIONS, *PIX2PIX_ABLATIONS)))


def _setting(default: Any, help: str, **limits: Any) -> Any:
    """A field with its meaning; `limits` are `choices`, `minimum` and `maximum`."""
    return field(default=default, metadata={"help": help, **limits})


def permitted(setting: dataclasses.Field[Any]) -> str:
    """The values that a setting may take, in words: empty where its type says all."""
    low, high = setting.metadata.get("minimum"), setting.metadata.get("maximum")
    if choices := setting.metadata.get("choices"):
        return f"one of {', '.join(choices)}"
    if high is not None:
        return f"from {low} to {high}"
    return "" if low is None else f"at least {low}"


@dataclass(frozen=True)
class RunConfig:
    """What runs, on what, for how long. Durations count images (of one domain)."""

    method: str = _setting("cyclegan", "how it learns", choices=METHODS)
    seed: int = _setting(0, "start of all random numbers", minimum=0)
    images: int = _setting(200_000, "images (of one domain) that the training sees in all", minimum=1)
    decay_images: int = _setting(
        -1, "the last of them, over which the learning rate falls to 0; -1: half of them", minimum=-1
    )
    hours: float = _setting(
        0.0,
        "above 0: end after this time instead; the rate follows time, so resuming is not exact",
        minimum=0,
    )
    batch: int = _setting(1, "images a step and process", minimum=1)
    device: str = _setting("auto", "auto, cpu, cuda, cuda:1 ...")
    precision: str = _setting(
        "auto",
        "auto is bf16 where the device is fast at it; fp64 is slow, for comparisons",
        choices=("auto", "fp32", "bf16", "fp16", "fp64"),
    )
    channels_last: bool = _setting(True, "on a GPU: the memory format that convolutions are faster in")
    compile: bool = _setting(False, "torch.compile the networks: minutes at the start, pays on a GPU")
    threads: int = _setting(0, "CPU threads of the arithmetic; 0 leaves torch's own choice", minimum=0)

    @property
    def decay(self) -> int:
        """Images over which the learning rate falls to 0: `decay_images`, or half of `images` where unset."""
        return self.images // 2 if self.decay_images < 0 else self.decay_images


@dataclass(frozen=True)
class DataConfig:
    """Where pictures come from and what is done to them. Paths are relative to the config file's folder."""

    a: str = _setting("", "domain A: a folder (searched through), or a video")
    b: str = _setting("", "domain B: likewise; with pix2pix the file names pair the folders")
    pairs: str = _setting("", "pix2pix: a folder of pictures with A on the left and B on the right, instead")
    direction: str = _setting("a_to_b", "what methods with one generator learn", choices=("a_to_b", "b_to_a"))
    holdout_a: str = _setting(
        "", "pictures of A that are measured and shown, never learned; empty: split off"
    )
    holdout_b: str = _setting("", "likewise of B")
    holdout_pairs: str = _setting("", "likewise side by side")
    holdout: int = _setting(8, "how many to split off where no hold-out folder is given", minimum=1)
    preprocess: str = _setting(
        "resize_and_crop", "how a picture becomes a training image", choices=PREPROCESS
    )
    load_size: int = _setting(286, "edge (or width) it is resized to before the crop", minimum=8)
    crop_size: int = _setting(256, "edge of the crop that is trained on", minimum=8)
    scale_min: float = _setting(0.5, "scale_and_crop: smallest random scale", minimum=0.05)
    scale_max: float = _setting(1.5, "scale_and_crop: largest random scale", minimum=0.05)
    scale_a: list[float] = field(
        default_factory=list,
        metadata={"help": "[smallest, largest] scale of domain A alone; empty: scale_min, scale_max"},
    )
    scale_b: list[float] = field(default_factory=list, metadata={"help": "likewise of domain B"})
    flip: bool = _setting(True, "mirror half of the pictures")
    frames_per_video: int = _setting(500, "frames sampled from a video that is a domain", minimum=2)
    labels: list[str] = field(
        default_factory=list,
        metadata={"help": "gan: folders in data.b whose names are labels; empty: no labels"},
    )
    pictures_per_folder: int = _setting(
        0, "pictures taken of a folder at most, evenly spaced; 0: all", minimum=0
    )
    cache_mb: int = _setting(4096, "memory for decoded pictures; beyond it they are read anew", minimum=0)
    workers: int = _setting(1, "threads that prepare batches ahead", minimum=1)

    def of_domain(self, name: str) -> DataConfig:
        """The same with the scales of one domain, "a" or "b"."""
        own = getattr(self, f"scale_{name}")
        return dataclasses.replace(self, scale_min=own[0], scale_max=own[1]) if own else self


@dataclass(frozen=True)
class NetworkConfig:
    """The networks."""

    generator: str = _setting("resnet", "architecture of the generator that is trained, for both directions")
    arguments: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "its arguments, for example { ngf = 64, blocks = 9 }"}
    )
    reverse_generator: str = _setting("", "cyclegan: another architecture for gen_ab; empty: the same")
    reverse_arguments: dict[str, Any] = field(default_factory=dict, metadata={"help": "its arguments"})
    noise: int = _setting(
        0,
        "one_sided, distill: channels of fixed noise beside the picture, which strokes hang on",
        minimum=0,
        maximum=MOST_NOISE,
    )
    norm_frozen: float = _setting(
        1.0,
        "share of the training after which generators' batch norms keep their statistics; 1: never",
        minimum=0,
    )
    init: str = _setting(
        "normal", "how weights start; identity: h2 with batch norms begins near the picture", choices=INITS
    )
    init_gain: float = _setting(0.02, "its spread or gain", minimum=0)
    discriminator: str = _setting("patch", "70x70 patches, or single pixels", choices=("patch", "pixel"))
    ndf: int = _setting(64, "channels of its first layer", minimum=1)
    disc_layers: int = _setting(3, "its layers; each more doubles the patch", minimum=1)
    disc_norm: str = _setting("instance", "its normalisation", choices=("instance", "batch", "none"))
    disc_scales: int = _setting(1, "several scales, as in pix2pixHD", minimum=1)
    ema: float = _setting(
        0.999, "decay a step of the averaged generators; 0: none", minimum=0, maximum=0.999999
    )


@dataclass(frozen=True)
class LossConfig:
    """What is asked of the networks."""

    gan: str = _setting("lsgan", "adversarial loss", choices=("lsgan", "vanilla", "hinge", "wgan"))
    ablation: str = _setting("full", "leave parts out, as the papers' tables do", choices=ABLATIONS)
    lambda_gan: float = _setting(1.0, "weight of the adversarial loss", minimum=0)
    lambda_a: float = _setting(10.0, "cyclegan: weight of the cycle A -> B -> A", minimum=0)
    lambda_b: float = _setting(10.0, "cyclegan: weight of the cycle B -> A -> B", minimum=0)
    lambda_identity: float = _setting(0.5, "cyclegan: identity loss, times lambda_a and lambda_b", minimum=0)
    colour: float = _setting(
        0.0, "weight of keeping blurred colours, moved to the target domain's mean and spread", minimum=0
    )
    tint: float = _setting(
        0.0, "one_sided: weight of keeping the tints of small squares; light is left free", minimum=0
    )
    colour_move: float = _setting(
        1.0,
        "one_sided: how far colours are moved to the target domain's; 0: those of the source",
        minimum=0,
        maximum=1,
    )
    repaint: float = _setting(
        0.0,
        "one_sided: share of a batch's sources that are targets without their strokes",
        minimum=0,
        maximum=0.5,
    )
    projected: float = _setting(
        0.0, "weight of discriminators on pretrained features (hinge loss), beside the other", minimum=0
    )
    content: float = _setting(
        0.0, "one_sided: weight of keeping what is shown, in pretrained features", minimum=0
    )
    lambda_l1: float = _setting(100.0, "pix2pix: weight of the distance to the truth", minimum=0)
    conditional: bool = _setting(True, "pix2pix: the discriminator sees the input beside the output")
    pool: int = _setting(50, "earlier fakes kept for the discriminators; 0: none", minimum=0)
    feature_matching: float = _setting(0.0, "weight of pix2pixHD's feature matching (10 there)", minimum=0)
    r1: float = _setting(0.0, "weight of the R1 gradient penalty", minimum=0)
    r1_every: int = _setting(16, "steps between two penalties", minimum=1)
    diffaugment: list[str] = field(
        default_factory=list, metadata={"help": 'for small sets: ["color", "translation", "cutout"]'}
    )
    temporal: float = _setting(0.0, "weight of temporal consistency under synthetic motion (10)", minimum=0)
    temporal_way: str = _setting(
        "both", "cyclegan: the generators it is asked of", choices=("both", "a_to_b", "b_to_a")
    )
    temporal_ramp: int = _setting(0, "images over which it grows from 0", minimum=0)
    temporal_noise: float = _setting(
        0.002, "largest deviation of its noise, on [-1, 1]; videos have about 0.02", minimum=0
    )
    lambda_nce: float = _setting(1.0, "cut: weight of the patch-wise contrastive loss", minimum=0)
    nce_identity: bool = _setting(True, "cut: the same loss on pictures of the target (CUT; off: FastCUT)")
    nce_layers: list[int] = field(
        default_factory=list,
        metadata={"help": "cut: layers of the generator to compare; empty: chosen by depth"},
    )
    nce_patches: int = _setting(256, "cut: places compared in an image", minimum=2)
    nce_temperature: float = _setting(0.07, "cut: temperature", minimum=0.001)


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam."""

    lr: float = _setting(2e-4, "learning rate of the generators", minimum=0)
    disc_lr: float = _setting(0.0, "of the discriminators; 0: the same", minimum=0)
    beta1: float = _setting(0.5, "first moment", minimum=0, maximum=0.999999)
    beta2: float = _setting(0.999, "second moment", minimum=0, maximum=0.999999)


@dataclass(frozen=True)
class DistillConfig:
    """A small generator learns from a teacher (OMGD, Ren et al. 2021; DCD, Li et al. 2020)."""

    teacher: str = _setting("", "the teacher's model file or name")
    checkpoint: str = _setting(
        "", "a training run of the teacher: its discriminator gives the features, and it may go on learning"
    )
    online: bool = _setting(False, "the teacher goes on learning beside the student")
    lambda_l1: float = _setting(10.0, "distance of the outputs", minimum=0)
    lambda_ssim: float = _setting(10.0, "1 - SSIM of the outputs", minimum=0)
    lambda_features: float = _setting(10.0, "relative distance in the discriminator's features", minimum=0)
    lambda_gram: float = _setting(10.0, "distance of their Gram matrices", minimum=0)
    lambda_tv: float = _setting(1e-5, "total variation of the student's output", minimum=0)


@dataclass(frozen=True)
class WatchConfig:
    """What is kept and shown on the way; steps between are in images."""

    log_every: int = _setting(200, "a line of losses", minimum=1)
    sample_every: int = _setting(10_000, "a grid of hold-out pictures, and the report", minimum=1)
    metrics_every: int = _setting(20_000, "metrics on the hold-out; the best is kept", minimum=1)
    checkpoint_every: int = _setting(10_000, "a checkpoint", minimum=1)
    checkpoint_minutes: float = _setting(10.0, "and one at least this often", minimum=0.01)
    samples: int = _setting(4, "hold-out pictures in a grid", minimum=1)
    sample_size: int = _setting(256, "longest edge of pictures shown and measured", minimum=16)
    metric_pictures: int = _setting(50, "hold-out pictures of each domain that are measured", minimum=2)
    metric_size: int = _setting(256, "edge of the squares compared with the target domain", minimum=32)
    tensorboard: bool = _setting(False, "write TensorBoard files too (pip install 'cgconvert[train]')")
    collapse: bool = _setting(True, "notice NaN and collapse: go back once, then stop")
    learned: bool = _setting(
        False, "the learned metric, precision and recall join the metrics; needs cgconvert[train]"
    )
    inception: str = _setting("", "a TorchScript Inception file: FID and KID join the metrics")
    inception_sha256: str = _setting("", "its checksum, if it is to be verified")


@dataclass(frozen=True)
class Config:
    """A whole training, checked."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)

    def __post_init__(self) -> None:
        for section in dataclasses.fields(self):
            _check_section(section.name, getattr(self, section.name))
        _check_together(self)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain data, as stored in checkpoints."""
        return dataclasses.asdict(self)

    def with_changes(self, changes: Mapping[str, Any]) -> Config:
        """A copy with `section.key` settings replaced."""
        data = self.to_dict()
        for dotted, value in changes.items():
            section, _, key = dotted.partition(".")
            if section not in data or not key:
                raise UsageError(
                    f"unknown setting {dotted!r}: write SECTION.KEY, sections: {', '.join(data)}"
                )
            data[section][key] = value
        return config_from_dict(data, "settings")

    def changes_since(self, before: Config) -> dict[str, tuple[Any, Any]]:
        """Settings that differ from those of `before`: `section.key` to (what it was, what it is)."""
        old, new = before.to_dict(), self.to_dict()
        return {
            f"{section}.{key}": (old[section][key], value)
            for section, values in new.items()
            for key, value in values.items()
            if old[section][key] != value
        }


def absolute(where: str, base: Path) -> str:
    """A path of the config, relative to the folder of the config file."""
    return str(real_path(base / Path(where).expanduser())) if where else ""


def config_from_dict(data: Mapping[str, Any], where: str) -> Config:
    """A checked config from nested plain data; `where` names its source in messages. Raises `UsageError`."""
    types = get_type_hints(Config)
    sections = {}
    for name, values in data.items():
        if name not in types:
            raise UsageError(f"{where}: unknown section [{name}]{_nearest(name, types)}")
        if not isinstance(values, Mapping):
            raise UsageError(f"{where}: [{name}] must be a section")
        known = get_type_hints(types[name])
        for key in values:
            if key not in known:
                raise UsageError(f"{where}: unknown setting {key!r} in [{name}]{_nearest(key, known)}")
        sections[name] = types[name](**values)
    try:
        return Config(**sections)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def config_from_checkpoint(state: Mapping[str, Any], where: str) -> Config:
    """The config that a checkpoint was made with; settings that are gone since then are left out."""
    sections = get_type_hints(Config)
    stored = {
        name: {key: value for key, value in values.items() if key in get_type_hints(sections[name])}
        for name, values in state["config"].items()
        if name in sections
    }
    return config_from_dict(stored, where)


def read_config(path: Path) -> Config:
    """Read and check a TOML config. Raises `UsageError` that names file, section and setting."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"{path}: is not there; make one with `cgconvert train init`") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not text in UTF-8") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: is not valid TOML ({error})") from error
    return config_from_dict(data, str(path))


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def _check_section(section: str, values: Any) -> None:
    """Check types and limits of a section; whole numbers are accepted for floats and become floats."""
    hints = get_type_hints(type(values))
    for setting in dataclasses.fields(values):
        where = f"{section}.{setting.name}"
        value, expected = getattr(values, setting.name), hints[setting.name]
        if expected is float and type(value) is int:
            value = float(value)
            object.__setattr__(values, setting.name, value)
        if expected == list[float] and type(value) is list:
            value = [float(item) if type(item) is int else item for item in value]
            object.__setattr__(values, setting.name, value)
        kind, items = get_origin(expected) or expected, get_args(expected)
        if type(value) is not kind:
            raise UsageError(f"{where} must be {kind.__name__}, got {value!r}")
        if kind is list and any(type(item) is not items[0] for item in value):
            raise UsageError(f"{where} must be a list of {items[0].__name__}, got {value!r}")
        if kind is float and not math.isfinite(value):
            raise UsageError(f"{where} must be a finite number, got {value!r}")
        limits = setting.metadata
        inside = value in limits["choices"] if "choices" in limits else True
        inside = inside and ("minimum" not in limits or value >= limits["minimum"])
        inside = inside and ("maximum" not in limits or value <= limits["maximum"])
        if not inside:
            raise UsageError(f"{where} must be {permitted(setting)}, got {value!r}")


def _check_together(config: Config) -> None:
    data, run = config.data, config.run
    if data.scale_min > data.scale_max:
        raise UsageError(f"data.scale_min {data.scale_min} is above data.scale_max {data.scale_max}")
    for key in ("scale_a", "scale_b"):
        own = getattr(data, key)
        if own and (len(own) != 2 or not 0.05 <= own[0] <= own[1]):
            raise UsageError(f"data.{key} must be [smallest, largest] from 0.05 on, got {own}")
    if config.network.noise and run.method not in ("one_sided", "distill"):
        raise UsageError(f"network.noise is for run.method one_sided or distill, not {run.method}")
    if run.method == "gan" and data.preprocess in ("none", "scale_width"):
        raise UsageError(f"a gan makes pictures of one size: data.preprocess cannot be {data.preprocess}")
    if data.labels and run.method != "gan":
        raise UsageError(f"data.labels are for run.method gan, not {run.method}")
    if len(set(data.labels)) != len(data.labels) or len(data.labels) == 1:
        raise UsageError(f"data.labels must be two or more different folders, got {data.labels}")
    if config.loss.projected and run.method == "gan":
        raise UsageError("loss.projected is for methods that convert pictures, not gan")
    if config.loss.projected and run.method == "pix2pix":
        raise UsageError("loss.projected is for methods without pairs, not pix2pix")
    if data.preprocess in ("resize_and_crop", "scale_width_and_crop") and data.crop_size > data.load_size:
        raise UsageError(f"data.crop_size {data.crop_size} is above data.load_size {data.load_size}")
    if run.decay_images > run.images:
        raise UsageError(
            f"run.decay_images {run.decay_images} is above run.images {run.images}; unset it is half of them"
        )
    if data.preprocess in ("none", "scale_width") and run.batch > 1:
        raise UsageError(
            f"data.preprocess {data.preprocess} gives images of several sizes: use run.batch = 1"
        )
    allowed = {"cyclegan": CYCLEGAN_ABLATIONS, "pix2pix": PIX2PIX_ABLATIONS}.get(run.method, ("full",))
    if config.loss.ablation not in allowed:
        raise UsageError(
            f"loss.ablation {config.loss.ablation!r} is not one of {run.method}'s: {', '.join(allowed)}"
        )
    unknown = set(config.loss.diffaugment) - {"color", "translation", "cutout"}
    if unknown:
        raise UsageError(
            f"loss.diffaugment knows color, translation, cutout; got {', '.join(sorted(unknown))}"
        )
