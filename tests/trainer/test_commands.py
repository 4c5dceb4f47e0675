"""The commands, as a user types them: a training from two folders to a model that the converter loads."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from cgconvert.errors import CgconvertError, OutputError, UsageError
from cgconvert.models.files import read_card
from cgconvert.models.loading import load_model
from tests.trainer.conftest import SMALL, make_domain, make_pairs
from tests.video.clips import Clip, make_clip
from trainer.cli import train
from trainer.data.pictures import read_image
from trainer.runs.template import toml_value
from trainer.storage.checkpoint import load_checkpoint, save_checkpoint

# An extra of the package: without it the option is refused, which a test of its own shows.
HAS_BOARD = importlib.util.find_spec("tensorboard") is not None


def call(*words: object) -> Result:
    result = CliRunner().invoke(train, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, (CgconvertError, SystemExit)):
        raise result.exception
    return result


def settings(**changes: object) -> list[str]:
    values = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    return [word for key, value in values.items() for word in ("--set", f"{key}={toml_value(value)}")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 12 images, with samples, metrics and a report on the way."""
    base = tmp_path_factory.mktemp("trained")
    a, b = make_domain(base / "a", True), make_domain(base / "b", False)
    every = {"watch__sample_every": 4, "watch__metrics_every": 6, "watch__tensorboard": HAS_BOARD}
    words = settings(run__images=12, run__decay_images=6, **every)
    made = call("init", base / "run", "--a", a, "--b", b, *words)
    assert made.exit_code == 0, made.output
    assert "10 pictures, 48x48" in made.output, "two are held out"
    result = call("run", base / "run")
    assert result.exit_code == 0, result.output
    return base


def test_a_run_leaves_all_that_is_promised(trained: Path) -> None:
    run = trained / "run"
    names = {path.name for path in run.iterdir()}
    assert {"config.toml", "checkpoint.pt", "best.pt", "metrics.jsonl", "report.html", "samples"} <= names
    assert bool(list((run / "tensorboard").glob("events.*"))) == HAS_BOARD
    samples = sorted(path.name for path in (run / "samples").iterdir())
    assert samples == [f"gen_{way}-{n:09d}.png" for way in ("ab", "ba") for n in (4, 8, 12)]
    grid = read_image(run / "samples" / "gen_ab-000000004.png")
    assert grid.shape == (2 * 50, 3 * 48, 3), "source, result, way back; two pictures"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines if line["kind"] == "losses"] == list(range(1, 13))
    metrics = [line for line in lines if line["kind"] == "metrics"]
    assert {(line["generator"], line["images"]) for line in metrics} >= {("gen_ab", 6), ("gen_ba", 12)}
    assert {"swd", "swd_common", "grid", "ssim", "shift", "cycle_psnr"} <= metrics[0].keys()


def test_the_report_needs_nothing_from_outside(trained: Path) -> None:
    text = (trained / "run" / "report.html").read_text()
    assert not re.search(r"\b(src|href)=(?!'data:)", text)
    assert "http" not in text
    assert text.count("data:image/jpeg;base64,") == 6
    assert text.count("<svg") > 8
    assert "finished, 12 images" in text
    for word in ("gen_ab: source, result, way back", "cycle_a", "swd", "lower is nearer", "optimizer.lr"):
        assert word in text
    losses, _, metrics = text.partition("<h2>Metrics on the hold-out</h2>")
    assert "lower is nearer" not in losses
    assert metrics.count("distance to the target domain, colour apart; lower is nearer") == 1
    changed, _, same = text.partition("<details>")
    assert "<td>data.crop_size</td><td>32</td>" in changed
    assert "<td>optimizer.beta1</td><td>0.5</td>" in same


def test_export_gives_a_model_that_the_converter_loads(trained: Path) -> None:
    target = trained / "warm2cold.safetensors"
    result = call(
        "export", trained / "run", target, "--generator", "gen_ab", "--title", "Warm to cold",
        "--source-domain", "warm", "--target-domain", "cold", "--licence", "CC0-1.0", "--work-size", 360,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    card = read_card(target)
    assert (card.name, card.title, card.source_domain, card.target_domain) == (
        "warm2cold",
        "Warm to cold",
        "warm",
        "cold",
    )
    assert (card.architecture, card.size_multiple, card.native_size, card.work_size) == ("h2", 4, 32, 360)
    assert card.training["images_seen"] == 12
    assert card.training["data"] == ["a", "b"], "names of folders, no paths"
    assert card.training["metrics"]["swd"] > 0
    assert str(trained) not in card.to_json()
    picture = read_image(trained / "a" / "000.png")
    assert load_model(target).convert(picture).shape == picture.shape
    best = call("export", trained / "run", trained / "best.safetensors", "--generator", "gen_ba", "--best")
    assert best.exit_code == 0, best.output


def test_calibration_gives_the_colours_of_the_target(trained: Path) -> None:
    means, truth = {}, np.mean([read_image(p).mean((0, 1)) for p in (trained / "b").iterdir()], axis=0)
    for name, more in (("plain", []), ("calibrated", ["--calibrate"])):
        target = trained / f"{name}.safetensors"
        assert call("export", trained / "run", target, "--generator", "gen_ab", *more).exit_code == 0
        model = load_model(target)
        results = [model.convert(read_image(path)) for path in sorted((trained / "a").iterdir())]
        means[name] = np.mean([result.mean((0, 1)) for result in results], axis=0)
        assert model.card.training["calibrated"] == (name == "calibrated")
        assert ("metrics" in model.card.training) == (name == "plain"), "those are of other weights"
    assert np.abs(means["calibrated"] - truth).max() < 6
    assert np.abs(means["plain"] - truth).max() > 20


def test_export_says_what_is_wrong(trained: Path) -> None:
    which = call("export", trained / "run", trained / "x.safetensors")
    assert isinstance(which.exception, CgconvertError)
    assert "say which with `generator`" in str(which.exception)
    suffix = call("export", trained / "run", trained / "x.pth", "--generator", "gen_ab")
    assert "ends in .safetensors" in str(suffix.exception)
    none = call("export", trained / "nothing", trained / "x.safetensors")
    assert isinstance(none.exception, CgconvertError)
    assert none.exception.exit_code == 3
    assert not (trained / "x.safetensors").exists()


def test_evaluate_prints_model_and_baselines(trained: Path) -> None:
    model = trained / "for-evaluation.safetensors"
    call("export", trained / "run", model, "--generator", "gen_ab")
    words = ["evaluate", model, "--source", trained / "a", "--target", trained / "b", "--size", 32]
    plain = call(*words, "--count", 4)
    assert plain.exit_code == 0, plain.output
    for word in ("for-evaluation", "unchanged", "colour transfer", "swd", "grid", "ssim"):
        assert word in plain.output
    video = make_clip(trained / "video.mp4", Clip(frames=6))
    more = ["--count", 4, "--json", "--back", model, "--video", video, "--frames", 4, "--video-size", 48]
    data = json.loads(call(*words, *more).output)
    assert data["videos"][str(model)][str(video)].keys() == {"source", "result", "ratio", "sharpness"}
    assert data["rows"]["unchanged"]["ssim"] == pytest.approx(1.0)
    assert data["rows"]["colour transfer"]["swd_common"] < data["rows"]["unchanged"]["swd_common"]
    assert "cycle_psnr" in data["rows"][str(model)]
    assert data["reference"] == str(trained / "b")


def test_sample_shows_source_and_result(trained: Path) -> None:
    out = trained / "seen.png"
    result = call("sample", trained / "run", trained / "a" / "000.png", "-o", out, "--generator", "gen_ab")
    assert result.exit_code == 0, result.output
    pixels = read_image(out)
    assert pixels.shape == (50, 96, 3)
    source = read_image(trained / "a" / "000.png")
    assert np.array_equal(pixels[:48, :48], source)
    assert not np.array_equal(pixels[:48, 48:], source)


def test_distillation_makes_a_smaller_model(trained: Path) -> None:
    teacher = trained / "teacher.safetensors"
    call("export", trained / "run", teacher, "--generator", "gen_ab")
    places = ["--a", trained / "a", "--b", trained / "b"]
    words = settings(run__images=6, run__decay_images=3)
    drop = words.index("--set", words.index(next(w for w in words if w.startswith("network.arguments"))) - 1)
    words = (
        words[:drop]
        + words[drop + 2 :]
        + ["--set", "network.arguments={half_channels=4, channels=4, blocks=1}"]
    )
    for name, more in (
        ("plain", ["--teacher", teacher]),
        ("with-run", ["--teacher-run", trained / "run", "--set", "distill.online=true"]),
    ):
        run = trained / name
        result = call("distill", run, *more, *places, *words)
        assert result.exit_code == 0, (result.output, result.exception)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses = [line["losses"] for line in lines if line["kind"] == "losses"]
        assert {"l1", "ssim", "features", "gram", "gan", "disc", "tv"} <= losses[0].keys()
        measured = [line for line in lines if line["kind"] == "metrics"][-1]
        assert 0 < measured["teacher_l1"] < 255
        assert -1 < measured["teacher_ssim"] < 1
        assert load_checkpoint(run / "best.pt")["watch"]["best"]["gen_ab"] == measured["teacher_l1"]
        assert read_image(run / "samples" / "gen_ab-000000006.png").shape[1] == 3 * 48, "and the teacher's"
        assert "gen_ab: source, result, teacher&#x27;s result" in (run / "report.html").read_text()
        assert ("teacher_cycle_a" in losses[0]) == (name == "with-run")
        student = trained / f"student-{name}.safetensors"
        assert call("export", run, student).exit_code == 0
        assert student.stat().st_size < teacher.stat().st_size
        config = (run / "config.toml").read_bytes()
        refused = call("distill", run, *more, *places, *words, "--set", "run.images=7")
        assert "has a checkpoint already; go on with --resume" in str(refused.exception)
        assert (run / "config.toml").read_bytes() == config, "left as it was"
        again = call("distill", run, *more, *places, *words, "--resume", "--set", "run.images=8")
        assert again.exit_code == 0, (again.output, again.exception)
    failed = call("distill", trained / "none", *places, *words)
    assert "distillation needs a teacher" in str(failed.exception)


def test_pix2pix_from_pairs(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path / "pairs")
    network = {"network__generator": "unet", "network__arguments": {"ngf": 4, "depth": 5}}
    words = settings(
        run__images=8, run__decay_images=4, data__preprocess="resize_and_crop", data__load_size=36
    )
    more = [
        w
        for key, value in network.items()
        for w in ("--set", f"{key.replace('__', '.')}={toml_value(value)}")
    ]
    assert call("init", tmp_path / "run", "--pairs", pairs, *words, *more).exit_code == 0
    result = call("run", tmp_path / "run", "--ablation", "l1-alone", "--set", "watch.metrics_every=4")
    assert result.exit_code == 0, (result.output, result.exception)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [set(line["losses"]) for line in lines if line["kind"] == "losses"] == [{"l1"}] * 8
    assert all({"l1", "truth_ssim"} <= line.keys() for line in lines if line["kind"] == "metrics")
    grid = read_image(tmp_path / "run" / "samples" / "gen_ab-000000008.png")
    assert grid.shape[1] == 3 * 64, "source, result, truth"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", "{tmp}/none"], 2, "no config.toml there"),
        (["resume", "{tmp}/run"], 3, "no checkpoint there"),
        (["init", "{tmp}/run", "--a", "{tmp}/a", "--b", "{tmp}/b"], 4, "exists already"),
        (["init", "{tmp}/new", "--a", "{tmp}/a"], 2, "no pictures named"),
        (["init", "{tmp}/new", "--a", "{tmp}/a", "--b", "{tmp}/gone"], 2, "no such folder"),
        (
            ["init", "{tmp}/new", "--a", "{tmp}/a", "--b", "{tmp}/b", "--method", "gann"],
            2,
            "unknown method 'gann'",
        ),
        (["init", "{tmp}/new", "--a", "{tmp}/a", "--b", "{tmp}/b", "--recipe", "x"], 2, "no recipe 'x'"),
        (["init", "{tmp}/new", "--pairs", "{tmp}/a", "--a", "{tmp}/a"], 2, "give --pairs, or --a and --b"),
        (["init", "{tmp}/new", "--a", "{tmp}/a/000.png", "--b", "{tmp}/b"], 2, "is a file, neither a folder"),
        (["init", "{tmp}/new", "--a", "{tmp}/run", "--b", "{tmp}/b"], 2, "no readable pictures; at least 2"),
        (
            ["evaluate", "identity", "--source", "{tmp}/a", "--target", "{tmp}/b", "--device", "tpu"],
            2,
            "unknown device 'tpu'",
        ),
        (["run", "{tmp}/run", "--set", "run.batch"], 2, "write SECTION.KEY=VALUE"),
        (["run", "{tmp}/run", "--set", "run.device=cuda:99"], 2, "CUDA"),
        (["run", "{tmp}/run", "--ablation", "half"], 2, "loss.ablation must be one of"),
        (["evaluate", "nosuchmodel", "--source", "{tmp}/a", "--target", "{tmp}/b"], 3, "no model named"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_mistakes_are_one_line_with_their_exit_code(
    tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    make_domain(tmp_path / "a", True, 4)
    make_domain(tmp_path / "b", False, 4)
    assert (
        call("init", tmp_path / "run", "--a", tmp_path / "a", "--b", tmp_path / "b", *settings()).exit_code
        == 0
    )
    result = call(*(word.format(tmp=tmp_path) for word in words))
    assert isinstance(result.exception, CgconvertError), result.output
    assert result.exception.exit_code == code
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)


def test_the_module_turns_errors_into_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer", "run", str(tmp_path / "none")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_help_needs_no_torch() -> None:
    code = "import sys, trainer.cli; assert not {'torch', 'cv2', 'av', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    for command in ("init", "run", "resume", "export", "evaluate", "sample", "distill"):
        result = call(command, "--help")
        assert result.exit_code == 0
        assert "Usage" in result.output


def test_a_mean_of_checkpoints(trained: Path) -> None:
    run, other, target = trained / "run", trained / "other.pt", trained / "mean.safetensors"
    state = load_checkpoint(run / "checkpoint.pt")
    own = {key: value.clone() for key, value in state["method"]["ema"]["weights"]["gen_ab"].items()}
    for weights in state["method"]["ema"]["weights"].values():
        for tensor in weights.values():
            tensor.add_(0.25)
    save_checkpoint(other, state)
    done = call("export", run, target, "--generator", "gen_ab", "--average", other, "--precision", "fp32")
    assert done.exit_code == 0, done.output
    model = load_model(target)
    assert model.card.training["mean_of_checkpoints"] == 2
    for key, value in model.generator.state_dict().items():
        assert torch.allclose(value, own[key] + 0.125, atol=1e-6), key
    mostly = trained / "mostly.safetensors"
    options = ("--generator", "gen_ab", "--average", other, "--average-share", "0.8", "--precision", "fp32")
    assert call("export", run, mostly, *options).exit_code == 0
    for key, value in load_model(mostly).generator.state_dict().items():
        assert torch.allclose(value, own[key] + 0.2, atol=1e-6), key
    alone = call("export", run, trained / "no.safetensors", "--generator", "gen_ab", "--average-share", "0.5")
    assert isinstance(alone.exception, UsageError) and "--average" in str(alone.exception)
    state["method"]["ema"]["weights"]["gen_ab"].pop(next(iter(own)))
    save_checkpoint(other, state)
    refused = call("export", run, trained / "no.safetensors", "--generator", "gen_ab", "--average", other)
    assert isinstance(refused.exception, UsageError)
    assert "only equal networks have a mean" in str(refused.exception)
    assert not (trained / "no.safetensors").exists()


def test_export_replaces_nothing_in_silence(trained: Path) -> None:
    model = trained / "kept.safetensors"
    words = ("export", trained / "run", model, "--generator", "gen_ab")
    assert call(*words).exit_code == 0
    before = model.read_bytes()
    refused = call(*words, "--title", "another")
    assert isinstance(refused.exception, OutputError)
    assert str(refused.exception) == f"{model} exists already: use `overwrite` to replace it"
    assert model.read_bytes() == before
    assert call(*words, "--title", "another", "--overwrite").exit_code == 0
    assert model.read_bytes() != before
