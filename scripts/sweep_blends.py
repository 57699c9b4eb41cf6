"""Compile every .blend below a folder, one sample each, and check that the labels of each sample agree.

    scripts/sweep FOLDER [--json FILE] [--time-limit S] [--every N] [-- OPTIONS OF compile-dataset build]

Each file is compiled in a separate process: a small image with depth and segmentation, up to twelve objects described.
If one fails or takes too long, it becomes a line in the table and the next one follows. `contradictions` compares the
numbers within a sample: boxes, pixels with an object's id, depth, keypoints, counts. The exit code is 1 if a sample
contradicts itself, otherwise 0; a refused file is not a failure.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from loaders.tarstream import read_samples

JOB = Path(__file__).with_name("sweep_job.py")
FAR_PIXELS, FAR_FRACTION = 3.0, 0.1
"""How far the edge of a box may be from the pixels of an unhidden object: in pixels, and relative to the box's side."""
DEPTH_SLACK = 0.01
"""How far apart two depths of the same surface may be, relative to the depth."""

Json = dict[str, Any]


@dataclass
class Result:
    """What became of one file."""

    blend: str
    outcome: str
    """``compiled``, ``refused`` (with a reason), ``failed`` (another exit than a refusal's) or ``late``."""
    reason: str = ""
    objects: int = 0
    seconds: float = 0.0
    contradictions: list[str] = field(default_factory=list)


# --- One sample against itself --------------------------------------------------------------------------------


def contradictions(annotations: Mapping[str, Any], depth: np.ndarray, segmentation: np.ndarray) -> Iterator[str]:
    """Yield each contradiction between a sample's labels, as one line: its kind, a colon, the object and figures.

    Args:
        annotations: the sample's, with ``holdouts``: whether something hides without a depth of its own.
        depth: (H, W), metres, inf for nothing.
        segmentation: (H, W), ids.
    """
    known = {entry["segmentation_id"] for entry in annotations["objects"]} | {0}
    if strangers := sorted(set(np.unique(segmentation).tolist()) - known):
        yield f"ids: {strangers} are in the segmentation, and no object has them"
    if gone := int((~np.isfinite(depth) & (segmentation > 0)).sum()):
        yield f"depth: {gone} pixels have an id and no depth"
    for entry in annotations["objects"]:
        own = segmentation == entry["segmentation_id"]
        for check in (counts, box_and_pixels, space_and_depth, unseen_without_cause):
            yield from check(entry, annotations, depth, own)
        yield from keypoints(entry, annotations, depth)


def counts(entry: Json, _: Mapping[str, Any], __: np.ndarray, own: np.ndarray) -> Iterator[str]:
    """The counts of pixels, which the segmentation repeats."""
    shown, covered, fraction = entry["visible_pixels"], entry["silhouette_pixels"], entry["visible_fraction"]
    if shown != int(own.sum()):
        yield f"counts: {entry['name']}: visible_pixels {shown}, the segmentation has {int(own.sum())}"
    if shown > covered:
        yield f"silhouette: {entry['name']}: {shown} pixels show it, its silhouette has {covered}"
    if covered and abs(fraction - shown / covered) > 1e-3:
        yield f"counts: {entry['name']}: visible_fraction {fraction} of {shown} and {covered} pixels"


def box_and_pixels(entry: Json, _: Mapping[str, Any], __: np.ndarray, own: np.ndarray) -> Iterator[str]:
    """The 2D box, which holds the centre of each pixel with the object's id, and is not far from them."""
    rows, columns = np.nonzero(own)
    if not len(rows):
        return
    x, y, width, height = entry["bbox"]
    beyond = np.maximum.reduce([x - columns - 0.5, columns + 0.5 - x - width, y - rows - 0.5, rows + 0.5 - y - height])
    if outside := int((beyond > 0.5).sum()):
        yield f"outside: {entry['name']}: {outside} of {len(rows)} pixels are up to {beyond.max():.1f} out of its box"
    if entry["visible_fraction"] > 0.97:
        edges = np.array([columns.min() - x, rows.min() - y, x + width - columns.max(), y + height - rows.max()])
        slack = FAR_PIXELS + FAR_FRACTION * np.array([width, height, width, height])
        if (edges > slack).any():
            yield f"far: {entry['name']}: all of it is seen, and its box ends {edges.max():.1f} pixels away from it"


def space_and_depth(entry: Json, annotations: Mapping[str, Any], depth: np.ndarray, own: np.ndarray) -> Iterator[str]:
    """The box in space, within whose range of depths the object's pixels are."""
    surface = depth[own & np.isfinite(depth)]
    if len(surface):
        near, far = depth_range(entry, annotations)
        slack = DEPTH_SLACK * far + 0.02 * (far - near) + 1e-6
        outside = int(((surface < near - slack) | (surface > far + slack)).sum())
        if outside:
            yield (
                f"space: {entry['name']}: {outside} of {len(surface)} pixels at depths {surface.min():.4g} to"
                f" {surface.max():.4g}, its box3d is from {near:.4g} to {far:.4g}"
            )


def unseen_without_cause(
    entry: Json, annotations: Mapping[str, Any], depth: np.ndarray, own: np.ndarray
) -> Iterator[str]:
    """An object of many pixels of which none is seen, although everything seen in its box is farther away."""
    if own.any() or entry["silhouette_pixels"] < 12 or annotations["holdouts"]:
        return
    x, y, width, height = entry["bbox"]
    inside = depth[max(0, int(y)) : int(np.ceil(y + height)), max(0, int(x)) : int(np.ceil(x + width))]
    _, far = depth_range(entry, annotations)
    if inside.size and inside.min() > far * (1 + DEPTH_SLACK):
        yield f"unseen: {entry['name']}: no pixel of {entry['silhouette_pixels']} is visible, and nothing is in front"


def keypoints(entry: Json, annotations: Mapping[str, Any], depth: np.ndarray) -> Iterator[str]:
    """Keypoints' visibility, which the depth of the pixels around each may rule out."""
    height, width = depth.shape
    seen = hidden = 0
    rows = np.reshape(entry["keypoints"], (-1, 3))
    for (x, y, flag), far in zip(rows, entry["keypoint_depths"], strict=True):
        column, row = int(x), int(y)
        within = 0 <= x < width and 0 <= y < height and far > 0
        if flag == 0 or not within:
            continue
        around = depth[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        slack = DEPTH_SLACK * far
        seen += int(flag == 2 and around.max() < far - slack)
        hidden += int(flag == 1 and around.min() > far + slack and not annotations["holdouts"])
    if seen:
        yield f"seen: {entry['name']}: {seen} of {len(rows)} keypoints are visible, but farther than all surfaces there"
    if hidden:
        yield f"hidden: {entry['name']}: {hidden} of {len(rows)} keypoints are hidden, but nothing is in front of them"


def depth_range(entry: Json, annotations: Mapping[str, Any]) -> tuple[float, float]:
    """The least and the greatest depth of an object's box in space, metres."""
    world = np.column_stack([entry["box3d"], np.ones(8)])
    depths = (np.linalg.inv(annotations["camera"]["cam_to_world"]) @ world.T)[2]
    return float(depths.min()), float(depths.max())


# --- One file -------------------------------------------------------------------------------------------------


def swept(blend: Path, name: str, size: str, limit_s: float, more: tuple[str, ...]) -> Result:
    """Compile one sample of a file and check it."""
    with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
        out, start = Path(folder, "out"), time.monotonic()
        code, said = run(command(blend, out, size, more), limit_s)
        result = Result(name, "compiled", seconds=round(time.monotonic() - start, 1))
        if code is None:
            return late(result, limit_s)
        if code != 0:
            result.outcome = "refused" if code == 2 else "failed"
            result.reason = reason(said, blend)
            return result
        shard = next(out.glob("*.tar"))
        with shard.open("rb") as file:
            members = next(iter(read_samples(file))).members
        annotations = json.loads(members["json"])
        depth, segmentation = (array(members[f"{name}.npy"]) for name in ("depth", "segmentation"))
        result.objects = len(annotations["objects"])
        result.contradictions = list(contradictions(annotations, depth, segmentation))
        return result


def command(blend: Path, out: Path, size: str, more: tuple[str, ...]) -> list[str]:
    """The command that compiles one sample of a file."""
    fixed = "--shards 1 --samples-per-shard 1 --instances 1 --attempts 1 --render-samples 2 --quiet --json"
    start = [sys.executable, "-m", "compiler", "build", str(JOB), "--blend", str(blend), "--out", str(out)]
    return [*start, "--size", size, *fixed.split(), *more]


def run(line: list[str], limit_s: float) -> tuple[int | None, str]:
    """Return the exit code and stderr; if it took too long, it is ended and there is no code."""
    environment = {**os.environ, "PYTHONPATH": str(JOB.parents[1])}
    with subprocess.Popen(
        line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    ) as process:
        try:
            said = process.communicate(timeout=limit_s)[1]
        except subprocess.TimeoutExpired:
            return None, ""
        finally:  # its Blender, too; Ctrl-C reaches neither
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        return process.returncode, said


def late(result: Result, limit_s: float) -> Result:
    """Mark a file as one that took too long."""
    result.outcome, result.reason = "late", f"longer than {limit_s:g} s"
    return result


def reason(said: str, blend: Path) -> str:
    """The printed line that says what is wrong, without the file's own name."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    found = [line for line in lines if line.startswith("Error:")] or lines or ["nothing was said"]
    return found[0].removeprefix("Error: ").replace(f"{blend.parent}{os.sep}", "")


def array(content: bytes) -> np.ndarray:
    """An ``.npy`` member's array."""
    found: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    return found


# --- All of them ----------------------------------------------------------------------------------------------


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("more", nargs=-1, type=click.UNPROCESSED)
@click.option("--json", "as_json", type=click.Path(dir_okay=False, path_type=Path), help="Write the results here, too.")
@click.option("--size", default="160x120", show_default=True, metavar="WXH", help="Of the images, pixels.")
@click.option("--time-limit", default=180.0, show_default=True, metavar="S", help="For each file, seconds.")
@click.option("--every", default=1, show_default=True, type=click.IntRange(min=1), help="Take each N-th file alone.")
@click.option("--most", type=click.IntRange(min=1), help="Stop after so many files.")
def main(
    folder: Path,
    more: tuple[str, ...],
    as_json: Path | None,
    size: str,
    time_limit: float,
    every: int,
    most: int | None,
) -> None:
    """Compile every .blend below FOLDER, one sample each, and report labels that contradict each other.

    What follows `--` goes to compile-dataset build.
    """
    results: list[Result] = []
    for blend in sorted(folder.rglob("*.blend"))[::every][:most]:
        result = swept(blend, blend.relative_to(folder).as_posix(), size, time_limit, more)
        results.append(result)
        show(result)
        if as_json:
            as_json.write_text(json.dumps(summary(results), indent=1) + "\n", encoding="utf-8")
    for line in totals(results):
        print(line)
    sys.exit(1 if any(result.contradictions for result in results) else 0)


def show(result: Result) -> None:
    """Print a file's row, and a line for each contradiction."""
    what = f"{result.objects} objects" if result.outcome == "compiled" else result.reason
    print(f"{result.outcome:9} {result.seconds:6.1f} s  {result.blend}  {what}", flush=True)
    for line in result.contradictions:
        print(f"{'':21}{line}", flush=True)


def totals(results: list[Result]) -> Iterator[str]:
    """Yield the lines below the table."""
    outcomes = Counter(result.outcome for result in results)
    yield ""
    yield f"{len(results)} files: " + ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
    guilty = [result for result in results if result.contradictions]
    kinds = Counter(line.partition(":")[0] for result in guilty for line in result.contradictions)
    listed = ", ".join(f"{count} {name}" for name, count in kinds.most_common())
    yield f"{len(guilty)} samples contradict themselves" + (f": {listed}" if listed else "")


def summary(results: list[Result]) -> Json:
    """All results and their totals, ready for JSON."""
    outcomes = Counter(result.outcome for result in results)
    return {
        "files": [asdict(result) for result in results],
        "totals": {
            "files": len(results),
            **{name: outcomes[name] for name in ("compiled", "refused", "failed", "late")},
            "contradicting": sum(bool(result.contradictions) for result in results),
        },
    }


if __name__ == "__main__":
    main()
