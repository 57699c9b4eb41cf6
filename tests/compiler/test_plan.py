"""The plan: every sample has one place, a longer dataset begins with the shorter one, and no difference is missed."""

from __future__ import annotations

import copy
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blender_jobs.orders import Asset, Described, Hello, JobSource, RenderSettings
from compiler.planning.document import Made, Origin, PlanDocument
from compiler.planning.plan import Plan, differences
from compiler.storage.existing import changes
from loaders.format import canonical_json
from loaders.layout import ShardLayout
from loaders.manifest import Manifest, ShardInfo
from tests.planned_dataset import Recipe


def plan(frames: list[int], samples_per_shard: int, path: str = "/jobs/falling_cubes.py") -> Plan:
    """Return a plan; what is not given does not matter."""
    return Plan(
        source=JobSource(path),
        job=Described("Cubes", "Cubes.", "ab" * 32, {"count": 10}, {"count": 10}, frames, False, {"render.fps": 24}),
        render=RenderSettings("cycles", 16, 640, 480, "png", 100),
        seed=0,
        samples_per_shard=samples_per_shard,
        blender=Hello("4.5.15", "0123abcd", "Linux x86_64", "3.11.2", "1.26.4", "cd" * 32),
    )


_FRAMES = st.sets(st.integers(-5, 100), min_size=1, max_size=9).map(sorted)
PLANS = st.builds(plan, _FRAMES, st.integers(1, 25))


@given(PLANS, st.integers(1, 5))
def test_every_sample_has_one_place(made: Plan, shards: int) -> None:
    orders = [made.episodes(number) for number in range(shards)]
    keys = [sample.key for shard in orders for order in shard for sample in order.samples]
    assert keys == [
        f"{shard:06d}-{at:06d}" for shard, at in itertools.product(range(shards), range(made.samples_per_shard))
    ]
    episodes = [order.episode for shard in orders for order in shard]
    assert episodes == list(range(len(episodes)))  # none in two shards, none left out


@given(PLANS, st.integers(0, 5))
def test_an_episode_keeps_the_jobs_frames_and_only_the_shards_last_is_cut(made: Plan, shard: int) -> None:
    *whole, last = made.episodes(shard)
    for order in whole:
        assert [sample.frame for sample in order.samples] == made.job.frames
    rest = made.samples_per_shard - len(whole) * len(made.job.frames)
    assert 0 < rest <= len(made.job.frames)
    assert [sample.frame for sample in last.samples] == made.job.frames[:rest]


@given(PLANS, st.integers(0, 5))
def test_an_episode_by_its_number_is_the_one_of_its_shard(made: Plan, shard: int) -> None:
    for order in made.episodes(shard):
        assert made.episode(order.episode) == order


@given(st.text(min_size=1).filter(lambda stem: "/" not in stem and "\0" not in stem))
def test_whatever_the_jobs_file_is_called_the_manifest_takes_its_shards(stem: str) -> None:
    made = plan([1], 1, path=f"/jobs/{stem}.py")
    shard = ShardInfo(made.layout.shard_name(3), "train", 3, 1, 1, "0" * 64, "0" * 64, "0" * 8)
    manifest = Manifest(made.name, made.identity(), {"members": made.members()}, {}, (shard,))
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_names_are_as_documented() -> None:
    made = plan([1, 2], 5)
    assert made.layout.shard_name(7) == "falling_cubes-train-000007.tar"
    assert [sample.key for sample in made.episode(4).samples] == ["000001-000002", "000001-000003"]
    assert plan([1], 1, path="/jobs/my job (2).py").name == "my_job_2_"


def test_where_the_job_is_and_python_and_numpys_patches_change_no_byte() -> None:
    made = plan([1, 2], 5)
    moved = replace(
        made,
        source=JobSource("/elsewhere/falling_cubes.py"),
        job=replace(made.job, doc="Other words.", fields={"count": "/elsewhere/10"}, notes=["Something."]),
        blender=replace(made.blender, python="3.11.9", numpy="1.26.0"),
    )
    assert moved.identity() == made.identity()


CHANGES: dict[str, Any] = {
    "job.source_sha256": lambda made: replace(made, job=replace(made.job, source_sha256="00" * 32)),
    "job.fields.count": lambda made: replace(made, job=replace(made.job, portable_fields={"count": 11})),
    "job.frames": lambda made: replace(made, job=replace(made.job, frames=[1, 3])),
    "job.reuse_scene": lambda made: replace(made, job=replace(made.job, reuse_scene=True)),
    "job.cameras": lambda made: replace(made, job=replace(made.job, cameras=["left"])),
    "job.categories": lambda made: replace(made, job=replace(made.job, categories=[{"id": 1}])),
    "job.passes": lambda made: replace(made, job=replace(made.job, passes=["depth"])),
    "job.trust_blend": lambda made: replace(made, job=replace(made.job, trust_blend=True)),
    "job.missing_files": lambda made: replace(made, job=replace(made.job, missing_files="allow")),
    "job.missing": lambda made: replace(made, job=replace(made.job, missing=["wood.png"])),
    "assets.wood.png": lambda made: replace(
        made, job=replace(made.job, assets=[Asset("wood.png", "/wood.png", 0, "00" * 32)])
    ),
    "render.device": lambda made: replace(made, render=replace(made.render, device="cuda")),
    "render.devices": lambda made: replace(made, job=replace(made.job, devices=["A GPU"])),
    "render.denoise": lambda made: replace(made, render=replace(made.render, denoise=True)),
    "job.class": lambda made: replace(made, job=replace(made.job, class_name="Other")),
    "job.name": lambda made: replace(made, source=JobSource("/jobs/other.py")),
    "seed": lambda made: replace(made, seed=1),
    "samples_per_shard": lambda made: replace(made, samples_per_shard=6),
    "render.engine": lambda made: replace(made, render=replace(made.render, engine="eevee")),
    "render.samples": lambda made: replace(made, render=replace(made.render, samples=17)),
    "render.width": lambda made: replace(made, render=replace(made.render, width=641)),
    "render.image": lambda made: replace(made, render=replace(made.render, image="webp")),
    "render.quality": lambda made: replace(made, render=replace(made.render, quality=99)),
    "render.settings.render.fps": lambda made: replace(made, job=replace(made.job, settings={"render.fps": 25})),
    "blender.version": lambda made: replace(made, blender=replace(made.blender, version="5.0.1")),
    "blender.build_hash": lambda made: replace(made, blender=replace(made.blender, build_hash="ffff")),
    "blender.build": lambda made: replace(made, blender=replace(made.blender, build="executable of another day")),
    "blender.platform": lambda made: replace(made, blender=replace(made.blender, platform="Darwin arm64")),
    "blender.numpy": lambda made: replace(made, blender=replace(made.blender, numpy="2.1.0")),
    "code_sha256": lambda made: replace(made, blender=replace(made.blender, code_sha256="00" * 32)),
}


@pytest.mark.parametrize("path", CHANGES)
def test_all_that_can_change_a_byte_is_the_identity(path: str) -> None:
    made = plan([1, 2], 5)
    found = list(differences(CHANGES[path](made).identity(), made.identity()))
    assert [where for where, _, _ in found] == [path]


_LEAVES = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([-1.0, 0.0, 1.0]) | st.text("ab", max_size=2)
_TREES = st.dictionaries(
    st.sampled_from("abc"),
    st.recursive(
        _LEAVES | st.lists(_LEAVES, max_size=2),
        lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    ),
    max_size=3,
)


@given(_TREES, _TREES)
def test_identities_differ_where_and_only_where_their_digests_do(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert bool(list(differences(ours, theirs))) == (canonical_json(ours) != canonical_json(theirs))
    assert list(differences(ours, copy.deepcopy(ours))) == []


@given(_TREES, _TREES)
def test_differences_say_both_values(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    def at(tree: Any, path: str) -> Any:
        for name in path.split("."):
            tree = tree.get(name)
        return tree

    for path, mine, other in differences(ours, theirs):
        assert (mine, other) == (at(ours, path), at(theirs, path))


def test_a_plan_says_what_each_sample_holds() -> None:
    members = replace(plan([1], 1), render=RenderSettings("cycles", 1, 64, 48, "webp", 100)).members()
    assert members["webp"] == {**members["webp"], "dtype": "uint8", "shape": [48, 64, 3]}
    assert members["keypoints.npy"] == {**members["keypoints.npy"], "dtype": "float32", "shape": [None, 4]}
    assert set(members) == {"webp", "json", "keypoints.npy"}


def test_each_camera_has_members_of_its_own() -> None:
    made = plan([1], 1)
    alone = replace(made, job=replace(made.job, passes=["depth", "flow"])).members()
    stereo = replace(made, job=replace(made.job, passes=["depth", "flow"], cameras=["left", "right"])).members()
    assert stereo == {f"{camera}.{name}": entry for camera in ("left", "right") for name, entry in alone.items()}
    assert alone["flow_forward.npy"]["shape"] == [480, 640, 2]


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)
MADE = Recipe(cameras=("left", "right"), passes=("depth",)).plan
PROVENANCE: dict[str, Any] = {
    "job": {"path": "/jobs/cubes.py", "sources": {"cubes.py": "ab" * 32}, "path_fields": {}},
    "assets": {},
}
PLACES = [
    *(("plan", name) for name in MADE.identity() if name != "format"),
    *(("plan", "job", name) for name in MADE.identity()["job"]),
    *(("plan", "render", name) for name in MADE.identity()["render"]),
    *(("provenance", name) for name in PROVENANCE),
    *(("provenance", "job", name) for name in PROVENANCE["job"]),
]


@given(PLANS)
def test_a_plan_that_is_written_is_read_back(made: Plan) -> None:
    again = PlanDocument.parse(json.loads(canonical_json(made.identity())))
    assert again == made.document
    assert again.as_json() == made.identity()
    assert again.layout == ShardLayout.parse(made.identity())


def test_a_plan_of_a_release_without_some_fields_is_read() -> None:
    plan = json.loads(canonical_json(MADE.identity()))
    for name in ("missing_files", "missing", "reuse_scene", "categories"):
        del plan["job"][name]
    read = PlanDocument.parse(plan)
    assert (read.job.missing_files, read.job.reuse_scene) == ("refuse", False)
    assert read.layout == MADE.layout


def test_how_a_dataset_was_made_is_read_of_its_manifest() -> None:
    made = Made.parse(MADE.manifest(PROVENANCE))
    assert made.plan == MADE.document
    assert made.origin == Origin(Path("/jobs/cubes.py"), {"cubes.py": "ab" * 32}, {}, {})


@settings(max_examples=300)
@given(st.sampled_from(PLACES), _ANY)
def test_a_strange_value_is_one_line_with_its_place(place: tuple[str, ...], value: Any) -> None:
    given = json.loads(canonical_json({"plan": MADE.identity(), "provenance": PROVENANCE}))
    at = given
    for name in place[:-1]:
        at = at[name]
    at[place[-1]] = value
    manifest, said = Manifest("cubes", given["plan"], {}, given["provenance"]), ""
    changed = canonical_json(given["plan"]) != canonical_json(MADE.identity())
    assert bool([*itertools.chain(*changes(MADE, manifest))]) == changed  # what `build` tells of such a directory
    try:
        Made.parse(manifest)
    except ValueError as error:
        said = str(error)
    assert said.isprintable()  # which a line's end is not
    assert len(said) < 300


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("job",), 3, "plan.job is 3, not an object"),
        (("job", "frames"), [1, "2"], "plan.job.frames[1] is '2', not a whole number"),
        (("job", "frames"), [], "plan.job.frames is empty"),
        (("job", "name"), "../cubes", "plan.job.name is '../cubes', which no dataset can be called"),
        (("job", "passes"), "depth", "plan.job.passes is 'depth', not a list"),
        (("render", "width"), 64.0, "plan.render.width is 64.0, not a whole number"),
        (("render", "image"), "gif", "plan.render.image is 'gif', not one of png, jpg, webp"),
        (("samples_per_shard",), True, "plan.samples_per_shard is True, not a whole number"),
        (("samples_per_shard",), 0, "plan.samples_per_shard is 0, not a whole number from 1 to 1000000"),
        (("seed",), -1, "plan.seed is -1, not a whole number from 0"),
    ],
)
def test_what_is_wrong_with_a_layout_is_said(place: tuple[str, ...], value: Any, message: str) -> None:
    plan = json.loads(canonical_json(MADE.identity()))
    at = plan
    for name in place[:-1]:
        at = at[name]
    at[place[-1]] = value
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ShardLayout.parse(plan)
    del at[place[-1]]
    with pytest.raises(ValueError, match=f"has no {place[-1]}$"):
        ShardLayout.parse(plan)
