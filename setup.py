"""Packages only; metadata and tool settings live in pyproject.toml."""

from setuptools import find_packages, setup

# The kernels stand at the top of the repository and are installed as tats.kernels, because another published package
# owns the import name `kernels`.
setup(
    packages=find_packages(include=["tats", "tats.*"])
    + ["tats.kernels"]
    + [f"tats.{name}" for name in find_packages(include=["kernels.*"])],
    package_dir={"tats.kernels": "kernels"},
)
