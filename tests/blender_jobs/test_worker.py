"""An instance ends with its compiler, however that ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.in_blender import needs_bpy


@needs_bpy
def test_an_instance_that_nobody_hears_ends_at_once(tmp_path: Path) -> None:
    """A compiler that is killed takes both pipes with it: not even the traceback of the lost answer can be written."""
    command = [sys.executable, "-P", "-m", "blender_jobs._worker.worker", "--scratch", str(tmp_path / "scratch")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as instance:
        assert instance.stdout is not None
        assert instance.stderr is not None
        instance.stdout.close()
        instance.stderr.close()
        try:
            assert instance.wait(60) == 1
        finally:
            instance.kill()
