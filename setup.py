"""Names the packages: the repository root is `tensmith`, its subfolders are found.

Everything else about the project is in `pyproject.toml`.
"""

from setuptools import find_packages, setup

FOLDERS = ("compiler", "passes", "frontends", "backends", "runtime", "driver")

setup(
    script_name="setup.py",  # kept out of the package, whose folder it lies in
    packages=[
        "tensmith",
        *(
            f"tensmith.{name}"
            for root in FOLDERS
            for name in find_packages(include=[root, f"{root}.*"])
        ),
    ],
)
