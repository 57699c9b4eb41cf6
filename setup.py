"""The distribution: three packages, one command, and the extras that each kind of machine needs."""

from pathlib import Path

from setuptools import find_packages, setup

README = Path(__file__).with_name("README.md")

# A wheel of bpy is made for one Python, and not for every machine: Linux on x86-64 alone, macOS on
# Intel processors up to 4.5. Where there is none, the extra asks for nothing, so that the installation works
# and `compile-dataset doctor` can say what to do: another Python, or `--blender` with an installed Blender.
# One build for each Python, the tested one: another build is another plan, with other pixels.
BPY = [
    "bpy==4.5.15; python_version == '3.11' and platform_machine != 'aarch64'",
    "bpy==5.2.3; python_version == '3.13' and platform_machine != 'aarch64'"
    " and (sys_platform != 'darwin' or platform_machine == 'arm64')",
]

setup(
    name="blendshard",
    version="0.1.0",
    description="Compiles image datasets: randomized, physics-enabled Blender scenes into WebDataset shards",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author="Blendshard contributors",
    license="MIT",
    license_files=["LICENSE"],
    keywords=["Blender", "WebDataset", "synthetic data", "keypoints", "PyTorch", "dataset"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Graphics :: 3D Rendering",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["blender_jobs*", "compiler*", "loaders*"]),
    package_data={"blender_jobs": ["py.typed"], "compiler": ["py.typed"], "loaders": ["py.typed"]},
    install_requires=[
        "aiohttp>=3.14.3",
        "click>=8.2",
        "fastjsonschema>=2.19",
        "filelock>=3.12",
        "numpy>=1.26",
        "pillow>=10.1",
        "tqdm>=4.66",
    ],
    extras_require={
        "blender": BPY,
        "loaders": ["braceexpand", "torch>=2.3", "webdataset>=1.0"],
        "test": [
            "hypothesis>=6.100",
            "mypy>=1.18",
            "pytest>=8.4",
            "pytest-xdist>=3.8",
            "ruff>=0.13",
            "setuptools>=77",
            "types-tqdm",
            "webdataset>=1.0",
        ],
    },
    entry_points={"console_scripts": ["compile-dataset = compiler.cli:main"]},
)
