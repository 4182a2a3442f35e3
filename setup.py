"""Packages of the wheel: the web app is installed as `fuselab_app`, `app` being any name."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["fusion_core*"]),
        *(f"fuselab_{name}" for name in find_packages(include=["app", "app.*"])),
    ],
    package_dir={"fuselab_app": "app"},
)
