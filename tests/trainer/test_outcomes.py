"""What becomes of a run: its best checkpoints, its model files, its figures, a student of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cgconvert.engines.keys import weights_sha256
from cgconvert.errors import CgconvertError, UsageError
from cgconvert.models.loading import load_model
from tests.trainer.conftest import SMALL, draw, make_pairs, save, write_run
from tests.trainer.test_commands import call, settings
from tests.trainer.test_metrics import Statistics
from trainer.cli import _print_table
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.data.pictures import read_image
from trainer.exporting.export import export_model
from trainer.methods import build_method
from trainer.methods.distill import Distill
from trainer.metrics.evaluate import EvaluateOptions, evaluate
from trainer.reporting.watch import Watch
from trainer.runs.setup import completed
from trainer.runs.start import start
from trainer.storage.checkpoint import load_checkpoint, save_checkpoint
from trainer.storage.folder import RunFolder

SHORT = {"run.images": 4, "run.decay_images": 2}


@pytest.fixture
def finished(tmp_path: Path, domains: dict[str, str]) -> RunFolder:
    """A finished CycleGAN of four images."""
    folder = RunFolder(write_run(tmp_path / "run", {**domains, **SHORT}))
    start(folder)
    return folder


def test_the_best_of_each_generator_is_kept(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # gen_ab is best after two images, gen_ba after four.
    scores = {"gen_ab": {2: 1.0, 4: 2.0, 6: 3.0}, "gen_ba": {2: 5.0, 4: 3.0, 6: 4.0}}

    def metrics(self: Watch, name: str) -> dict[str, Any]:
        return {"swd": scores[name][self._method.images_seen]}

    monkeypatch.setattr(Watch, "_metrics", metrics)
    length = {"run.images": 6, "run.decay_images": 2, "watch.metrics_every": 2}
    folder = RunFolder(write_run(tmp_path / "run", {**domains, **length}))
    start(folder)
    for generator, images in (("gen_ab", 2), ("gen_ba", 4)):
        target = tmp_path / f"{generator}.safetensors"
        done = call("export", folder.path, target, "--generator", generator, "--best")
        assert done.exit_code == 0, done.exception
        model = load_model(target)
        assert model.card.training["images_seen"] == images
        picture = Path(domains["data.a"]) / "000.png"
        shown = call(
            "sample", folder.path, picture, "-o", tmp_path / "x.png", "--best", "--generator", generator
        )
        assert shown.exit_code == 0, shown.exception
        # The model file's weights are half as precise.
        result, wanted = read_image(tmp_path / "x.png")[:48, 48:], model.convert(read_image(picture))
        assert np.abs(result.astype(int) - wanted).max() <= 1
        last = call("sample", folder.path, picture, "-o", tmp_path / "y.png", "--generator", generator)
        assert last.exit_code == 0
        assert not np.array_equal(read_image(tmp_path / "y.png")[:48, 48:], result)
    folder.best_of("gen_ab").unlink()  # a run from before there was one
    refused = call("export", folder.path, tmp_path / "x.safetensors", "--generator", "gen_ab", "--best")
    assert isinstance(refused.exception, UsageError)
    assert "best.pt: is the best for gen_ba, and there is no best-gen_ab.pt" in str(refused.exception)


def test_a_run_of_joined_pairs_is_calibrated_by_its_halves(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path / "pairs")
    run = write_run(tmp_path / "run", {"data.pairs": str(pairs), "run.method": "pix2pix", **SHORT})
    start(RunFolder(run))
    joined = [read_image(path) for path in sorted(pairs.iterdir())]
    truth = np.mean([picture[:, 48:].mean((0, 1)) for picture in joined], axis=0)
    means = {}
    for name in ("plain", "calibrated"):
        target = tmp_path / f"{name}.safetensors"
        export_model(run / "checkpoint.pt", target, calibrated=name == "calibrated")
        model = load_model(target)
        means[name] = np.mean([model.convert(p[:, :48]).mean((0, 1)) for p in joined], axis=0)
    assert np.abs(means["calibrated"] - truth).max() < 6
    assert np.abs(means["plain"] - truth).max() > 20


def test_models_of_one_name_have_a_row_each(
    tmp_path: Path, finished: RunFolder, domains: dict[str, str]
) -> None:
    models = [str(tmp_path / way / "model.safetensors") for way in ("gen_ab", "gen_ba")]
    for way, model in zip(("gen_ab", "gen_ba"), models, strict=True):
        Path(model).parent.mkdir()
        export_model(finished.checkpoint, Path(model), way)
    options = EvaluateOptions(32, 32)
    table = evaluate(models, domains["data.a"], domains["data.b"], options)
    assert list(table.rows) == [*models, "unchanged", "colour transfer"]
    alone = evaluate(models[:1], domains["data.a"], domains["data.b"], options)
    assert table.rows[models[0]]["swd"] == alone.rows[models[0]]["swd"] != table.rows[models[1]]["swd"]


def test_pairs_are_matched_by_name_before_they_are_thinned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    random = np.random.default_rng(0)
    pictures = [draw(random, True) for _ in range(9)]
    for index, picture in enumerate(pictures):
        for domain, there in (("a", index < 7), ("b", index > 1), ("other", True)):
            if there:
                save(tmp_path / domain / f"{'x' * (domain == 'other')}{index}.png", picture)
    a, b, other = (str(tmp_path / domain) for domain in ("a", "b", "other"))
    table = evaluate(["identity"], a, b, EvaluateOptions(48, 48, count=2), paired=True)
    assert table.rows["identity"]["l1"] == 0, "each beside its own truth"
    assert (table.sources, table.targets) == (2, 2)
    with pytest.raises(
        UsageError, match=r"no file name is in both folders, and there are 7 pictures in .*, 9 in"
    ):
        evaluate(["identity"], a, other, EvaluateOptions(48, 48, count=2), paired=True)
    save(tmp_path / "b" / "2.png", pictures[2][:40])
    with pytest.raises(UsageError, match=r"a/2\.png and .*b/2\.png differ in shape"):
        evaluate(["identity"], a, b, EvaluateOptions(48, 48), paired=True)


def distilled(tmp_path: Path, domains: dict[str, str], **changes: Any) -> RunFolder:
    start_settings = {**domains, **SHORT, "run.method": "distill", **changes}
    return RunFolder(write_run(tmp_path / "student", start_settings))


@pytest.mark.parametrize("online", [False, True])
def test_a_teacher_that_went_on_is_not_taken_for_the_one_before(
    tmp_path: Path, finished: RunFolder, domains: dict[str, str], online: bool
) -> None:
    teacher = {"distill.checkpoint": str(finished.path), "distill.online": online}
    student = distilled(tmp_path, domains, **teacher)
    start(student)
    start(finished, {"run.decay_images": 1}, resume=True)  # its file is another, its weights are the same
    start(student, {"run.images": 5}, resume=True)
    state = load_checkpoint(finished.checkpoint)
    for weights in state["method"]["ema"]["weights"].values():
        next(iter(weights.values())).add_(0.01)
    save_checkpoint(finished.checkpoint, state)
    if online:  # this teacher's state is part of the student's
        start(student, {"run.images": 6}, resume=True)
        return
    with pytest.raises(UsageError, match=r"run: is no longer the teacher .*SHA-256 .* put that one back"):
        start(student, {"run.images": 6}, resume=True)
    assert load_checkpoint(student.checkpoint)["method"]["images_seen"] == 5


def test_a_fingerprint_is_of_names_and_values() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    first = weights_sha256(network)
    assert re.fullmatch(r"[0-9a-f]{64}", first)
    assert weights_sha256(network) == first
    network[1].running_mean[1] += 1e-7
    assert weights_sha256(network) != first


def test_a_teachers_place_does_not_depend_on_where_one_stands(
    tmp_path: Path, finished: RunFolder, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(finished.checkpoint, tmp_path / "big.safetensors", "gen_ab")
    monkeypatch.chdir(tmp_path)
    words = settings(**{key.replace(".", "__"): value for key, value in SHORT.items()})
    places = ["--a", domains["data.a"], "--b", domains["data.b"]]
    done = call("distill", "tiny", "--teacher", "./big.safetensors", *places, *words)
    assert done.exit_code == 0, (done.output, done.exception)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    folder = RunFolder(tmp_path / "tiny")
    assert folder.read_config().distill.teacher == str(tmp_path / "big.safetensors")
    start(folder, {"run.images": 5}, resume=True)
    made = call("init", "named", "--method", "distill", *places, "--set", "distill.teacher=identity")
    assert made.exit_code == 0, made.exception
    assert RunFolder(Path("named")).read_config().distill.teacher == "identity", "a name stays one"
    missing = call("distill", "none", "--teacher", "./gone.safetensors", *places)
    assert isinstance(missing.exception, CgconvertError)
    assert not Path("none").exists()


def test_distill_goes_on_only_with_what_it_began_with(
    tmp_path: Path, finished: RunFolder, domains: dict[str, str]
) -> None:
    teacher = tmp_path / "big.safetensors"
    export_model(finished.checkpoint, teacher, "gen_ab")
    words = settings(**{key.replace(".", "__"): value for key, value in SHORT.items()})
    places = ["--a", domains["data.a"], "--b", domains["data.b"]]
    run = tmp_path / "tiny"
    made = call("init", run, "--method", "distill", *places, "--set", f"distill.teacher={teacher}", *words)
    assert made.exit_code == 0, made.exception
    config = (run / "config.toml").read_bytes()
    other = ("distill", run, "--teacher", "identity", *places)
    for more in ((), ("--resume",)):
        refused = call(*other, *more)
        assert isinstance(refused.exception, UsageError)
        assert str(refused.exception) == (
            f"{run / 'config.toml'}: has distill.teacher = '{teacher}', asked for is 'identity'; "
            "leave that out, or take another folder"
        )
    done = call("distill", run, "--teacher", teacher, *places)
    assert done.exit_code == 0, (done.output, done.exception)
    for words, key in (
        (("--student", "mobile"), "network.generator"),
        (("--a", tmp_path), "data.a"),
        (("--teacher-run", finished.path), "distill.checkpoint"),
    ):
        refused = call("distill", run, "--resume", *words)
        assert f"config.toml: has {key} = " in str(refused.exception)
    assert (run / "config.toml").read_bytes() == config, "left as it was"
    refused = call("distill", finished.path, "--resume", "--teacher", teacher)
    assert "has run.method = 'cyclegan', asked for is 'distill'" in str(refused.exception)
    again = call("distill", run, "--resume", "--teacher", teacher, *places, "--set", "run.images=5")
    assert again.exit_code == 0, (again.output, again.exception)
    assert load_checkpoint(run / "checkpoint.pt")["method"]["images_seen"] == 5


def test_a_teacher_in_a_config_is_relative_to_the_config(
    tmp_path: Path, finished: RunFolder, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(finished.checkpoint, tmp_path / "big.safetensors", "gen_ab")
    monkeypatch.chdir(tmp_path.parent)
    for name, key, place in (
        ("file", "distill.teacher", "../big.safetensors"),
        ("of-run", "distill.checkpoint", "../run"),
    ):
        changes = {**domains, **SHORT, "run.method": "distill", key: place, "loss.temporal": 0.0}
        write_run(tmp_path / name, changes)
        assert start(RunFolder(tmp_path / name)).method.images_seen == 4
        kept = load_checkpoint(tmp_path / name / "checkpoint.pt")["config"]["distill"]
        assert kept[key.split(".")[1]] == str((tmp_path / name / place).resolve())


def test_a_best_checkpoint_that_is_not_there_yet_is_one_line(tmp_path: Path, finished: RunFolder) -> None:
    for path in finished.path.glob("best*.pt"):
        path.unlink()
    failed = call("export", finished.path, tmp_path / "x.safetensors", "--best", "--generator", "gen_ba")
    assert str(failed.exception) == (
        f"{finished.path}: has no best.pt: nothing was measured yet (watch.metrics_every); leave `best` out"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--video", "gone.mp4"), "gone.mp4: no such video"),
        (("--frames", 1), "1 is not in the range x>=2"),
        (("--video-size", 8), "8 is not in the range x>=32"),
    ],
)
def test_a_video_that_makes_no_sense_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...], message: str
) -> None:
    monkeypatch.setattr("trainer.metrics.evaluate.evaluate", lambda *rest: pytest.fail("measured"))
    failed = call("evaluate", "identity", "--source", "a", "--target", "b", *words)
    assert message in failed.output + str(failed.exception)


@pytest.mark.parametrize(("crop", "blocks"), [(64, 6), (128, 6), (132, 9), (256, 9)])
def test_a_resnet_gets_its_papers_blocks_at_init(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch, crop: int, blocks: int
) -> None:
    monkeypatch.setattr("trainer.runs.rate.measure_rate", lambda config, quick: 1.0)
    words = ["--a", domains["data.a"], "--b", domains["data.b"], "--set", f"data.crop_size={crop}"]
    assert call("init", tmp_path / "run", *words).exit_code == 0
    assert RunFolder(tmp_path / "run").read_config().network.arguments == {"blocks": blocks}


def test_blocks_that_are_given_stay() -> None:
    def arguments(**changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        given = {key.replace("__", "."): value for key, value in changes.items()}
        net = completed(Config().with_changes({"data.crop_size": 128, **given})).network
        return net.arguments, net.reverse_arguments

    assert arguments(network__arguments={"blocks": 4, "ngf": 8}) == ({"blocks": 4, "ngf": 8}, {})
    assert arguments(network__arguments={"ngf": 8}) == ({"ngf": 8, "blocks": 6}, {})
    assert arguments(network__generator="h2", network__reverse_generator="resnet") == ({}, {"blocks": 6})


def test_kid_and_fid_name_what_they_were_measured_with(
    tmp_path: Path, domains: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "features.pt"
    torch.jit.script(Statistics()).save(str(file))
    folder = RunFolder(write_run(tmp_path / "run", {**domains, **SHORT, "watch.inception": str(file)}))
    start(folder)
    line = next(
        line for line in folder.lines() if line["kind"] == "metrics" and line["generator"] == "gen_ab"
    )
    assert line["reference"] == "2 hold-out pictures of b"
    checksum = line["inception"]
    assert len(checksum) == 64
    report = folder.report.read_text()
    assert f"<td>2 hold-out pictures of b</td><td>{checksum}</td>" in report
    assert f"<td>{line['fid']:.4g}</td>" in report
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", report)
    for name in ("kid", "fid"):
        (caption,) = [text for text in captions if f"<b>{name}</b>" in text]
        assert caption.endswith(
            "lower is nearer; gen_ab against 2 hold-out pictures of b; "
            f"gen_ba against 2 hold-out pictures of a; Inception SHA-256 {checksum}"
        )
    options = EvaluateOptions(32, 32, inception=str(file))
    _print_table(evaluate(["identity"], domains["data.a"], domains["data.b"], options), {})
    assert f"KID and FID against {domains['data.b']}, Inception SHA-256 {checksum}" in "".join(
        capsys.readouterr().out.splitlines()
    )


def test_a_student_of_a_file_has_its_fingerprint_too(tmp_path: Path, finished: RunFolder) -> None:
    export_model(finished.checkpoint, tmp_path / "big.safetensors", "gen_ab")
    changes = {**SMALL, "run.method": "distill", "distill.teacher": str(tmp_path / "big.safetensors")}
    method = build_method(Config().with_changes(changes), Precision(torch.device("cpu"), "fp32"))
    assert isinstance(method, Distill)
    assert method.state_dict()["teacher_sha256"] == weights_sha256(method.teacher.generator)
    assert json.dumps(method.state_dict()["teacher_sha256"])
