"""A field of the job's own that is called nearly as what `View.describe` knows is refused; any other is taken."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from blender_jobs._annotations import ARGUMENTS, check_own_fields
from compiler.planning.schemas import ANNOTATIONS

FIELDS = list(ANNOTATIONS["properties"]["objects"]["items"]["properties"])
OWN = """
grasped colour color mass_kg mood pos position velocity speed radius m id index instance track_id text glyphs box
bbox2d keypoints_3d keypoints3d pose2 state joint_angles joints material occluded occlusion visibility visible
is_truncated truncated depth distance_m size scale rotation quaternion label class_name subcategory supercategory parent
tolerance_class tolerances world_position kind model score attributes self
"""
"""What users have in mind for robots, traffic, animals: none is a slip of ours."""


def test_the_arguments_are_those_of_describe() -> None:
    source = Path(__file__).resolve().parents[2] / "blender_jobs" / "view.py"
    functions = [node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.FunctionDef)]
    taken = next(node.args for node in functions if node.name == "describe")
    optional = [*taken.args[-len(taken.defaults) :], *taken.kwonlyargs]
    assert [argument.arg for argument in optional] == list(ARGUMENTS)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("self_tolerance", "self_tolerance_m"),
        ("self_tolerence_m", "self_tolerance_m"),
        ("tolerance", "self_tolerance_m"),
        ("tolerance_m", "self_tolerance_m"),
        ("selftolerance_m", "self_tolerance_m"),
        ("keypoint", "keypoints"),
        ("key_points", "keypoints"),
        ("keypoints_names", "keypoint_names"),
        ("part", "parts"),
        ("catagory", "category"),
        ("dimension", "dimensions"),
        ("bbox3d", "box3d"),
        ("matrixworld", "matrix_world"),
    ],
)
def test_a_slip_is_refused_with_what_was_meant(name: str, meant: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^object 'cup': .* know '{name}'; did you mean its \w+ '{meant}'\?"
    ) as caught:
        check_own_fields("cup", [name], FIELDS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_there_is_cannot_be_given_again(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is already a field"):
        check_own_fields("cup", [name], FIELDS)


@pytest.mark.parametrize("name", OWN.split())
def test_other_fields_are_taken(name: str) -> None:
    check_own_fields("cup", [name], FIELDS)
