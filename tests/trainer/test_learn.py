"""`cgconvert learn`: from a folder of pictures to an installed model, in some seconds."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cgconvert.cli import cgconvert
from cgconvert.cli.wording import worded
from cgconvert.errors import Interrupted, ModelError, OutputError, UsageError
from cgconvert.media.picture.codec import read_picture
from cgconvert.models.files import read_card
from cgconvert.models.loading import load_model
from cgconvert.progress import Silent
from tests.trainer.conftest import H2_TINY, draw, make_domain, save
from tests.video.clips import Clip, make_clip
from trainer.config import Config
from trainer.learn import plan as planning
from trainer.learn import run as running
from trainer.learn import watch as watching
from trainer.learn.plan import LearnPlan, expectation, name_of, plan_learning, scales, schedule, settings
from trainer.methods.one_sided import OneSided
from trainer.metrics.light import flat_light_error
from trainer.runs.setup import DEFAULTS
from trainer.storage.checkpoint import load_checkpoint

IMAGES = 8


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A home of its own, networks of a second, and a machine that is always as fast."""
    monkeypatch.setenv("CGCONVERT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(running, "measure_rate", lambda config: 1.0)
    monkeypatch.setattr(running, "LEAST_IMAGES", IMAGES)
    monkeypatch.setattr(running, "FRAMES", 3)
    monkeypatch.setattr(watching, "EARLIEST", 2.0)  # the tests' machine may be as slow as it likes
    tiny = {
        "run.batch": 2,
        "run.threads": 1,
        "data.crop_size": 64,
        "network.arguments": H2_TINY | {"norm": "batch"},
        "network.ndf": 4,
    }
    monkeypatch.setitem(DEFAULTS, "one_sided", DEFAULTS["one_sided"] | tiny)
    yield


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Twelve warm pictures, the paintings, and eight cold ones, the photographs."""
    paintings = make_domain(tmp_path / "My paintings!", True, 12, (96, 80))
    return paintings, make_domain(tmp_path / "photos", False, 8, (96, 80))


class Notes(Silent):
    """Progress that remembers its notes and how far it came."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.total: int | None = None
        self.done: list[int] = []

    def note(self, line: str) -> None:
        self.notes.append(line)

    def begin(self, task: str, total: int | None, unit: str) -> None:
        self.total = total

    def advance(self, done: int, busiest: str | None = None) -> None:
        self.done.append(done)


def planned(folders: tuple[Path, Path], **changes: Any) -> LearnPlan:
    asked: dict[str, Any] = {
        "video": None,
        "photos": folders[1],
        "name": None,
        "minutes": 0.1,
        "go_on": False,
        "restart": False,
        "device": "cpu",
    }
    return plan_learning(folders[0], **asked | changes)


def test_a_folder_of_pictures_becomes_a_model(folders: tuple[Path, Path]) -> None:
    progress = Notes()
    result = running.learn(planned(folders), progress)
    assert result.model.name == "My-paintings.safetensors"
    assert result.images == IMAGES
    card = read_card(result.model)
    assert (card.source_domain, card.target_domain) == ("photo", "My-paintings")
    assert card.title == "My-paintings, learned from 12 pictures"
    assert card.noise == {"channels": 2, "seed": 0}
    assert card.arguments["norm"] == "none"
    assert card.work_size == 360
    picture = draw(np.random.default_rng(3), False, (50, 70))
    assert load_model("My-paintings").convert(picture).shape == picture.shape
    assert progress.total == IMAGES and progress.done[-1] == IMAGES
    assert any("12 pictures are few" in note for note in progress.notes)
    assert any("that is little" in note for note in progress.notes)
    assert [figure.split(":")[0] for figure in result.figures] == ["texture", "light"]
    preview = read_picture(result.preview).pixels
    columns = sorted((result.preview.parent / "preview").iterdir())
    # Two sources are held back; each column, and the sources beside them, are 80 pixels wide with a gap of 4.
    assert preview.shape[0] == 2 * (96 + 2)
    assert preview.shape[1] == (1 + len(columns)) * (80 + 4)
    assert columns[-1].stem == f"{IMAGES:09d}"


def test_a_look_for_a_video_is_measured_on_it(folders: tuple[Path, Path], tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "holiday.mp4", Clip(frames=6))
    plan = planned(folders, video=clip, photos=None, name="holiday")
    result = running.learn(plan, Silent())
    assert [figure.split(":")[0] for figure in result.figures] == ["texture", "light", "steadiness"]
    assert read_card(result.model).source_domain == "video"
    assert plan.command == (f"cgconvert learn {folders[0]} --for {clip} --name holiday --continue")


def test_learning_goes_on_for_more_minutes(folders: tuple[Path, Path]) -> None:
    first = running.learn(planned(folders), Silent())
    before = first.model.read_bytes()
    more = planned(folders, go_on=True)
    second = running.learn(more, Silent())
    assert second.images == 2 * IMAGES
    assert second.model.read_bytes() != before
    state = load_checkpoint(more.run / "checkpoint.pt")
    assert state["config"]["run"]["images"] == 2 * IMAGES
    assert state["config"]["run"]["decay_images"] == int(0.4 * IMAGES), "the rate starts high again"


def test_a_stopped_one_goes_on_to_its_end_exactly(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = running.learn(planned(folders, name="straight"), Silent())
    inner = OneSided.train_step

    def step(self: Any, batch: Any) -> Any:
        if self.images_seen == 4:
            signal.raise_signal(signal.SIGINT)
        return inner(self, batch)

    plan = planned(folders, name="stopped")
    with monkeypatch.context() as stopping:
        stopping.setattr(OneSided, "train_step", step)
        with pytest.raises(Interrupted) as stopped:
            running.learn(plan, Silent())
    assert str(stopped.value) == f"stopped after 6 images; go on with `{plan.command}`"
    assert not plan.model.exists()
    ended = running.learn(planned(folders, name="stopped", go_on=True, minutes=None), Silent())
    assert ended.images == IMAGES
    one, two = (load_checkpoint(path.parent / "checkpoint.pt") for path in (straight.preview, ended.preview))
    weights, others = (state["method"]["ema"]["weights"]["gen_ab"] for state in (one, two))
    assert all(bool((weights[key] == others[key]).all()) for key in weights)


def test_five_pictures_work_and_say_what_to_expect(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    few = make_domain(tmp_path / "few", True, 5, (96, 80))
    save(few / "text.png", np.zeros((4, 4), np.uint8)).write_bytes(b"not a picture")
    progress = Notes()
    result = running.learn(planned((few, folders[1])), progress)
    assert any("5 pictures are very few" in note for note in progress.notes)
    assert [figure.split(":")[0] for figure in result.figures] == ["light"], "none are held back"


def test_a_full_disk_is_one_line_that_says_how_to_go_on(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.runs import training

    saved = training.save_checkpoint

    def full(path: Path, state: dict[str, Any]) -> None:
        if state["method"]["images_seen"]:
            raise OutputError(f"cannot write {path}: No space left on device")
        saved(path, state)

    monkeypatch.setattr(training, "save_checkpoint", full)
    plan = planned(folders)
    with pytest.raises(OutputError) as raised:
        running.learn(plan, Silent())
    assert str(raised.value).endswith(f"the last checkpoint is whole, go on with `{plan.command}`")


def refuse(kind: type[Exception], message: str, folders: tuple[Path, Path], **changes: Any) -> None:
    with pytest.raises(kind) as raised:
        planned(folders, **changes)
    assert message in worded(str(raised.value))


def test_what_makes_no_sense_is_refused_before_anything_runs(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    refuse(UsageError, "say what the look is for: --for, whose own frames", folders, photos=None)
    refuse(UsageError, "say what the look is for", folders, video=tmp_path / "in.mp4")
    refuse(UsageError, "gone: is not there", folders, photos=tmp_path / "gone")
    refuse(UsageError, "is a folder; give it as --photos", folders, video=folders[1], photos=None)
    refuse(UsageError, "gone: is no folder of pictures", (tmp_path / "gone", folders[1]))
    refuse(UsageError, "nothing to continue: no look 'My-paintings'", folders, go_on=True)
    refuse(UsageError, "--continue keeps what was learned and --restart", folders, go_on=True, restart=True)
    refuse(
        ModelError,
        "there is a model 'photo2monet' already: choose another --name",
        folders,
        name="photo2monet",
    )
    refuse(ModelError, "cannot be a model's name", folders, name="a/b")
    with pytest.raises(UsageError, match=r"no readable pictures"):
        empty = tmp_path / "empty"
        empty.mkdir()
        running.learn(planned((empty, folders[1])), Silent())


def test_a_look_is_not_thrown_away_in_silence(folders: tuple[Path, Path]) -> None:
    running.learn(planned(folders), Silent())
    refuse(UsageError, "use --continue to continue, --restart to begin again, or another --name", folders)
    again = running.learn(planned(folders, restart=True), Silent())
    assert again.images == IMAGES


def test_settings_suit_sizes_and_numbers(folders: tuple[Path, Path]) -> None:
    plan = planned(folders)
    sixty = settings(plan, 60, on_gpu=False)
    assert sixty["data.scale_a"] == [0.6, 1.4] and sixty["data.scale_b"] == [1.0, 1.8], "96 pixels: as 256"
    assert sixty["data.holdout"] == 15 and sixty["loss.diffaugment"] == ["color", "translation"]
    assert "cutout" in settings(plan, 12, on_gpu=False)["loss.diffaugment"]
    assert settings(plan, 400, on_gpu=False)["loss.diffaugment"] == ["translation"]
    assert settings(plan, 5, on_gpu=False)["data.holdout_b"] == str(folders[0])
    assert settings(plan, 60, on_gpu=True)["data.crop_size"] == 192
    for changes in (sixty, settings(plan, 5, False), settings(plan, 400, True)):
        Config().with_changes(DEFAULTS["one_sided"] | changes | schedule(4000, 4))
    assert scales(1024, (1.0, 2.2)) == [0.25, 0.55]
    assert scales(100_000, (0.6, 1.4)) == [0.05, 0.05]
    assert scales(None, (0.6, 1.4)) == [0.6, 1.4]


def test_a_schedule_leaves_room_to_settle() -> None:
    first = schedule(4800, 4)
    assert (first["run.images"], first["run.decay_images"], first["network.ema"]) == (4800, 1920, 0.995)
    assert schedule(10_000, 4)["network.ema"] == 0.9976
    assert schedule(100_000, 4)["network.ema"] == 0.998
    assert schedule(16, 4)["network.ema"] == 0.9
    assert schedule(9600, 4, 4800)["run.decay_images"] == 1920


def test_sizes_are_read_from_headers(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert planning.short_edge(folders[0]) == 80
    clip = make_clip(tmp_path / "in.mp4", Clip(frames=2))
    assert planning.short_edge(clip) == 64
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"nothing")
    assert planning.short_edge(tmp_path / "broken") is None


def test_names_and_expectations(tmp_path: Path) -> None:
    assert name_of(Path("/x/Van Gogh (60)")) == "Van-Gogh-60"
    with pytest.raises(UsageError, match="no model can be called like that"):
        name_of(Path("/x/__"))
    assert expectation(60) is None and expectation(20) is None
    assert "few" in str(expectation(19)) and "very few" in str(expectation(5))


def test_the_preview_thins_old_columns(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "STAGES", tuple(index / 4 for index in range(1, 5)))
    monkeypatch.setattr(watching, "COLUMNS", 3)
    result = running.learn(planned(folders), Silent())
    assert len(list((result.preview.parent / "preview").iterdir())) == 4
    assert read_picture(result.preview).pixels.shape[1] == (1 + 3) * (80 + 4)


def test_the_length_is_fitted_to_a_machine_that_is_slower_than_it_was(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six seconds times 0.92 for 8 images were planned; at the first log line it makes one in 0.5 seconds."""
    clock = iter(range(1000))
    monkeypatch.setattr(watching.time, "monotonic", lambda: next(clock) / 2)
    monkeypatch.setattr(watching, "EARLIEST", 0.0)
    told: list[tuple[int, float]] = []

    def fit(self: Any, seen: int, speed: float) -> None:
        told.append((seen, self._seconds))
        inner(self, seen, 2.0)

    inner = watching.LearnWatch._fit
    monkeypatch.setattr(watching.LearnWatch, "_fit", fit)
    progress = Notes()
    result = running.learn(planned(folders), progress)
    seconds = told[0][1]
    # Two images took a second, by the speed that is told: so many are made in the seconds that were given.
    fitted = round(2 + 2 * (seconds - 1)) // 2 * 2
    assert progress.total == fitted == result.images != IMAGES
    state = load_checkpoint(result.preview.parent / "checkpoint.pt")
    assert state["config"]["run"]["decay_images"] == int(0.4 * fitted)
    lines = (result.preview.parent / "metrics.jsonl").read_text().splitlines()
    changed = next(line for line in map(json.loads, lines) if line["kind"] == "settings")
    assert changed["changed"]["run.images"] == [IMAGES, fitted]


def test_light_is_measured_on_flat_pictures() -> None:
    assert flat_light_error(lambda pixels: pixels) == 0.0
    assert flat_light_error(lambda pixels: np.full_like(pixels, 119)) == 136.0, "white"


def test_the_command_says_what_to_do_next(folders: tuple[Path, Path]) -> None:
    words = ["learn", str(folders[0]), "--photos", str(folders[1]), "--minutes", "0.1", "--device", "cpu"]
    result = CliRunner().invoke(cgconvert, words)
    assert result.exit_code == 0, (result.output, result.exception)
    lines = result.stdout.splitlines()
    assert lines[0].startswith("texture: ") and lines[1].startswith("light: ")
    assert lines[-2] == f"convert with it: cgconvert dir {folders[1]} --model My-paintings"
    assert lines[-1].startswith("learn on: cgconvert learn ")
    assert "preview, which grows: " in result.stderr
