"""The compiler of command streams: Arm's Vela (extra `ethosu`)."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from ...compiler.errors import UsageError

VERSIONS = "5.2"
INSTALL = "pip install 'tensmith[ethosu]'"


def reason_unavailable() -> str | None:
    """Why there is no Vela to compile with here, or None."""
    try:
        found = installed_version()
    except metadata.PackageNotFoundError:
        return f"Vela is not installed: {INSTALL}"
    if found.split(".")[:2] != VERSIONS.split("."):
        return f"Vela {found} is installed, {VERSIONS}.* is needed: {INSTALL}"
    return None


def require_vela(what: str) -> None:
    """Raises UsageError, which says that `what` cannot be done, where there is no Vela to do it."""
    if reason := reason_unavailable():
        raise UsageError(f"{what} here", why=reason)


def installed_version() -> str:
    """The version of Vela that is here. Raises PackageNotFoundError where there is none."""
    return metadata.version("ethos-u-vela")


def own_config() -> str:
    """The text of the configuration file that comes with Vela, vela.ini."""
    from ethosu import config_files

    (folder,) = config_files.__path__
    return (Path(folder) / "Arm" / "vela.ini").read_text(encoding="utf-8")
