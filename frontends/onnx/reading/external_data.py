"""Where external data lies: files that a model names, confined to the folders of the model.

A download cache keeps files in a store under other names, and lays links to them out as the model
was published: the model's own links say which folders belong to it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ....compiler.scratch import is_copy

_MOST_LINKS = 40  # as many as the system follows
_DIGEST = re.compile(r"[0-9a-fA-F]{30}")
_SHARD = re.compile(r"[0-9A-Za-z]{2,3}")
_MOST_SHARDS = 2
_LOOSE = "give the path of the model, beside which it lies, or in Python its folder (folder=...)"


@dataclass(frozen=True)
class ModelFolder:
    """The folders in which the files of a model may lie, without links; the first comes first.

    stores: further folders, to which links in the first ones may lead. remedy: what to do where a
    file is not there.
    """

    folders: tuple[Path, ...]
    stores: tuple[Path, ...] = ()
    remedy: str = "put it beside the model, or export it again"

    @staticmethod
    def of_file(path: Path) -> ModelFolder:
        """The folder of a model file and, where that is a link, those that it leads to."""
        current, folders = path.absolute(), dict[Path, None]()
        for _ in range(_MOST_LINKS):
            folders[current.parent.resolve()] = None
            if not current.is_symlink():
                break
            current = current.parent / current.readlink()
        stores = (_store(current),) if len(folders) > 1 else ()
        if is_copy(path):
            return ModelFolder(tuple(folders), stores, _LOOSE)
        return ModelFolder(tuple(folders), stores)

    @staticmethod
    def of_folder(folder: Path) -> ModelFolder:
        """A folder that is named as a model's: with what links to model files in it lead to."""
        links = [path for path in sorted(folder.glob("*.onnx")) if path.is_symlink()]
        found = [ModelFolder.of_file(path) for path in links]
        folders = {folder.resolve(): None} | {f: None for each in found for f in each.folders}
        return ModelFolder(tuple(folders), tuple(store for each in found for store in each.stores))

    def find(self, location: str) -> Path:
        """The regular file at a location relative to the model, links followed.

        Raises ValueError with the reason why there is none, or why it is not the model's: the
        location is absolute or leads upwards, or a link leads out of the model's folders.
        """
        shown = f"external data '{location[:80]}'"
        parts = location.replace("\\", "/").split("/")
        if not location or "\0" in location or os.path.isabs(location) or ".." in parts:
            raise ValueError(f"{shown} is outside the model's folder")
        places = [folder.joinpath(*parts) for folder in self.folders]
        path = next(filter(os.path.lexists, places), places[0])
        try:
            found = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            why = error.strerror if isinstance(error, OSError) else None
            raise ValueError(f"{shown}: {why or 'its links form a circle'}") from None
        roots = (*self.folders, *self.stores)
        if not any(found.is_relative_to(root) for root in roots):
            raise ValueError(
                f"{shown} is reached through a link to '{found}', which is in none of the model's "
                f"folders ({', '.join(map(str, roots))}); put the file itself there"
            )
        if not found.is_file():
            raise ValueError(f"{shown} is not a regular file")
        return found


def _store(path: Path) -> Path:
    """The folder of a store of files that holds this one.

    Where files are called by their digests, stores spread them over folders called as the digests
    begin (`1f/3a/1f3a...`), or give each a folder of its name.
    """
    folder = path.parent.resolve()
    if not _DIGEST.search(path.name):
        return folder
    if folder.name == path.name:
        folder = folder.parent
    for _ in range(_MOST_SHARDS):
        folder = folder.parent if _SHARD.fullmatch(folder.name) else folder
    return folder
