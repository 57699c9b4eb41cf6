"""What all tests share."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import configuration, settings

from tests.own_folders import ROOT, _nothing_is_left, _working_directory  # noqa: F401  # fixtures for every test
from tests.own_processes import pytest_runtest_call  # noqa: F401  # for every test

# As for most users: else each of a thousand processes that the tests start compiles all modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

configuration.set_hypothesis_home_dir(ROOT / ".hypothesis")  # not wherever the tests are started

# A busy machine stalls single examples, so none has a deadline. Else as hypothesis sets itself, CI included.
settings.register_profile("blendshard", parent=settings(), deadline=None)
settings.load_profile("blendshard")


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a user has run before is kept in the home directory; the tests have one of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: so one of two processes is not left with a long file at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def blender_executable() -> str:
    """A Blender that this project has nothing installed in: Debian's, or any other on PATH."""
    return shutil.which("blender") or _lacking(
        "no Blender on PATH: scripts/system-packages --with-blender installs one"
    )


@pytest.fixture(scope="session")
def bpy_5_0() -> str:
    """A Python with Blender 5.0's wheel: a virtual environment that is kept, for its 350 MB."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("Blender 5.0 comes for Python 3.11")
    kept = Path(tempfile.gettempdir(), "bpy-5.0.1-for-tests")
    if not kept.exists():
        made = Path(tempfile.mkdtemp(prefix=f"{kept.name}-"))
        install = [made / "bin" / "python", "-m", "pip", "install", "-q", "bpy==5.0.1", "numpy==1.26.4"]
        for command in ([sys.executable, "-m", "venv", made], install):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                shutil.rmtree(made)
                _lacking(f"bpy 5.0.1 cannot be installed: {done.stderr}")
        try:
            made.rename(kept)
        except OSError:  # another run of the tests was quicker
            shutil.rmtree(made)
    return str(kept / "bin" / "python")


def _lacking(message: str) -> NoReturn:
    """Skip where a person runs the tests; fail where they must all run."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
