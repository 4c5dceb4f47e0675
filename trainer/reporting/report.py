"""A run's report: one HTML file with nothing from outside, to be looked at while the run goes on."""

from __future__ import annotations

import base64
import html
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cgconvert.errors import InputError
from cgconvert.host.files import real_path, write_atomically
from cgconvert.media.picture.codec import Picture, encode_picture
from cgconvert.media.picture.resize import resized
from trainer.config import Config
from trainer.data.pictures import read_image
from trainer.storage.folder import RunFolder

WIDTH, HEIGHT = 374, 150  # of a plot or grid; the style has the width too
POINTS = 400  # a curve has more log lines than a screen has pixels
SHOWN = 6  # grids over time
REFRESH = 20  # seconds between two looks of a browser at the report of a run that goes on
QUALITY = 90  # of their JPEG
CELLS = {
    "cyclegan": "source, result, way back",
    "pix2pix": "source, result, truth",
    "cut": "source, result",
    "distill": "source, result, teacher's result",
    "one_sided": "source, result",
    "gan": "pictures from noise",
}
MEANINGS = {
    "swd": "distance to the target domain, colour apart; lower is nearer",
    "swd_common": "distance with colour and contrast; lower is nearer",
    "grid": "trace of a grid; 1.2 to 1.5 is none",
    "ssim": "structure kept of the source; 1 is all",
    "shift": "unsteadiness under shifts; 0 is steady",
    "cycle_psnr": "there and back, dB; higher is nearer",
    "l1": "distance to the truth, of 255; lower is nearer",
    "truth_ssim": "structure of the truth; 1 is all",
    "teacher_l1": "distance to the teacher, of 255; lower is nearer",
    "teacher_ssim": "structure of the teacher's results; 1 is all",
    "learned": "our own kernel distance on EfficientNet features x 1000, no KID; lower is nearer",
    "learned_spread": "its standard deviation over subsets",
    "precision": "share of the results that are like the target domain; 1 is all",
    "recall": "share of the target domain that the results are like; 1 is all",
    "kid": "x 1000; lower is nearer",
    "fid": "lower is nearer",
}
ORIGIN = ("reference", "inception")  # beside KID and FID, which mean nothing without them
COLOURS = ("#c0392b", "#2471a3", "#1e8449", "#b7950b", "#7d3c98", "#2e4053")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #ddd; }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top; }
figcaption { color: #555; font-size: .9rem; max-width: 374px; } img { max-width: 100%; }
table { border-collapse: collapse; }
td, th { padding: .2rem .7rem; border-bottom: 1px solid #eee; text-align: right; }
td:first-child, th:first-child, .settings td { text-align: left; }
summary { cursor: pointer; color: #555; margin: .7rem 0; }
svg text { font: 11px system-ui, sans-serif; fill: #555; }
"""


def write_report(
    folder: RunFolder, config: Mapping[str, Mapping[str, Any]], status: str, live: bool = False
) -> None:
    """Write report.html from the log and the sample grids of a run. Raises `OutputError`.

    A `live` one is of a run that goes on: in a browser it loads itself anew.
    """
    lines = list(folder.lines())
    losses = [line for line in lines if line.get("kind") == "losses"]
    metrics = [line for line in lines if line.get("kind") == "metrics"]
    events = [line for line in lines if line.get("kind") in ("roll-back", "settings")]
    title = html.escape(f"{real_path(folder.path).name}: {config['run']['method']}")
    refresh = f"<meta http-equiv='refresh' content='{REFRESH}'>" if live else ""
    parts = [
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'>{refresh}<title>{title}</title>",
        f"<style>{STYLE}</style></head><body><h1>{title}</h1><p>{html.escape(status)}</p>",
        *(_event(line) for line in events),
        *_samples(folder.samples, CELLS[config["run"]["method"]]),
        "<h2>Losses</h2>",
        *_loss_curves(losses),
        "<h2>Metrics on the hold-out</h2>",
        *_metric_curves(metrics),
        _metric_table(metrics),
        "<h2>Settings</h2>",
        _settings(config),
        "</body></html>",
    ]
    write_atomically(folder.report, "\n".join(parts).encode())


def _event(line: Mapping[str, Any]) -> str:
    if line["kind"] == "settings":
        changes = (f"{name} {now}, was {was}" for name, (was, now) in line["changed"].items())
        return f"<p>From {int(line['images'])} images on: {html.escape('; '.join(changes))}.</p>"
    text = f"At {line['reached']} images: {line['problem']}; went back to {line['images']} images."
    return f"<p><strong>{html.escape(text)}</strong></p>"


def _samples(folder: Path, cells: str) -> list[str]:
    """For each generator some grids over time, the newest first; `cells` says what stands in a row."""
    by_generator: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.glob("*-*.png")):
        by_generator[path.stem.rpartition("-")[0]].append(path)
    parts = [] if by_generator else ["<h2>Samples</h2><p>None yet.</p>"]
    for name, paths in by_generator.items():
        count = min(SHOWN, len(paths))
        chosen = {round(i * (len(paths) - 1) / max(count - 1, 1)) for i in range(count)}
        parts.append(f"<h2>{html.escape(f'{name}: {cells}')}</h2>")
        parts += [_figure(paths[index]) for index in sorted(chosen, reverse=True)]
    return parts


def _figure(path: Path) -> str:
    try:
        pixels = read_image(path)
    except InputError:  # removed meanwhile
        return ""
    if pixels.shape[1] > WIDTH:
        height = max(round(pixels.shape[0] * WIDTH / pixels.shape[1]), 1)
        pixels = resized(pixels, WIDTH, height)
    jpeg, _ = encode_picture(Picture(pixels), "jpeg", QUALITY)
    data = base64.b64encode(jpeg).decode()
    images = int(path.stem.rpartition("-")[2])
    picture = f"<img alt='samples' src='data:image/jpeg;base64,{data}'>"
    return f"<figure>{picture}<figcaption>{images} images</figcaption></figure>"


def _loss_curves(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Losses that belong together in one plot each: adversarial, discriminators, the rest by name."""
    groups: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        for name, value in line["losses"].items():
            groups[name.split("_")[0]][name].append((line["images"], value))
    if not groups:
        return ["<p>None yet.</p>"]
    return [curves(title, series) for title, series in groups.items()]


def _metric_curves(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    groups: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        for name, value in line.items():
            if name != "images" and isinstance(value, (int, float)):
                groups[name][line["generator"]].append((line["images"], value))
    told = {line["generator"]: line for line in lines if "inception" in line}
    plots = [curves(title, series, _meaning(title, told)) for title, series in groups.items()]
    return plots or ["<p>None yet.</p>"]


def _meaning(name: str, told: Mapping[str, Mapping[str, Any]]) -> str:
    """What a figure says; KID's and FID's also against what and by which network, from each last log line."""
    meaning = MEANINGS.get(name, "")
    if name not in ("kid", "fid", "kid_spread"):
        return meaning
    against = [
        f"{generator} against {line.get('reference', 'the hold-out')}" for generator, line in told.items()
    ]
    by = dict.fromkeys(f"Inception SHA-256 {line['inception']}" for line in told.values())
    return "; ".join(filter(None, (meaning, *against, *by)))


def _metric_table(lines: Sequence[Mapping[str, Any]]) -> str:
    """The last metrics of each generator."""
    last = {line["generator"]: line for line in lines}
    if not last:
        return ""
    names = [key for key, value in next(iter(last.values())).items() if isinstance(value, (int, float))]
    names += [key for key in ORIGIN if any(key in line for line in last.values())]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("", *names))
    rows = []
    for generator, line in last.items():
        cells = "".join(f"<td>{_cell(line.get(name, ''))}</td>" for name in names)
        rows.append(f"<tr><td>{html.escape(generator)}</td>{cells}</tr>")
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _cell(value: Any) -> str:
    return html.escape(value) if isinstance(value, str) else f"{value:.4g}"


def _settings(config: Mapping[str, Mapping[str, Any]]) -> str:
    """Those that differ from the defaults; the others folded away."""
    defaults = Config().to_dict()
    rows: dict[bool, list[str]] = {True: [], False: []}
    for section, values in config.items():
        for key, value in values.items():
            changed = value != defaults[section][key]
            name, shown = html.escape(f"{section}.{key}"), html.escape(str(value))
            rows[changed].append(f"<tr><td>{name}</td><td>{shown}</td></tr>")
    changed, same = (f"<table class='settings'>{''.join(rows[key])}</table>" for key in (True, False))
    return f"{changed}<details><summary>The others, at their defaults</summary>{same}</details>"


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Finite points, neighbours averaged so that a curve has at most `POINTS`."""
    finite = [point for point in points if math.isfinite(point[1])]
    step = max(1, math.ceil(len(finite) / POINTS))
    chunks = (finite[i : i + step] for i in range(0, len(finite), step))
    return [(c[-1][0], sum(y for _, y in c) / len(c)) for c in chunks]


def _bounds(values: Iterable[float]) -> tuple[float, float]:
    numbers = list(values)
    low, high = min(numbers), max(numbers)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def curves(title: str, series: Mapping[str, Sequence[tuple[float, float]]], meaning: str = "") -> str:
    """A plot of named series of (x, y) as an SVG figure with its scale, a legend, and what it means."""
    thin = {name: _thinned(points) for name, points in series.items()}
    everything = [point for points in thin.values() for point in points]
    if not everything:
        return ""
    (left, right), (low, high) = _bounds(x for x, _ in everything), _bounds(y for _, y in everything)
    inner_width, inner_height, margin = WIDTH - 68, HEIGHT - 40, 58

    def place(point: tuple[float, float]) -> str:
        x = margin + (point[0] - left) / (right - left) * inner_width
        y = 10 + (high - point[1]) / (high - low) * inner_height
        return f"{x:.1f},{y:.1f}"

    body = [
        f"<rect x='{margin}' y='10' width='{inner_width}' height='{inner_height}' fill='none' stroke='#ddd'/>"
    ]
    for index, points in enumerate(thin.values()):
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join(map(place, points))
        body.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='1.5'/>")
    bottom = HEIGHT - 12
    body += [
        f"<text x='{margin - 4}' y='18' text-anchor='end'>{high:.4g}</text>",
        f"<text x='{margin - 4}' y='{10 + inner_height}' text-anchor='end'>{low:.4g}</text>",
        f"<text x='{margin}' y='{bottom}'>{left:.0f}</text>",
        f"<text x='{WIDTH - 10}' y='{bottom}' text-anchor='end'>{right:.0f} images</text>",
    ]
    names = [
        f"<span style='color:{COLOURS[i % len(COLOURS)]}'>{html.escape(name)}</span>"
        for i, name in enumerate(thin)
    ]
    alone = list(thin) == [title]
    caption = names[0] if alone else f"<b>{html.escape(title)}</b> {', '.join(names)}"
    if meaning:
        caption += f"<br>{html.escape(meaning)}"
    return (
        f"<figure><svg viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}'>{''.join(body)}</svg>"
        f"<figcaption>{caption}</figcaption></figure>"
    )
