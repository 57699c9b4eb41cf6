"""What an instance is asked and answers: plain dataclasses, as JSON on the wire.

The compiler sends `Describe`, `Render`, `Probe` or `Survey`; the instance answers with `Hello` first, then `Described`;
or one `Rendered` a sample and `Done`; or `Probed`; or `Surveyed`; or, if the user's job is at fault, `JobFailed`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class JobSource:
    """Where a job's class is."""

    path: str
    """The Python file."""
    class_name: str = ""
    """Empty: the only `Job` class that the file defines."""
    folder: str = ""
    """Where the job's relative paths start; empty: the file's folder."""
    due: dict[str, str] = field(default_factory=dict)
    """The sha256 that each source must have before it runs, by its name from the file's folder; empty: any."""

    @property
    def base(self) -> Path:
        """Where the job's relative paths start, absolute."""
        return Path(self.folder or Path(self.path).parent).absolute()


def sources_sha256(sources: Mapping[str, str]) -> str:
    """Return the digest of a job's code: that of its file alone, or one over all its sources.

    Args:
        sources: the sha256 of each by its name: the job's file first, then the modules next to it.
    """
    if len(sources) == 1:
        return next(iter(sources.values()))
    return hashlib.sha256("".join(f"{name}\0{sha256}\n" for name, sha256 in sources.items()).encode()).hexdigest()


ENGINE_SAMPLES = {"cycles": 16, "eevee": 16, "workbench": 8}
"""The engines and their samples per pixel where the user names none."""

WORKBENCH_SAMPLES = (0, 5, 8, 11, 16, 32)
"""What Workbench offers; 0 is no anti-aliasing."""

IMAGE_QUALITY = {"png": 100, "jpg": 95, "webp": 95}
"""The image formats and their quality where the user names none; png is lossless, and so is webp at 100."""


DEVICES = ("cpu", "cuda", "optix", "hip", "oneapi", "metal")
"""What Cycles renders on; all but the first are GPUs, by the name of their programming interface."""

MOST_PIXELS = 1 << 27
"""The largest image, width times height: 16384 x 8192. All that decodes images goes so far, and no further."""

LONGEST_SIDE = {"png": 65536, "jpg": 65500, "webp": 16383}
"""The longest side that each image format has room for; Blender's own limit is 65536."""

OPENGL_SIDE = 16384
"""The longest side that OpenGL draws everywhere, in software, too: what EEVEE and Workbench can do."""


MISSING_FILES = ("refuse", "allow")
"""Where a file that a render needs is not there: an error, or the picture that Blender makes without it."""


@dataclass(frozen=True)
class RenderSettings:
    """What the user chose about the image; `blender_jobs._render.render` pins the rest.

    Raises:
        ValueError: a value out of its range; one line that says which and what fits.
    """

    engine: str
    """``cycles``, ``eevee`` or ``workbench``."""
    samples: int
    """Per pixel; 0 for Workbench means no anti-aliasing."""
    width: int
    height: int
    image: str
    """``png``, ``jpg`` or ``webp``: the image's member name."""
    quality: int
    """1 to 100; for png without effect."""
    device: str = "cpu"
    """What Cycles renders on, one of `DEVICES`."""
    denoise: bool = False
    """Whether Cycles' image is denoised, by OpenImageDenoise."""

    def __post_init__(self) -> None:
        if self.engine not in ENGINE_SAMPLES:
            raise ValueError(f"engine {self.engine!r} is not one of {', '.join(ENGINE_SAMPLES)}")
        if self.engine == "workbench" and self.samples not in WORKBENCH_SAMPLES:
            raise ValueError(
                f"workbench takes {', '.join(map(str, WORKBENCH_SAMPLES))} render samples, not {self.samples}"
            )
        if self.engine != "workbench" and not 1 <= self.samples <= 1 << 24:
            raise ValueError(f"{self.engine} takes 1 or more render samples, not {self.samples}")
        if self.image not in IMAGE_QUALITY:
            raise ValueError(f"image format {self.image!r} is not one of {', '.join(IMAGE_QUALITY)}")
        self._check_size()
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality {self.quality} is not within 1 and 100")
        if self.device not in DEVICES:
            raise ValueError(f"device {self.device!r} is not one of {', '.join(DEVICES)}")
        if self.engine != "cycles" and (self.device != "cpu" or self.denoise):
            raise ValueError(
                f"--device and --denoise are Cycles': {self.engine} renders with OpenGL, without denoising"
            )

    def _check_size(self) -> None:
        size, longest = f"the size {self.width}x{self.height}", LONGEST_SIDE[self.image]
        if min(self.width, self.height) < 4:
            raise ValueError(f"{size} is too small: sides have 4 pixels at least")
        if max(self.width, self.height) > longest:
            raise ValueError(f"{size} is too large for {self.image}: its sides have {longest} pixels at most")
        if self.engine != "cycles" and max(self.width, self.height) > OPENGL_SIDE:
            raise ValueError(f"{size} is too large for {self.engine}: OpenGL draws {OPENGL_SIDE} pixels a side at most")
        if self.width * self.height > MOST_PIXELS:
            raise ValueError(f"{size} is too large: images have {MOST_PIXELS} pixels at most, as 16384x8192 has")


@dataclass(frozen=True)
class SampleOrder:
    """One frame to render and the key it gets."""

    key: str
    frame: int


@dataclass(frozen=True)
class EpisodeOrder:
    """The frames wanted of one episode, in order."""

    episode: int
    samples: list[SampleOrder]


@dataclass(frozen=True)
class Asset:
    """A file that the job reads: a ``.blend``, a library, a mesh, a texture."""

    name: str
    """What it is called in the plan: its path from the job file's folder, or its bare name."""
    path: str
    """Where it is now."""
    size: int
    sha256: str


@dataclass(frozen=True)
class Describe:
    """Load the job, build its scene once, and say what it is."""

    job: JobSource
    settings: dict[str, Any]
    """Job fields by name: text as typed on the command line, or JSON values."""
    render: RenderSettings
    passes: list[str] = field(default_factory=list)
    """Empty: those that the job names; `passes.NONE` alone: no pass."""
    blend: str = ""
    """The ``.blend`` file in which `Job.setup` runs. Empty: the one that the job names, or an empty scene."""
    trust_blend: bool = False
    """Whether scripts and drivers in the ``.blend`` may run."""
    missing_files: str = MISSING_FILES[0]
    """What becomes of files that a render needs and that are not there, one of `MISSING_FILES`."""


@dataclass(frozen=True)
class Probe:
    """Render one tiny image with this engine."""

    engine: str


@dataclass(frozen=True)
class Survey:
    """Say what this Blender has."""


@dataclass(frozen=True)
class Hello:
    """The first message of an instance: which Blender it is."""

    version: str
    build_hash: str
    platform: str
    python: str
    numpy: str
    code_sha256: str
    """Digest over the sources of `blender_jobs`: what renders is part of what is rendered."""
    build: str = ""
    """What tells builds of one version apart: wheel or executable, branch and time, or the executable's digest."""
    problem: str = ""
    """Why Blender cannot be used (the failed import's message); the other fields are then empty."""


@dataclass(frozen=True)
class Described:
    """The job as loaded, every value resolved."""

    class_name: str
    doc: str
    source_sha256: str
    fields: dict[str, Any]
    portable_fields: dict[str, Any]
    """The same with the names of assets in the place of paths: what they are on any machine."""
    frames: list[int]
    """The frames that an episode keeps."""
    reuse_scene: bool
    settings: dict[str, Any]
    """Every render setting that is pinned, by its path in `bpy.types.Scene`."""
    cameras: list[str] = field(default_factory=list)
    """The camera objects that each frame is rendered with; empty: the scene's, and members without a prefix."""
    categories: list[dict[str, Any]] = field(default_factory=list)
    """As COCO's ``categories``; empty where the job declares none."""
    passes: list[str] = field(default_factory=list)
    """What each sample holds besides the image, in the order of `blender_jobs.passes`."""
    blend: str = ""
    trust_blend: bool = False
    assets: list[Asset] = field(default_factory=list)
    sources: list[Asset] = field(default_factory=list)
    """The job's file and the modules next to it that it imports, named from its folder."""
    devices: list[str] = field(default_factory=list)
    """The names of the GPUs that render; empty for the CPU."""
    missing_files: str = MISSING_FILES[0]
    """One of `MISSING_FILES`."""
    missing: list[str] = field(default_factory=list)
    """The files that a render of the scene, as `setup` leaves it, does without, named as in `assets`; sorted."""
    notes: list[str] = field(default_factory=list)
    """What the user should know: scripts in the ``.blend`` that were not run, for one."""


@dataclass(frozen=True)
class Render:
    """Render these episodes, in this order; answer with one `Rendered` a sample, then `Done`."""

    job: JobSource
    described: Described
    seed: int
    render: RenderSettings
    threads: int
    episodes: list[EpisodeOrder]
    save_blend: str = ""
    """Where to save each episode's scene before its first frame is rendered; empty: nowhere."""


@dataclass(frozen=True)
class Rendered:
    """One sample; its members' bytes follow one another in the payload."""

    key: str
    episode: int
    frame: int
    members: dict[str, int]
    """Member name to size in bytes."""
    notes: dict[str, str] = field(default_factory=dict)
    """What the user should know of the job, found while rendering, by what it is about: one note of each is enough."""


@dataclass(frozen=True)
class Done:
    """The order is done."""

    samples: int


@dataclass(frozen=True)
class Probed:
    """What a `Probe` found."""

    device: str


@dataclass(frozen=True)
class Surveyed:
    """What a Blender has besides its engines."""

    gpus: dict[str, list[str]]
    """The names of the GPUs by each of `DEVICES` that Cycles was built with."""
    importers: dict[str, bool]
    """Whether mesh files with this suffix can be read."""


@dataclass(frozen=True)
class JobFailed:
    """The user's job is at fault: rendering again would fail again."""

    message: str
    """One line: where and why."""
    trace: list[str] = field(default_factory=list)
    """The user's own lines of the traceback."""
    episode: int = -1


Request = Describe | Render | Probe | Survey
Answer = Hello | Described | Rendered | Done | Probed | Surveyed | JobFailed
MESSAGES = {message.__name__: message for message in (*get_args(Request), *get_args(Answer))}


def to_head(message: Request | Answer) -> dict[str, Any]:
    """Return the message as a JSON-ready object, its class under ``type``."""
    return {"type": type(message).__name__, **dataclasses.asdict(message)}


def from_head(head: dict[str, Any]) -> Request | Answer:
    """Rebuild a message, checking every field's type.

    Raises:
        ValueError: an unknown message, a field that is missing, unknown or of another type.
    """
    name = head.get("type")
    if not isinstance(name, str) or name not in MESSAGES:
        raise ValueError(f"unknown message {name!r}")
    values = {key: value for key, value in head.items() if key != "type"}
    message: Request | Answer = _build(MESSAGES[name], values, name)
    return message


def _build(kind: Any, value: Any, where: str) -> Any:
    """Return `value` (parsed JSON) as an instance of the annotated type `kind`."""
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    container, arguments = get_origin(kind), get_args(kind)
    if container is list and isinstance(value, list):
        return [_build(arguments[0], item, f"{where}[{at}]") for at, item in enumerate(value)]
    if container is dict and isinstance(value, dict):
        return {key: _build(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if type(value) is not kind:
        raise ValueError(f"{where} is {type(value).__name__}, not {kind}")
    return value


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not an object")
    types = get_type_hints(kind, vars(sys.modules[__name__]))
    wanted = {entry.name: entry for entry in dataclasses.fields(kind)}
    if unknown := sorted(set(value) - set(wanted)):
        raise ValueError(f"{where} has unknown fields {unknown}")
    given = {name: _build(types[name], item, f"{where}.{name}") for name, item in value.items()}
    try:
        return kind(**given)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from None
