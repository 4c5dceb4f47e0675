"""`cgconvert models`: what it prints, its exit codes, and that listing needs no torch."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cgconvert.cli import main
from cgconvert.models.catalog import installed_path, models_folder
from tests.models import reference_networks as reference

HEAVY = {"torch", "numpy", "cv2", "av", "rich", "safetensors"}
PROBE = """
import sys
from cgconvert.cli import main
try:
    main(sys.argv[1:])
except SystemExit as leave:
    print(sorted(set(sys.modules) & {heavy!r}), leave.code, file=sys.stderr)
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "latest_net_G.pth"
    torch.save(reference.resnet(norm="batch").state_dict(), path)
    return path


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `cgconvert models ...`."""
    with pytest.raises(SystemExit) as leave:
        main(["models", *map(str, words)])
    out, err = capsys.readouterr()
    return int(leave.value.code or 0), out, err


def test_import_list_info_path_remove(capsys: pytest.CaptureFixture[str], checkpoint: Path) -> None:
    words = ("import", checkpoint, "--name", "clay", "--title", "Clay", "--domains", "photo, clay")
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "latest_net_G.pth: ResNet, 3 blocks, ngf 8, batch norm, 69.7 k parameters",
        "  batch norm uses its running statistics, as the original does with --eval",
        f"Installed as clay: {installed_path('clay')}",
    ]
    code, out, err = run(capsys, "list")
    assert (code, err) == (0, "")
    heading, first, *_ = out.splitlines()
    assert heading.split() == ["NAME", "LOOK", "NETWORK", "FILE", "FROM"]
    assert first.startswith("clay ")
    assert "photo -> clay" in first
    assert "ResNet, 3 blocks" in first
    assert first.index("photo") == heading.index("LOOK")  # aligned
    assert any(line.startswith("identity ") and line.endswith("shipped") for line in out.splitlines())
    code, out, _ = run(capsys, "info", "clay")
    lines = dict(line.split("  ", 1) for line in out.splitlines())
    assert code == 0
    assert lines["title"].strip() == "Clay"
    assert lines["parameters"].strip() == "69.7 k"
    assert lines["training: imported_from"].strip() == "latest_net_G.pth"
    assert lines["picture size"].strip() == "padded to multiples of 4, at least 16 pixels"
    assert run(capsys, "path", "clay") == (0, f"{installed_path('clay')}\n", "")
    assert run(capsys, "path") == (0, f"{models_folder()}\n", "")
    assert run(capsys, "remove", "clay") == (0, f"Removed {installed_path('clay')}\n", "")
    assert not installed_path("clay").exists()


def test_json(capsys: pytest.CaptureFixture[str], checkpoint: Path) -> None:
    run(capsys, "import", checkpoint, "--name", "clay")
    installed_path("broken").write_bytes(b"junk")
    code, out, _ = run(capsys, "list", "--json")
    models = {entry["name"]: entry for entry in json.loads(out)}
    assert code == 0
    assert models["clay"]["card"]["arguments"]["norm"] == "batch"
    assert models["clay"]["path"] == str(installed_path("clay"))
    assert models["broken"]["card"] is None
    assert "cut short" in models["broken"]["problem"]
    code, out, _ = run(capsys, "info", "clay", "--json")
    card = json.loads(out)
    assert card["architecture"] == "resnet"
    assert card["parameters"] == sum(p.numel() for p in reference.resnet(norm="batch").parameters())
    assert card["file_bytes"] == installed_path("clay").stat().st_size


def test_an_unreadable_model_is_listed_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    models_folder().mkdir(parents=True)
    installed_path("broken").write_bytes(b"junk")
    installed_path("dangling").symlink_to("nowhere")
    code, out, err = run(capsys, "list")
    assert code == 0
    assert "dangling" in out
    assert "broken" in out
    assert "unreadable" in out
    assert err.startswith("Warning: ")
    code, _, err = run(capsys, "info", "broken")
    assert code == 3
    assert "cut short" in err


def test_tables_on_a_terminal(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(capsys, "import", checkpoint, "--name", "clay", "--title", "[red]not markup")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    code, out, _ = run(capsys, "list")
    assert code == 0
    assert "───" in out
    assert "clay" in out
    _, out, _ = run(capsys, "info", "clay")
    assert "[red]not markup" in out


def test_exit_codes_and_messages(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, tmp_path: Path
) -> None:
    run(capsys, "import", checkpoint, "--name", "clay")
    evil = tmp_path / "evil.pth"
    torch.save(torch.nn.ReLU(), evil)
    cases = [
        (("import", checkpoint, "--name", "clay"), 4, "there is a model 'clay' already"),
        (("import", checkpoint, "--name", "identity"), 4, "is a model shipped with cgconvert"),
        (("import", checkpoint, "--name", "a b"), 3, "cannot be a model's name"),
        (("import", checkpoint), 2, "Missing option '--name'"),
        (("import", checkpoint, "--name", "x", "--domains", "photo"), 2, "not of the form SOURCE,TARGET"),
        (("import", tmp_path / "none.pth", "--name", "x"), 3, "no such file"),
        (("import", evil, "--name", "x"), 3, "refused: it is a whole pickled network"),
        (("info", "cley"), 3, "no model named 'cley'; did you mean clay? (known: clay, identity"),
        (("path", "cley"), 3, "did you mean clay?"),
        (("remove", "cley"), 3, "did you mean clay?"),
        (("remove", "identity"), 2, "is shipped with cgconvert"),
        (("lst",), 2, "No such command 'lst'"),
    ]
    for words, wanted, message in cases:
        code, out, err = run(capsys, *words)
        assert (code, out) == (wanted, ""), words
        assert message in err
        assert err.count("\n") == 1 or code == 2  # click adds the usage to its own
    assert [path.name for path in models_folder().iterdir()] == ["clay.safetensors"]


def test_a_full_disk_leaves_nothing(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    code, _, err = run(capsys, "import", checkpoint, "--name", "clay")
    assert code == 4
    assert "disk full" in err
    assert not list(models_folder().iterdir())


def test_removing_uncovers_the_shipped_model(capsys: pytest.CaptureFixture[str], checkpoint: Path) -> None:
    run(capsys, "import", checkpoint, "--name", "identity", "--overwrite")
    code, out, _ = run(capsys, "remove", "identity")
    assert code == 0
    assert "identity now means the shipped model again" in out


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["models", "--help"],
        ["models", "list"],
        ["models", "list", "--json"],
        ["models", "info", "identity"],
    ],
)
def test_answers_at_once_and_without_torch(words: list[str]) -> None:
    command = [sys.executable, "-c", PROBE.replace("{heavy!r}", repr(HEAVY)), *words]
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.stderr.splitlines()[-1] == "[] 0", done.stderr
        # Processor time, which other programs on the machine do not lengthen much.
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(seconds) < 0.3
