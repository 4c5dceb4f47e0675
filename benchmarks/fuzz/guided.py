"""Model files and checkpoints fuzzed with coverage as the guide, by atheris (libFuzzer for Python).

It runs in a program of its own, since libFuzzer ends the process; `run.py` starts it. What reaches code of
`cgconvert.models` that nothing before has reached is kept and changed further.
"""

from __future__ import annotations

import importlib.util
import json
import mmap
import os
import random
import struct
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

AVAILABLE = importlib.util.find_spec("atheris") is not None
KINDS = ("model", "safetensors", "checkpoint", "old checkpoint")
SHARE = 0.2
"""Part of all cases that are guided."""

INSTRUMENTED = ("cgconvert.models", "cgconvert.card", "cgconvert.generators", "zipfile", "pickletools")
OUTCOMES = ("converted", "refused", "wrong")
MOST_BYTES = 40_000


def fuzz(
    seeds: Mapping[str, list[bytes]],
    runs: int | None,
    seconds: float,
    seed: int,
    base: Path,
    finds: Path,
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Guided cases, `runs` of them or for so many seconds: how many had which outcome, and the finds."""
    corpus = base / "corpus"
    corpus.mkdir()
    for kind in KINDS:
        for number, data in enumerate(seeds[kind]):
            (corpus / f"{KINDS.index(kind)}-{number}").write_bytes(bytes((KINDS.index(kind),)) + data)
    place = base / "guided"
    place.mkdir()
    limits = [f"-runs={runs}"] if runs is not None else [f"-max_total_time={max(1, round(seconds))}"]
    libfuzzer = [
        *limits, f"-seed={seed % 2**31 or 1}", f"-max_len={MOST_BYTES}", "-timeout=120", "-rss_limit_mb=4096",
        "-verbosity=0", "-len_control=0", f"-artifact_prefix={place}/crash-", str(corpus),
    ]  # fmt: skip
    with (place / "said").open("wb") as log:
        root = str(Path(__file__).parents[2])
        code = subprocess.run(
            [sys.executable, "-m", "benchmarks.fuzz.guided", str(place), *libfuzzer],
            stdout=log, stderr=log, cwd=root, env={**os.environ, "PYTHONPATH": root},
        ).returncode  # fmt: skip
    counts = (
        struct.unpack("<3q", (place / "counts").read_bytes()) if (place / "counts").exists() else (0,) * 3
    )
    rows = []
    lines = (place / "finds").read_text().splitlines() if (place / "finds").exists() else []
    for find in map(json.loads, lines):
        finds.mkdir(parents=True, exist_ok=True)
        (finds / find["file"]).write_bytes((place / find["file"]).read_bytes())
        (finds / f"{find['file']}.txt").write_text(find.pop("details"))
        rows.append(find)
    crashes = sorted(place.glob("crash-*"))
    for crash in crashes:
        finds.mkdir(parents=True, exist_ok=True)
        (finds / crash.name).write_bytes(crash.read_bytes())
        rows.append({"kind": "by coverage", "what": "crash or hang", "times": 1, "file": crash.name})
    if code and not crashes:
        raise RuntimeError(f"guided fuzzing ended with {code}:\n{(place / 'said').read_text()[-3000:]}")
    return dict(zip(OUTCOMES, counts, strict=True)), rows


def main() -> None:
    import atheris

    place = Path(sys.argv[1])
    with atheris.instrument_imports(include=list(INSTRUMENTED), enable_loader_override=False):
        from benchmarks.fuzz import cases
        from benchmarks.fuzz.mutations import mutated
    cases.prepare(place / "home")
    folder = place / "case"
    folder.mkdir()
    file = (place / "counts").open("w+b")
    file.write(bytes(24))
    file.flush()
    counts = mmap.mmap(file.fileno(), 24)
    sorts: dict[str, dict[str, Any]] = {}

    def one_case(data: bytes) -> None:
        if not data:
            return
        kind = KINDS[data[0] % len(KINDS)]
        for path in folder.iterdir():
            path.unlink()
        try:
            outcome = cases.attempt(kind, data[1:], folder, False)
        except Exception as error:
            outcome = "wrong"
            frames = [f for f in traceback.extract_tb(error.__traceback__) if "/cgconvert/" in f.filename]
            where = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "a library"
            what = f"{type(error).__name__} in {where}"
            if what not in sorts:
                name = f"{kind.replace(' ', '_')}-guided-{len(sorts)}"
                (place / name).write_bytes(data[1:])
                details = traceback.format_exc()[-4000:]
                sorts[what] = {"kind": kind, "what": what, "times": 1, "file": name, "details": details}
                with (place / "finds").open("a") as log:
                    log.write(json.dumps(sorts[what]) + "\n")
        at = 8 * OUTCOMES.index(outcome)
        struct.pack_into("<q", counts, at, struct.unpack_from("<q", counts, at)[0] + 1)

    def change(data: bytes, most: int, seed: int) -> bytes:
        """By libFuzzer in one case of four, and else by what knows the format."""
        if not data:
            return b"\0"
        chance = random.Random(seed)
        if chance.random() < 0.25:
            return bytes(data[:1] + atheris.Mutate(data[1:], max(1, most - 1)))
        return (data[:1] + mutated(KINDS[data[0] % len(KINDS)], data[1:], chance))[:most]

    atheris.Setup([sys.argv[0], *sys.argv[2:]], one_case, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
