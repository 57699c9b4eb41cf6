"""Everything that can go wrong for a user: one root; each class knows its exit code, each error its next step."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path


class BlendshardError(Exception):
    """One line that says what is wrong and where; `hint` says what to do next; `details` are lines of context."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.hint = hint
        self.details = list(details)


class Incomplete(BlendshardError):
    """Shards are missing: an episode cannot be rendered, or the disk cannot be written."""

    exit_code = 1


class UsageError(BlendshardError):
    """The command, the configuration, the job or the output directory is not usable as given."""

    exit_code = 2


class JobBroken(UsageError):
    """The user's job failed: in its file, or in one of its hooks."""


class VerificationFailed(BlendshardError):
    """A dataset is not what its manifest says."""

    exit_code = 3


class NothingInView(BlendshardError):
    """No sample shows any object, and the user has said that some must."""

    exit_code = 3


class OtherPlan(BlendshardError):
    """The directory holds a dataset of another plan."""

    exit_code = 4


class BlenderUnusable(BlendshardError):
    """No Blender that works."""

    exit_code = 5


class OtherPixels(BlendshardError):
    """Rendered again on another Blender build or processor, samples differ: no sign of damage."""

    exit_code = 6


class InstanceLost(Exception):
    """An instance died, hung or sent garbage; its order can be rendered again by another."""

    def __init__(self, reason: str, log: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.log = list(log)


def disk_error(error: OSError, place: Path) -> Incomplete:
    """Return what to tell the user when writing under `place` failed."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return Incomplete(
        f"cannot write {error.filename or place}: {error.strerror}",
        f"{'make room' if full else 'fix that'}, then run the same command again",
    )
