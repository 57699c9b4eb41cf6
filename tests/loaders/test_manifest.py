"""The manifest: what was written is read, and what was changed or cut is refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders.format import canonical_json
from loaders.manifest import FILE_NAME, Manifest, ManifestError, ShardInfo

_TEXT = st.text(max_size=10)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=5,
)
_OBJECTS = st.dictionaries(_TEXT, _JSON, max_size=3)
_DIGEST = st.binary(min_size=32, max_size=32).map(bytes.hex)
_SAMPLE_DIGESTS = st.lists(st.binary(min_size=4, max_size=4).map(bytes.hex), max_size=3)
_SHARDS = st.builds(
    lambda digests, **given: ShardInfo(samples=len(digests), sample_digests="".join(digests), **given),
    _SAMPLE_DIGESTS,
    name=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}\.tar", fullmatch=True),
    split=_TEXT,
    number=st.integers(0, 10**9 - 1),
    bytes=st.integers(0, 1 << 60),
    sha256=_DIGEST,
    content_sha256=_DIGEST,
)
_SHARD_LISTS = st.lists(_SHARDS, max_size=4, unique_by=(lambda shard: shard.number, lambda shard: shard.name))


def shard(number: int) -> ShardInfo:
    """Return a shard like no other."""
    digests = [hashlib.sha256(f"{kind}{number}".encode()).hexdigest() for kind in ("file", "content")]
    samples, name = 7 + number, f"cubes-train-{number:06d}.tar"
    return ShardInfo(name, "train", number, samples, 10240 + number, *digests, "0123abcd" * samples)


MANIFEST = Manifest(
    name="cubes",
    plan={"seed": 3, "job": {"fields": {"count": 10, "spread": 2.5}}},
    schema={"members": {"png": {"dtype": "uint8"}}},
    provenance={"command": "compile-dataset cubes"},
    shards=(shard(0), shard(1)),
)


@given(_TEXT, _OBJECTS, _OBJECTS, _OBJECTS, _SHARD_LISTS)
def test_what_is_written_is_read(
    name: str, plan: dict[str, Any], schema: dict[str, Any], provenance: dict[str, Any], shards: list[ShardInfo]
) -> None:
    manifest = Manifest(name, plan, schema, provenance)
    for entry in shards:
        manifest = manifest.with_shard(entry)
    again = Manifest.from_json(manifest.to_json())
    assert again == manifest
    assert again.to_json() == manifest.to_json()


@given(st.permutations(range(4)))
def test_shards_stand_by_number_in_whatever_order_they_were_finished(order: list[int]) -> None:
    manifest = Manifest("cubes", {}, {}, {})
    for number in order:
        manifest = manifest.with_shard(shard(number))
    assert manifest.shards == tuple(shard(number) for number in range(4))
    assert (manifest.samples, manifest.bytes) == (7 + 8 + 9 + 10, 4 * 10240 + 6)


def test_a_shard_rendered_anew_takes_the_place_of_the_old() -> None:
    anew = ShardInfo("cubes-train-000000.tar", "train", 0, 1, 1, "0" * 64, "0" * 64, "0" * 8)
    assert MANIFEST.with_shard(anew).shards == (anew, shard(1))


def test_the_digests_stay() -> None:
    # They are what users quote and compare: another spelling of the same JSON would be another dataset.
    assert MANIFEST.plan_digest == "fcdd35e6d4228600551073d807b40b72ea8d692ce2fe3d84ff019621ea1dd6d6"
    assert MANIFEST.digest == "970c3ade686c538ca372e9e7bba710cfbd254d412f52626a51e4210a49b9603d"


def test_every_cut_is_refused() -> None:
    content = MANIFEST.to_json().rstrip()
    for size in range(len(content)):
        with pytest.raises(ManifestError):
            Manifest.from_json(content[:size])


@given(st.binary() | _JSON.map(lambda value: json.dumps(value).encode()))
def test_no_content_gives_another_error(content: bytes) -> None:
    with pytest.raises(ManifestError):
        Manifest.from_json(content)


def altered(change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return the manifest's file with `change` applied to its JSON."""
    value = json.loads(MANIFEST.to_json())
    change(value)
    return json.dumps(value).encode()


Path_ = tuple[str | int, ...]
LEAVES: list[Path_] = [
    ("format",),
    ("digest",),
    ("plan_digest",),
    ("samples",),
    ("bytes",),
    ("plan", "seed"),
    ("plan", "job", "fields", "spread"),
    *(("shards", at, name) for at in (0, 1) for name in ("sha256", "samples", "bytes")),
]


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: ".".join(map(str, path)))
def test_one_changed_value_is_found(path: Path_) -> None:
    def change(value: Any) -> None:
        for name in path[:-1]:
            value = value[name]
        old = value[path[-1]]
        value[path[-1]] = old[:-1] + ("0" if old[-1] != "0" else "1") if isinstance(old, str) else old + 1

    with pytest.raises(ManifestError):
        Manifest.from_json(altered(change))


@pytest.mark.parametrize("field", list(json.loads(MANIFEST.to_json())))
def test_no_field_may_be_missing(field: str) -> None:
    with pytest.raises(ManifestError, match=f"{field}|is not a blendshard-1 manifest"):
        Manifest.from_json(altered(lambda value: value.pop(field)))


@pytest.mark.parametrize("field", list(ShardInfo.__dataclass_fields__))
@pytest.mark.parametrize("value", [None, True, 1.0, []])
def test_a_shards_field_of_another_type_is_named(field: str, value: object) -> None:
    with pytest.raises(ManifestError, match=rf"shards\[1\].{field} is missing or not a (int|str)"):
        Manifest.from_json(altered(lambda manifest: manifest["shards"][1].update({field: value})))


def test_an_entry_that_is_no_shard_is_named() -> None:
    with pytest.raises(ManifestError, match=r"shards\[2\] is not an object"):
        Manifest.from_json(altered(lambda manifest: manifest["shards"].append("cubes.tar")))


@pytest.mark.parametrize("field", ["sha256", "content_sha256"])
@pytest.mark.parametrize("value", ["", "0" * 63, "A" * 64, "0" * 64 + "\n"])
def test_a_digest_is_64_hexadecimal_digits(field: str, value: str) -> None:
    with pytest.raises(ManifestError, match=r"shards\[1\] has a digest that is not sha256"):
        Manifest.from_json(altered(lambda manifest: manifest["shards"][1].update({field: value})))


@pytest.mark.parametrize("digests", ["0" * 55, "0" * 48, "0" * 64, "G" * 56, "A" * 56])
def test_each_sample_has_its_digest(digests: str) -> None:
    with pytest.raises(ManifestError, match=r"shards\[0\].sample_digests (is not|does not have)"):
        Manifest.from_json(altered(lambda value: value["shards"][0].update(sample_digests=digests)))


@given(st.data())
def test_no_bit_of_the_file_can_change_unseen(data: st.DataObject) -> None:
    content = bytearray(MANIFEST.to_json())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ManifestError):
        Manifest.from_json(bytes(content))


def test_the_seal_is_the_files_sha256_without_its_own_digits() -> None:
    content = MANIFEST.to_json()
    seal = json.loads(content)["manifest_sha256"]
    assert hashlib.sha256(content.replace(seal.encode(), b"")).hexdigest() == seal


def test_an_edited_manifest_is_refused_in_plain_words() -> None:
    edited = MANIFEST.to_json().replace(b"compile-dataset cubes", b"compile-dataset cubos")
    with pytest.raises(ManifestError, match="manifest_sha256 does not match the file: it was edited or damaged"):
        Manifest.from_json(edited)


@pytest.mark.parametrize("field", ["number", "samples", "bytes"])
def test_nothing_is_counted_below_zero(field: str) -> None:
    with pytest.raises(ManifestError, match=r"shards\[0\] has a negative number"):
        Manifest.from_json(altered(lambda manifest: manifest["shards"][0].update({field: -1})))


@pytest.mark.parametrize(("field", "most"), [("number", 10**9), ("samples", 10**9), ("bytes", 2**63)])
def test_nothing_is_counted_beyond_what_keys_and_files_hold(field: str, most: int) -> None:
    with pytest.raises(ManifestError, match=rf"shards\[0\].{field} is not below {most}"):
        Manifest.from_json(altered(lambda manifest: manifest["shards"][0].update({field: most})))


@pytest.mark.parametrize(
    "key", ["0" * 5000 + "-000000", "000000-" + "1" * 10, "٠٠٠٠٠٠-٠٠٠٠٠٠", "0-0", "0000000-000001", "000000-000000\n"]
)
def test_a_skipped_key_is_one_that_a_sample_can_have(key: str) -> None:
    with pytest.raises(ManifestError, match="skipped is not an object of sample keys"):
        Manifest.from_json(altered(lambda value: value["skipped"].update({key: "died"})))


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        *(({"members": members}, "members is not an object") for members in (None, 3, "x", [], [[]], 1e300, -1)),
        *(({"members": {"png": entry}}, "members: 'png' is not an object") for entry in (None, 3, "x", [])),
        ({"members": {"png": {"dtype": 3}}}, "members: the dtype of 'png' is not a str"),
        *(
            ({"members": {"png": {"shape": shape}}}, "members: the shape of 'png' is not a list of sizes")
            for shape in (None, 3, "x", {}, [-1], [True], [2.0], ["x"])
        ),
        *(({"categories": entries}, "categories is not a list of objects") for entries in (None, 3, {}, [3], [[]])),
    ],
)
def test_a_schema_that_no_reader_could_use_is_refused(schema: dict[str, Any], problem: str) -> None:
    content = replace(MANIFEST, schema=schema).to_json()
    with pytest.raises(ManifestError, match=f"dataset.json: schema.{re.escape(problem)}"):
        Manifest.from_json(content)


def resealed(content: bytes) -> bytes:
    """Return the file with a seal that fits it."""
    seal = json.loads(content)["manifest_sha256"].encode()
    return content.replace(seal, hashlib.sha256(content.replace(seal, b"")).hexdigest().encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'{\n "bytes"', b'{\n "aside": 1,\n "bytes"'),
        (b' "name": "cubes",\n', b' "name": "cubes",\n "name": "cubes",\n'),
        (b'"samples": 15,', b'"samples": 15.0,'),
        (b'   "split": "train"', b'   "note": "",\n   "split": "train"'),
    ],
    ids=["a field more", "a field twice", "another number's spelling", "a shard's field more"],
)
def test_a_manifest_in_another_spelling_is_refused_though_its_seal_fits(old: bytes, new: bytes) -> None:
    content = MANIFEST.to_json()
    assert old in content
    assert resealed(content) == content
    with pytest.raises(ManifestError, match="was changed by hand or by another program"):
        Manifest.from_json(resealed(content.replace(old, new, 1)))


def test_a_pipe_is_no_manifest(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE_NAME)
    for place in (tmp_path, tmp_path / FILE_NAME):
        with pytest.raises(ManifestError, match="is not a regular file"):
            Manifest.load(place)


def test_a_name_that_no_file_can_have_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no dataset at"):
        Manifest.load(tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    "name",
    ["../a.tar", "/a.tar", "a/b.tar", "a\\b.tar", "C:a.tar", "..", ".a.tar", "-a.tar", "a.tar\n", "a.zip", "", "ä.tar"],
)
def test_a_shard_is_a_plain_file_beside_the_manifest(name: str) -> None:
    with pytest.raises(ManifestError, match=r"shards\[0\].name .* is not a plain file name"):
        Manifest.from_json(altered(lambda value: value["shards"][0].update(name=name)))


@pytest.mark.parametrize(
    "change",
    [
        lambda value: (
            value["shards"].reverse() or value.update(digest=Manifest("", {}, {}, {}, (shard(1), shard(0))).digest)
        ),
        lambda value: value["shards"][1].update(number=0),
        lambda value: value["shards"][1].update(name=value["shards"][0]["name"]),
    ],
    ids=["reversed", "number twice", "name twice"],
)
def test_shards_that_would_repeat_keys_or_files_are_refused(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(ManifestError, match="is listed twice, or shards are not in the order"):
        Manifest.from_json(altered(change))


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", r'"\ud800"', "[" * 100_000])
def test_what_could_not_be_written_is_not_read(value: str) -> None:
    content = MANIFEST.to_json().replace(b'"uint8"', value.encode())
    with pytest.raises(ManifestError, match="is not JSON"):
        Manifest.from_json(content)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_what_is_not_json_is_not_written(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        canonical_json({"value": value})


def test_canonical_json_does_not_depend_on_the_order_of_fields() -> None:
    assert canonical_json({"b": [1.0, "ä"], "a": None}) == canonical_json({"a": None, "b": [1.0, "ä"]})
    assert canonical_json({"a": "ä", "b": [1.0]}) == '{"a":"ä","b":[1.0]}'.encode()


def test_a_manifest_is_loaded_from_its_folder_or_file(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    file.write_bytes(MANIFEST.to_json())
    assert Manifest.load(tmp_path) == Manifest.load(str(file)) == MANIFEST
    file.write_bytes(b"{}")
    with pytest.raises(ManifestError, match=str(file)):
        Manifest.load(tmp_path)
    file.unlink()
    with pytest.raises(ManifestError, match=f"no dataset at {tmp_path}: No such file"):
        Manifest.load(tmp_path)
