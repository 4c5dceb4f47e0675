"""What the page of a model on a hub needs, and the completion of models' names."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
import torch

from cgconvert.cli import cgconvert, run
from cgconvert.models.catalog import installed_path
from cgconvert.models.files import read_card
from cgconvert.models.importing import import_checkpoint
from cgconvert.models.loading import load_model
from tests.models import reference_networks as reference
from tests.pictures.pictures import smooth
from tests.trainer.conftest import save


@pytest.fixture
def net(tmp_path: Path) -> str:
    path = tmp_path / "net.pth"
    torch.save(reference.randomised(reference.resnet(ngf=4, blocks=1)).state_dict(), path)
    import_checkpoint(path, "net", title="Night <b>*bold*</b> | x", domains=("day", "night"))
    return "net"


def publish(*words: str) -> int:
    with pytest.raises(SystemExit) as left:
        run(cgconvert, "cgconvert", ["models", "publish", *words])
    assert isinstance(left.value.code, int)
    return left.value.code


def test_a_folder_for_a_hub(net: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "a.png", smooth(40, 48))
    folder = tmp_path / "page"
    words = [net, "--repository", "me/night", "--licence", "mit", "-o", str(folder)]
    assert publish(*words, "--picture", str(tmp_path / "a.png")) == 0
    assert capsys.readouterr().out == (
        f"Wrote net.safetensors, card.json, README.md, preview.png to {folder}\n"
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "card.json",
        "net.safetensors",
        "preview.png",
    ]
    card = read_card(folder / "net.safetensors")
    assert (card.licence, card.weights_sha256) == ("mit", read_card(installed_path(net)).weights_sha256)
    assert json.loads((folder / "card.json").read_text()) == json.loads(json.dumps(card.to_dict()))
    assert load_model(folder / "net.safetensors").card == card
    page = (folder / "README.md").read_text()
    assert page.startswith('---\nlicense: "mit"\nlibrary_name: "cgconvert"\npipeline_tag: "image-to-image"\n')
    assert "# Night \\<b\\>\\*bold\\*\\</b\\> \\| x\n" in page
    assert "![Sources and results](preview.png)" in page
    assert "| look | day -\\> night |" in page
    assert "cgconvert models add hf:me/night --name net" in page
    sheet = cv2.imread(str(folder / "preview.png"))
    assert sheet is not None and sheet.std() > 5
    assert publish(*words) == 4
    assert "exists already: use --overwrite" in capsys.readouterr().err
    assert publish(*words, "--overwrite") == 0


def test_a_licence_is_needed(net: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "page"
    assert publish(net, "--repository", "me/night", "-o", str(folder)) == 2
    assert "the licence of net is unknown: say it with --licence" in capsys.readouterr().err
    assert publish(net, "--repository", "night", "--licence", "mit", "-o", str(folder)) == 2
    assert "is not of the form OWNER/NAME" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize(
    "words", ["video --model ", "models info ", "bench -m ", "dir -m ", "models export "]
)
def test_a_shell_completes_the_names_of_models(
    net: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"cgconvert {words}n"
    monkeypatch.setenv("_CGCONVERT_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    with pytest.raises(SystemExit):
        cgconvert.main(args=[], prog_name="cgconvert")
    assert capsys.readouterr().out == "plain,net\n"
