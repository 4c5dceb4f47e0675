"""What is installed: the wheel, the source archive, and an editable install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("pyproject.toml", "README.md", "LICENSE", "cgconvert", "trainer")

pytest.importorskip("setuptools", minversion="77")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, in which building may leave what it likes."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    return copy


def built(checkout: Path, what: str, folder: Path) -> Path:
    """A file made by the build backend that pyproject.toml names, without the network."""
    folder.mkdir(parents=True, exist_ok=True)
    program = f"import setuptools.build_meta as b; print(b.{what}({str(folder)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=checkout, capture_output=True, text=True, check=True
    )
    return folder / done.stdout.strip().splitlines()[-1]


@pytest.mark.slow
def test_an_editable_install_is_a_path_that_type_checkers_follow(checkout: Path, tmp_path: Path) -> None:
    """With an import hook in its place, mypy finds no types."""
    with zipfile.ZipFile(built(checkout, "build_editable", tmp_path)) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".pth"))
        line = wheel.read(name).decode().strip()
    assert Path(line).resolve() == checkout.resolve()
    assert (checkout / "cgconvert" / "py.typed").is_file() and (checkout / "trainer" / "py.typed").is_file()


@pytest.mark.slow
def test_the_wheel_runs_in_a_bare_environment(checkout: Path, tmp_path: Path) -> None:
    """The wheel alone, beside the libraries of this environment, from a folder that is not the checkout."""
    wheel = built(checkout, "build_wheel", tmp_path / "wheels")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    shipped = [name for name in names if name.endswith(".safetensors")]
    on_disk = [path.name for path in (ROOT / "cgconvert/models/shipped").glob("*.safetensors")]
    assert sorted(Path(name).name for name in shipped) == sorted(on_disk)
    assert "cgconvert/py.typed" in names and "trainer/py.typed" in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]
    home = tmp_path / "bare"
    venv.create(home, with_pip=False)
    folder = "Scripts" if os.name == "nt" else "bin"
    python = home / folder / ("python.exe" if os.name == "nt" else "python")
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--no-index",
            "--target",
            site,
            str(wheel),
        ],
        check=True,
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    # First without any library: what needs none of them, and one line about what is missing for the rest.
    alone = subprocess.run(
        [python, "-c", "import cgconvert; print(cgconvert.__version__, cgconvert.__file__)"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=True,
    )
    assert alone.stdout.startswith("0.1.0 ")
    assert str(home) in alone.stdout
    # Then with the libraries of this environment behind it, which are not downloaded again.
    libraries = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    listed = subprocess.run(
        [python, "-m", "cgconvert", "models", "list"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": os.pathsep.join((site, libraries))},
        check=True,
    )
    for name in on_disk:
        assert Path(name).stem in listed.stdout


@pytest.mark.slow
def test_the_source_archive_builds_the_same_wheel(checkout: Path, tmp_path: Path) -> None:
    archive = built(checkout, "build_sdist", tmp_path / "sdist")
    with tarfile.open(archive) as content:
        content.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    direct = built(checkout, "build_wheel", tmp_path / "direct")
    again = built(unpacked, "build_wheel", tmp_path / "again")
    with zipfile.ZipFile(direct) as one, zipfile.ZipFile(again) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())
