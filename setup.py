"""What pyproject.toml cannot say: a README for package indexes, and the examples in the wheel."""

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
REPOSITORY = "https://github.com/blendshard/blendshard"
RAW = "https://raw.githubusercontent.com/blendshard/blendshard"


def readme() -> str:
    """Return the README with absolute links: a package index shows it without the other files."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"(!\[[^\]]*\]\()(?!https?:|#)", rf"\1{RAW}/main/", text)
    return re.sub(r"((?<!!)\[[^\]]*\]\()(?!https?:|#)", rf"\1{REPOSITORY}/blob/main/", text)


class BuildWithExamples(build_py):
    """Copies the examples to where `compile-dataset examples` finds them; a clone has them already."""

    def run(self) -> None:
        """Build the packages, then add the examples."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "compiler", "_examples")
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            shutil.copytree(ROOT / "examples", target, ignore=shutil.ignore_patterns("__pycache__"))


setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    cmdclass={"build_py": BuildWithExamples},
)
