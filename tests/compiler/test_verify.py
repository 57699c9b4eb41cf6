"""Verification: whatever is not as it was written is named by file, sample and member; what is healthy passes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastjsonschema
import numpy as np
import pytest

from compiler.errors import UsageError, VerificationFailed
from compiler.planning.schemas import ANNOTATIONS, MANIFEST, annotation_problem, manifest_problem, published
from compiler.preview import draw_sample
from compiler.storage.published import Published, find_sample, load_manifest, spread
from compiler.verification.findings import Outcome, Problem, look_around
from compiler.verification.verify import Verifier, examine_all, intact_manifest
from loaders.layout import ShardLayout
from loaders.manifest import FILE_NAME, Manifest
from loaders.tarstream import END, read_samples, sample_record
from tests.commands import forked
from tests.planned_dataset import Recipe, Samples, make, write_manifest, write_shard
from tests.synthetic import image_bytes, npy_bytes

PASSES = ("depth", "normals", "segmentation", "categories", "flow", "alpha")
RECIPES = {
    "plain": Recipe(),
    "cameras and passes": Recipe(cameras=("left", "right"), passes=PASSES, shards=2),
    "jpg": Recipe(image="jpg", shards=1),
    "webp": Recipe(image="webp", shards=1),
    "no objects": Recipe(objects=0, passes=("segmentation",), shards=1),
    "one frame": Recipe(frames=(7,), shards=1),
}


def found(folder: Path, jobs: int = 1) -> list[Problem]:
    """Return all problems of a dataset."""
    verifier = Verifier(folder, intact_manifest(folder))
    return [*verifier.problems, *(problem for report in examine_all(verifier, jobs) for problem in report.problems)]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three shards of five samples with one image, annotations and keypoints each."""
    make(tmp_path / "cubes")
    return tmp_path / "cubes"


def shard_of(folder: Path, number: int = 0) -> Path:
    """Return the path of a shard."""
    return folder / Manifest.load(folder).shards[number].name


def samples_of(path: Path) -> Samples:
    """Return what a shard holds."""
    with path.open("rb") as file:
        return [(sample.key, sample.members) for sample in read_samples(file)]


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_as_it_was_written_passes(tmp_path: Path, name: str) -> None:
    make(tmp_path, RECIPES[name])
    assert found(tmp_path) == []


def test_processes_find_what_one_does_in_the_same_order(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compiler.verification.verify._WORTH_PROCESSES", 0)
    for number, at in ((0, 700), (2, 9000)):
        content = bytearray(shard_of(dataset, number).read_bytes())
        content[at] ^= 1
        shard_of(dataset, number).write_bytes(content)
    assert found(dataset, jobs=2) == found(dataset)
    assert {problem.file for problem in found(dataset)} == {shard_of(dataset, number).name for number in (0, 2)}


def test_a_missing_shard_is_named(dataset: Path) -> None:
    path = shard_of(dataset, 1)
    path.unlink()
    assert found(dataset) == [Problem(path.name, "No such file or directory")]


def test_every_cut_is_found_and_the_sample_that_it_goes_through_named(dataset: Path) -> None:
    path = shard_of(dataset)
    whole = path.read_bytes()
    with path.open("rb") as file:
        ends = [(sample.end, sample.key) for sample in read_samples(file)]
    for size in range(0, len(whole), 997):
        path.write_bytes(whole[:size])
        problems = found(dataset)
        assert {problem.file for problem in problems} == {path.name}
        key = next((key for end, key in ends if size < end), "")
        assert problems[0].key == key
        assert "cut short" in problems[0].what
        assert f"has {size} bytes, not {len(whole)}" in problems[-1].what


def test_bytes_behind_the_end_are_found(dataset: Path) -> None:
    path = shard_of(dataset)
    with path.open("ab") as file:
        file.write(bytes(10240))
    assert str(found(dataset)[0]) == f"{path.name}: 10240 bytes follow its end mark"


def test_swapped_shards_are_told_by_their_keys(dataset: Path) -> None:
    one, two = shard_of(dataset, 0), shard_of(dataset, 1)
    content = one.read_bytes()
    two.replace(one)
    two.write_bytes(content)
    first = found(dataset)[0]
    assert (first.file, first.key, first.what) == (one.name, "000001-000000", "is where 000000-000000 should be")


def test_a_shard_of_another_dataset_is_found(dataset: Path, tmp_path: Path) -> None:
    make(tmp_path / "other", Recipe(seed=1))
    shutil.copy(shard_of(tmp_path / "other"), shard_of(dataset))
    problems = found(dataset)
    assert {problem.file for problem in problems} == {shard_of(dataset).name}
    assert "seed is 1, in the plan 0" in {problem.what for problem in problems}


def test_another_plans_manifest_is_found(dataset: Path, tmp_path: Path) -> None:
    make(tmp_path / "other", Recipe(frames=(1, 2)))
    shutil.copy(tmp_path / "other" / FILE_NAME, dataset / FILE_NAME)
    assert {problem.file for problem in found(dataset)} == {path.name for path in dataset.glob("*.tar")}


@pytest.mark.parametrize("keep", [0, 1, 0.5, -2])
def test_a_cut_manifest_is_refused_by_name(dataset: Path, keep: float) -> None:
    content = (dataset / FILE_NAME).read_bytes()
    (dataset / FILE_NAME).write_bytes(content[: int(keep * len(content)) if keep == 0.5 else int(keep)])
    with pytest.raises(VerificationFailed, match=str(dataset / FILE_NAME)):
        intact_manifest(dataset)


def test_where_there_is_no_dataset_nothing_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no dataset at"):
        intact_manifest(tmp_path)


def rewritten(folder: Path, change: Callable[[Samples], None]) -> list[Problem]:
    """Let `change` alter the first shard's samples, enter them with right digests, and return what is found.

    So is what only the structure tells, as from a compiler that writes nonsense.
    """
    manifest, samples = Manifest.load(folder), samples_of(shard_of(folder))
    change(samples)
    write_manifest(folder, manifest.with_shard(write_shard(folder, ShardLayout.parse(manifest.plan), 0, samples)))
    return found(folder)


def edit_json(change: Callable[[dict[str, Any]], object]) -> Callable[[Samples], None]:
    """Return a change of the second sample's annotations."""

    def edit(samples: Samples) -> None:
        members = samples[1][1]
        annotations = json.loads(members["json"])
        change(annotations)
        members["json"] = json.dumps(annotations).encode()

    return edit


def put(member: str, content: bytes) -> Callable[[Samples], None]:
    """Return a change of one of the second sample's members."""
    return lambda samples: samples[1][1].update({member: content})


_ROWS = np.zeros((16, 4), np.float32)
NONSENSE: dict[str, tuple[str, str, Callable[[Samples], None]]] = {
    "episode": ("json", "episode is 7, in the plan 0", edit_json(lambda value: value.update(episode=7))),
    "frame": ("json", "frame is 1, in the plan 26", edit_json(lambda value: value.update(frame=1))),
    "seed": ("json", "seed is 9, in the plan 0", edit_json(lambda value: value.update(seed=9))),
    "no seed": ("json", "annotations.seed is in some samples only", edit_json(lambda value: value.pop("seed"))),
    "other type": (
        "json",
        "annotations.note is int in one place and str in another",
        edit_json(lambda value: value.update(note=1)),
    ),
    "no list": (
        "json",
        "annotations.objects is a list in one place and str",
        edit_json(lambda v: v.update(objects="")),
    ),
    "matrix": (
        "json",
        "annotations.camera.K must contain less than or equal to 3 items",
        edit_json(lambda value: value["camera"]["K"].append([0.0, 0.0, 1.0])),
    ),
    "camera": (
        "json",
        "annotations.camera.type must be one of ['PERSP', 'ORTHO']",
        edit_json(lambda value: value["camera"].update(type="PANO")),
    ),
    "size": (
        "json",
        "image.width or camera.width is not 16",
        edit_json(lambda value: value["image"].update(width=17)),
    ),
    "not JSON": ("json", "not JSON", put("json", b"{")),
    "NaN": ("json", "NaN is no number", put("json", b"NaN")),
    "image format": ("png", "is a JPEG file", put("png", image_bytes(np.zeros((12, 16, 3), np.uint8), "JPEG"))),
    "image size": (
        "png",
        "is 12x15 RGB, in the schema 12x16x3",
        put("png", image_bytes(np.zeros((12, 15, 3), np.uint8))),
    ),
    "image mode": ("png", "is 12x16 L, in the schema", put("png", image_bytes(np.zeros((12, 16), np.uint8)))),
    "no array": ("keypoints.npy", "not a readable npy file", put("keypoints.npy", b"\x93NUMPY")),
    "long array": ("keypoints.npy", "bytes follow it", put("keypoints.npy", npy_bytes(_ROWS) + b"\0" * 4)),
    "dtype": (
        "keypoints.npy",
        "is of float64, in the schema float32",
        put("keypoints.npy", npy_bytes(_ROWS.astype(np.float64))),
    ),
    "shape": ("keypoints.npy", "has the shape [16, 3]", put("keypoints.npy", npy_bytes(_ROWS[:, :3]))),
    "no rows": ("keypoints.npy", "has the shape [], the annotations 16", put("keypoints.npy", npy_bytes(_ROWS[0, 0]))),
    "rows": ("keypoints.npy", "has 15 rows, the annotations 16", put("keypoints.npy", npy_bytes(_ROWS[:15]))),
    "row": ("keypoints.npy", "row 0 is not that of the annotations", put("keypoints.npy", npy_bytes(_ROWS))),
    "not finite": ("keypoints.npy", "not finite", put("keypoints.npy", npy_bytes(_ROWS + np.float32("inf")))),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_with_right_digests_is_found_in_its_place(dataset: Path, name: str) -> None:
    member, what, change = NONSENSE[name]
    problems = [problem for problem in rewritten(dataset, change) if what in problem.what]
    assert {(problem.file, problem.key, problem.member) for problem in problems} == {
        (shard_of(dataset).name, "000000-000001", member)
    }


def test_a_category_that_is_none_is_found(tmp_path: Path) -> None:
    make(tmp_path, RECIPES["cameras and passes"])
    assert [str(problem) for problem in rewritten(tmp_path, put("right.categories.npy", labels(2)))] == [
        f"{shard_of(tmp_path).name}: sample 000000-000001: right.categories.npy: "
        "holds 2, which is not an id of the categories"
    ]


def test_a_segmentation_of_more_than_is_annotated_is_noted(tmp_path: Path) -> None:
    """A job may describe an object, and then leave it out of what it returns."""
    make(tmp_path, RECIPES["cameras and passes"])
    assert rewritten(tmp_path, put("left.segmentation.npy", labels(3))) == []
    report, _ = examine_all(Verifier(tmp_path, load_manifest(tmp_path)), 1)
    assert report.notes == [
        f"{report.name}: sample 000000-000001: left.segmentation.npy: "
        "holds 3, which is not a segmentation_id of the objects"
    ]


def labels(number: int) -> bytes:
    """Return a pass that has this number everywhere."""
    return npy_bytes(np.full((12, 16), number, np.uint16))


def reorder(samples: Samples) -> None:
    """Exchange the contents of the first two samples, not their keys."""
    (one, first), (two, second), *rest = samples
    samples[:] = [(one, second), (two, first), *rest]


def test_a_sample_in_anothers_place_is_found(dataset: Path) -> None:
    problems = rewritten(dataset, reorder)
    assert {(problem.key, problem.what) for problem in problems} == {
        ("000000-000000", "frame is 26, in the plan 1"),
        ("000000-000001", "frame is 1, in the plan 26"),
    }


def test_samples_out_of_order_are_found(dataset: Path) -> None:
    assert "is where 000000-000000 should be" in rewritten(dataset, lambda samples: samples.reverse())[0].what


def test_a_lacking_or_foreign_member_is_found(dataset: Path) -> None:
    lacking = rewritten(dataset, lambda samples: samples[1][1].pop("keypoints.npy"))
    assert ["'000000-000001' lacks ['keypoints.npy']" in problem.what for problem in lacking[:1]] == [True]
    foreign = rewritten(dataset, put("txt", b""))
    assert foreign[0].key == "000000-000001"


@pytest.mark.parametrize("samples", [4, 6])
def test_another_number_of_samples_is_found(dataset: Path, samples: int) -> None:
    def change(there: Samples) -> None:
        there[:] = [*there, ("000000-000005", there[0][1])][:samples]

    problems = rewritten(dataset, change)
    assert Problem(FILE_NAME, f"shard 0: samples is {samples}, not 5") in problems


def test_skipped_samples_are_not_missed(dataset: Path) -> None:
    manifest, samples = Manifest.load(dataset), samples_of(shard_of(dataset))
    shard = write_shard(dataset, ShardLayout.parse(manifest.plan), 0, samples[:2] + samples[4:])
    lacking = {key: "died" for key, _ in samples[2:4]}
    write_manifest(dataset, manifest.with_shard(shard, lacking))
    assert found(dataset) == []


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("000007-000000", "there is no shard 7"),
        ("000000-000005", "000000-000005 is not a sample of the plan"),
    ],
)
def test_what_was_skipped_is_of_a_shard_that_is_there(dataset: Path, key: str, what: str) -> None:
    write_manifest(dataset, replace(Manifest.load(dataset), skipped={key: "died"}))
    assert f"{FILE_NAME}: skipped: {what}" in map(str, found(dataset))


def test_another_split_or_name_than_the_plans_is_found(dataset: Path) -> None:
    manifest = Manifest.load(dataset)
    write_manifest(dataset, replace(manifest.with_shard(replace(manifest.shards[0], split="test")), name="balls"))
    assert set(map(str, found(dataset))) == {
        f"{FILE_NAME}: name is 'balls', in the plan 'cubes'",
        f"{FILE_NAME}: shard 0: split is test, not train",
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [("samples_per_shard", 0), ("samples_per_shard", 10**9), ("samples_per_shard", True), ("seed", -5), ("seed", 1.0)],
)
def test_numbers_that_no_plan_has_are_found_before_anything_is_counted(
    dataset: Path, field: str, value: object
) -> None:
    manifest = Manifest.load(dataset)
    write_manifest(dataset, replace(manifest, plan={**manifest.plan, field: value}))
    (problem,) = found(dataset)
    assert problem.file == FILE_NAME
    assert f"{field} is {value!r}, not a whole number" in problem.what


def test_a_far_shards_number_is_no_long_list(dataset: Path) -> None:
    manifest = Manifest.load(dataset)
    far = replace(manifest.shards[2], number=10**9 - 1)
    write_manifest(dataset, replace(manifest, shards=(*manifest.shards[:2], far)))
    verified = forked("verify", dataset, "--json", "--quiet")
    assert verified.returncode == 3
    assert json.loads(verified.stdout)["missing_shards"] == [[2, 10**9 - 2]]


def test_a_pipe_in_a_shards_place_is_not_waited_for(dataset: Path) -> None:
    path = shard_of(dataset)
    path.unlink()
    os.mkfifo(path)
    assert found(dataset) == [Problem(path.name, "is not a regular file")]


def test_showing_damage_is_refused_in_one_line(dataset: Path, tmp_path: Path) -> None:
    rewritten(dataset, put("json", b'{"objects": 7}'))
    with pytest.raises(UsageError, match="sample 000000-000001 cannot be drawn"):
        draw_sample(find_sample(Published.load(dataset), "000000-000001"), Manifest.load(dataset), 64)
    with pytest.raises(UsageError, match="has no sample"):
        find_sample(Published.load(dataset), "9" * 5000 + "-000000")
    shown = forked("show", dataset / FILE_NAME, "--out", tmp_path / "sheet.png", "--count", 15)
    assert (shown.returncode, shown.stderr.count("\n")) == (2, 2)
    assert forked("show", dataset / FILE_NAME, "000000-000000", "--out", tmp_path / "one.png").returncode == 0


def test_fewer_samples_than_the_manifest_says_cannot_be_shown(dataset: Path) -> None:
    path = shard_of(dataset)
    path.write_bytes(END)
    with pytest.raises(UsageError, match="fewer samples than the manifest says"):
        spread(Published.load(dataset), 15)


@pytest.mark.parametrize(
    ("sign", "to", "code", "said"),
    [
        (signal.SIGKILL, "who asked", -signal.SIGKILL, None),
        (signal.SIGINT, "readers", 0, ""),
        (signal.SIGINT, "all", 130, "Interrupted."),
    ],
)
def test_readers_end_with_the_one_that_asked_and_not_before(
    dataset: Path, sign: int, to: str, code: int, said: str | None
) -> None:
    """Ctrl-C goes to all processes of a terminal: the readers leave it to the one that asked, even while they start."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", _VERIFYING, str(dataset)]
    verifying = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    assert verifying.stdout is not None
    readers = [int(pid) for pid in verifying.stdout.readline().split()]
    assert len(readers) == 2
    for pid in {"who asked": [verifying.pid], "readers": readers, "all": [*readers, verifying.pid]}[to]:
        os.kill(pid, sign)
    stderr = verifying.communicate(timeout=20)[1].strip()
    assert said is None or stderr == said  # of a killed one multiprocessing says what it cleans up
    assert verifying.returncode == code
    until = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in readers):
        assert time.monotonic() < until
        time.sleep(0.05)


_VERIFYING = """
import multiprocessing, sys, threading, time
import compiler.verification.verify as verify
from compiler.cli import main

def tell():
    while len(children := multiprocessing.active_children()) < 2:
        time.sleep(0.01)
    time.sleep(0.1)  # the last is being started: this process ignores interrupts till then
    print(*(child.pid for child in children), flush=True)

if __name__ == "__main__":
    verify._WORTH_PROCESSES = 0
    threading.Thread(target=tell, daemon=True).start()
    sys.argv = ["compile-dataset", "verify", sys.argv[1], "--jobs", "2", "--quiet"]
    main()
"""


@pytest.mark.parametrize(
    ("at", "value"), [(100, b"0000755"), (136, b"00000000001"), (265, b"root")], ids=["mode", "mtime", "owner"]
)
def test_a_header_that_is_not_canonical_is_found(dataset: Path, at: int, value: bytes) -> None:
    """The digests fit: only a reader that knows what the compiler writes can tell."""
    path, manifest = shard_of(dataset), Manifest.load(dataset)
    samples = samples_of(path)
    record = bytearray(sample_record(*samples[0]))
    record[at : at + len(value)] = value
    record[148:156] = b" " * 8
    record[148:156] = b"%06o\0 " % sum(record[:512])
    content = bytes(record) + b"".join(sample_record(*sample) for sample in samples[1:]) + END
    write_manifest(dataset, manifest.with_shard(redigested(path, content, bytes(record), manifest)))
    (problem,) = found(dataset)
    assert (problem.key, problem.member) == ("000000-000000", "json")
    assert "a header or a padding is not canonical" in problem.what


def redigested(path: Path, content: bytes, first: bytes, manifest: Manifest) -> Any:
    """Write the shard with another first record; return its entry with the digests set right."""
    path.write_bytes(content)
    each = hashlib.sha256(first).hexdigest()[:8] + manifest.shards[0].sample_digests[8:]
    return replace(manifest.shards[0], sha256=hashlib.sha256(content).hexdigest(), sample_digests=each)


def test_a_wrong_content_digest_is_found(dataset: Path) -> None:
    manifest = Manifest.load(dataset)
    write_manifest(dataset, manifest.with_shard(replace(manifest.shards[0], content_sha256="0" * 64)))
    assert [problem.what for problem in found(dataset)] == ["its content_sha256 differs, though its sha256 is right"]


def test_pixels_that_another_decoder_rounds_otherwise_are_no_damage(tmp_path: Path) -> None:
    manifest = make(tmp_path, RECIPES["jpg"])
    write_manifest(tmp_path, manifest.with_shard(replace(manifest.shards[0], content_sha256="0" * 64)))
    (report,) = examine_all(Verifier(tmp_path, load_manifest(tmp_path)), 1)
    assert report.problems == []
    assert report.notes == [f"{report.name}: Pillow decodes jpg to other pixels here"]


def test_members_that_are_not_the_plans_are_found(dataset: Path) -> None:
    manifest = Manifest.load(dataset)
    members = {**manifest.schema["members"], "png": {"dtype": "uint8", "shape": [1, 1, 3], "description": ""}}
    write_manifest(dataset, replace(manifest, schema={**manifest.schema, "members": members}))
    assert str(found(dataset)[0]) == f"{FILE_NAME}: schema.members: 'png' is not as the plan has it"


@pytest.mark.parametrize("plan", [{}, {"job": 1}, {"job": {"frames": [], "cameras": [], "passes": []}}])
def test_a_plan_that_cannot_be_read_is_named(dataset: Path, plan: dict[str, Any]) -> None:
    write_manifest(dataset, replace(Manifest.load(dataset), plan=plan))
    assert [problem.file for problem in found(dataset)] == [FILE_NAME]


def test_a_changed_source_is_named_and_a_missing_one_is_not(dataset: Path) -> None:
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("job.py", "more/helper.py", "gone.py")}
    digests |= {"../dataset.json": "", "/etc/hostname": "", "n" * 300: "", "job.py/more": ""}
    write_manifest(dataset, replace(Manifest.load(dataset), provenance={"job": {"sources": digests}}))
    (dataset / "source" / "more").mkdir(parents=True)
    (dataset / "source" / "job.py").write_text("job.py")
    (dataset / "source" / "more" / "helper.py").write_text("hacked")
    assert [problem.file for problem in found(dataset)] == ["source/more/helper.py"]


def test_a_recording_is_held_to_all_but_the_plans_order(dataset: Path) -> None:
    manifest = Manifest.load(dataset)
    write_manifest(dataset, replace(manifest, provenance={"recorded": "from a live tee"}))
    assert rewritten(dataset, lambda samples: samples.reverse()) == []
    path = shard_of(dataset)
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)
    assert found(dataset)[0].key == "000000-000004"


def test_the_plan_read_back_numbers_as_the_plan_does() -> None:
    for recipe in RECIPES.values():
        plan = recipe.plan
        assert ShardLayout.parse(plan.manifest({}).plan) == plan.layout


def test_what_lies_around_is_told(dataset: Path) -> None:
    manifest = Manifest.load(dataset)
    names = ["cubes-train-000003.tar.part", "cubes-train-000003.tar.journal", "notes.txt", "failures.jsonl", ".lock"]
    for name in names:
        (dataset / name).touch()
    (dataset / manifest.shards[1].name).unlink()
    partial = replace(manifest, shards=(manifest.shards[0], manifest.shards[2]))
    around = look_around(dataset, partial)
    assert (around.missing, around.unfinished, around.unknown) == ([(1, 1)], sorted(names[:2]), ["notes.txt"])
    lines = Outcome(dataset, partial, [], [], around).lines()
    assert lines[0] == "Note: shard 1 not rendered yet"
    assert lines[-1].endswith(f"digest {partial.digest}: ok")


def test_many_problems_are_summed_up_for_people_and_kept_for_programs(dataset: Path) -> None:
    problems = [Problem("a.tar", "is wrong", f"000000-{at:06d}", "png") for at in range(9)]
    outcome = Outcome(dataset, Manifest.load(dataset), problems, [], look_around(dataset, Manifest.load(dataset)))
    assert outcome.lines()[4:6] == ["a.tar: sample 000000-000004: png: is wrong", "a.tar: and 4 more"]
    assert len(outcome.as_json()["problems"]) == 9
    with pytest.raises(VerificationFailed, match=r"damaged: a.tar$"):
        outcome.check()


def test_the_command_says_what_is_damaged_and_exits_with_3(dataset: Path) -> None:
    healthy = forked("verify", dataset, "--quiet")
    assert (healthy.returncode, healthy.stderr) == (0, "")
    assert forked("verify", dataset / FILE_NAME, "--quiet").stdout == healthy.stdout
    for option in ("pick", "job", "assets"):
        alone = forked("verify", dataset, f"--{option}", 1)
        assert (alone.returncode, alone.stderr.split("\n")[0]) == (2, f"Error: --{option} needs --rerender")
    path = shard_of(dataset)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    damaged = forked("verify", dataset, "--json", "--jobs", 1)
    assert damaged.returncode == 3
    assert json.loads(damaged.stdout)["damaged"] == [path.name]
    assert path.name in damaged.stderr
    (dataset / FILE_NAME).write_bytes(b"{}")
    assert forked("verify", dataset).returncode == 3
    assert forked("verify", dataset / "nowhere").returncode == 2
    assert forked("verify", dataset / ("x" * 300)).returncode == 2


@pytest.mark.parametrize("name", published())
def test_the_published_schemas_are_the_ones_that_are_used(name: str) -> None:
    path = Path(__file__).parents[2] / "docs" / "schema" / name
    assert path.read_bytes() == published()[name], "write published() to docs/schema"


def test_the_published_schemas_say_what_is_written(tmp_path: Path) -> None:
    manifest = make(tmp_path, RECIPES["cameras and passes"])
    value = json.loads(manifest.to_json())
    assert manifest_problem(value) == ""
    assert set(value) == set(MANIFEST["required"])
    assert set(value["shards"][0]) == set(MANIFEST["properties"]["shards"]["items"]["required"])
    annotations = json.loads(samples_of(shard_of(tmp_path))[0][1]["left.json"])
    assert annotation_problem(annotations) == ""
    for field in ANNOTATIONS["required"]:
        lacking = {name: content for name, content in annotations.items() if name != field}
        assert annotation_problem(lacking) == f"annotations must contain [{field!r}] properties"


def test_the_schemas_are_draft_7() -> None:
    for schema in (ANNOTATIONS, MANIFEST):
        assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
        fastjsonschema.compile(schema)
