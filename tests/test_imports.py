"""Imports go down the levels only, and each heavy library is imported in one package only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LEVELS = [
    {"cgconvert.errors"},
    {"cgconvert.options", "cgconvert.progress", "cgconvert.frames", "cgconvert.card"},
    {"cgconvert.sizes", "cgconvert.finish", "cgconvert.dither"},
    {"cgconvert.host"},
    {"cgconvert.generators", "cgconvert.media", "cgconvert.tensors"},
    {"cgconvert.models"},
    {"cgconvert.scale"},
    {"cgconvert.engines"},
    {"cgconvert.video", "cgconvert.pictures", "cgconvert.doctor", "cgconvert.arrays", "cgconvert.live"},
    {"cgconvert.preview", "cgconvert.cluster"},
    {"cgconvert.ui"},
    {"cgconvert"},
    {"cgconvert.cli"},
    {"trainer.config"},
    {"trainer.compute", "trainer.storage"},
    {"trainer.networks"},
    {"trainer.losses"},
    {"trainer.data"},
    {"trainer.metrics", "trainer.methods"},
    {"trainer.reporting", "trainer.exporting"},
    {"trainer.runs"},
    {"trainer.learn"},
    {"trainer.cli", "trainer.cli_learn"},
    {"cgconvert.__main__", "trainer.__main__", "trainer"},
]
"""From the ground up: a room imports those of lower levels only, and none beside it."""

ONLY_IN = {
    "av": ("cgconvert/media/",),
    "cv2": ("cgconvert/media/",),
    "ray": ("cgconvert/cluster/",),
    "torch_tensorrt": ("cgconvert/engines/tensorrt",),
    "openvino": ("cgconvert/engines/openvino",),
    "onnxruntime": ("cgconvert/generators/foreign", "cgconvert/engines/exporting"),
    "onnx": ("cgconvert/generators/foreign", "cgconvert/models/graphs", "cgconvert/engines/exporting"),
    "click": ("cgconvert/cli/", "trainer/cli"),
}


def modules() -> list[Path]:
    return sorted([*(ROOT / "cgconvert").rglob("*.py"), *(ROOT / "trainer").rglob("*.py")])


def imported(path: Path) -> list[str]:
    """Full names of what a file imports, but for what only type checkers see."""
    names: list[str] = []
    tree = ast.parse(path.read_text())
    hidden = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def room_of(name: str) -> str | None:
    """The room of a module or of a name in it: its longest prefix in `LEVELS`.

    A package's own root is a room for what is defined in its `__init__` only.
    """
    parts = name.split(".")
    for size in range(len(parts), 0, -1):
        prefix = ".".join(parts[:size])
        if any(prefix in rooms for rooms in LEVELS):
            return prefix if size > 1 or len(parts) <= 2 else None
    return None


def level(room: str) -> int:
    return next(number for number, rooms in enumerate(LEVELS) if room in rooms)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    own = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    mine = room_of(own)
    for name in imported(path):
        if not name.startswith(("cgconvert", "trainer")):
            continue
        assert not (own.startswith("cgconvert") and name.startswith("trainer")), f"{own} imports {name}"
        theirs = room_of(name)
        if mine is None or theirs is None or mine == theirs:
            continue
        assert level(theirs) < level(mine), (
            f"{own} (level {level(mine)}) imports {name} (level {level(theirs)})"
        )


def test_every_room_of_the_trainer_has_a_level() -> None:
    listed = {room for rooms in LEVELS for room in rooms}
    for path in (ROOT / "trainer").iterdir():
        if path.suffix == ".py" or (path / "__init__.py").exists():
            name = "trainer" if path.stem == "__init__" else f"trainer.{path.stem}"
            assert name in listed, f"{name} is in no level"


@pytest.mark.parametrize("library", ONLY_IN)
def test_libraries_stay_in_their_rooms(library: str) -> None:
    for path in modules():
        relative = str(path.relative_to(ROOT))
        if relative.startswith(ONLY_IN[library]):
            continue
        used = [name for name in imported(path) if name.split(".")[0] == library]
        assert not used, f"{relative} imports {used}"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["models", "list"], ["video", "--help"], ["dir", "--help"], ["train", "--help"]]
)
def test_light_commands_import_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from cgconvert.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as leave: print('code', leave.code or 0, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "code 0 False", done.stderr
