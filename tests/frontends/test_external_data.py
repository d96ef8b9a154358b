"""External data: links as download caches lay them are followed, and lead out of no model."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tensmith.compiler.errors import InvalidModelError
from tensmith.frontends.onnx import load, load_model, reduction

from .oracle import model, node

DATA = bytes(range(16))
DIGESTS = ("1f" * 32, "77" * 32)


def proto(location: str) -> onnx.ModelProto:
    """A model whose output is 16 bytes of a file."""
    tensor = onnx.TensorProto(
        name="w", data_type=TensorProto.UINT8, dims=[16], data_location=TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value=location)
    made = model([node("Identity", "w")], {}, ["y"], types=[TensorProto.UINT8])
    made.graph.initializer.append(tensor)
    return made


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def link(path: Path, target: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent))
    return path


def check(path: Path) -> None:
    (found,) = load(path).constants()
    np.testing.assert_array_equal(found.data, np.arange(16, dtype=np.uint8))


def refuse(path: Path, why: str) -> None:
    with pytest.raises(InvalidModelError, match=why) as caught:
        load(path)
    assert "put it beside the model" in str(caught.value)


@pytest.mark.parametrize("location", ["model.onnx_data", "weights/model.bin", "./model.bin"])
def test_a_snapshot_of_links_into_a_folder_of_blobs(tmp_path: Path, location: str) -> None:
    snapshot, blobs = tmp_path / "snapshots" / "abc" / "onnx", tmp_path / "blobs"
    write(blobs / "1f3a", proto(location).SerializeToString())
    link(snapshot / "model.onnx", blobs / "1f3a")
    link(snapshot / location, write(blobs / "77c0", DATA))
    check(snapshot / "model.onnx")


def test_links_to_links_and_folders_that_are_links(tmp_path: Path) -> None:
    store = tmp_path / "store"
    write(store / "v1" / "model.onnx", proto("data.bin").SerializeToString())
    write(store / "v1" / "data.bin", DATA)
    link(tmp_path / "current", store / "v1")
    check(tmp_path / "current" / "model.onnx")
    check(link(tmp_path / "other" / "m.onnx", tmp_path / "current" / "model.onnx"))
    link(tmp_path / "third" / "m.onnx", tmp_path / "other" / "m.onnx")
    check(tmp_path / "third" / "m.onnx")


def test_stores_that_spread_files_over_folders(tmp_path: Path) -> None:
    for place, form in enumerate(("{0}/{1}", "{0}/{0}/{1}", "{0}/{1}/{1}")):
        store, folder = tmp_path / f"store{place}", tmp_path / f"model{place}"
        blobs = [store / form.format(digest[:2], digest) for digest in DIGESTS]
        link(folder / "m.onnx", write(blobs[0], proto("data.bin").SerializeToString()))
        link(folder / "data.bin", write(blobs[1], DATA))
        check(folder / "m.onnx")


def test_a_link_within_the_folder_of_the_model(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", proto("data.bin").SerializeToString())
    link(tmp_path / "data.bin", write(tmp_path / "parts" / "0.bin", DATA))
    check(path)


def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret" / "data.bin", DATA)
    folder = tmp_path / "model"
    path = write(folder / "m.onnx", proto("data.bin").SerializeToString())
    link(folder / "data.bin", secret)
    refuse(path, r"a link to '.*secret.*none of the model's folders")
    refuse(link(tmp_path / "other" / "m.onnx", path), "none of the model's folders")
    refuse(link(folder / "again.onnx", path), "none of the model's folders")
    (folder / "data.bin").unlink()
    link(folder / "data.bin", link(folder / "hop", secret))
    refuse(path, "none of the model's folders")
    sub = write(folder / "s.onnx", proto("sub/data.bin").SerializeToString())
    link(folder / "sub", secret.parent)
    refuse(sub, "none of the model's folders")


def test_a_store_is_no_licence_for_what_lies_beside_it(tmp_path: Path) -> None:
    blobs = tmp_path / "cache" / "blobs"
    write(blobs / DIGESTS[0], proto("data.bin").SerializeToString())
    link(tmp_path / "snapshot" / "m.onnx", blobs / DIGESTS[0])
    link(tmp_path / "snapshot" / "data.bin", write(tmp_path / "cache" / "token", DATA))
    refuse(tmp_path / "snapshot" / "m.onnx", "none of the model's folders")


@pytest.mark.parametrize("dims", [16, 4096])
def test_what_git_lfs_did_not_fetch(tmp_path: Path, dims: int) -> None:
    """Also where the tensor is no larger than the few lines that lie in its place."""
    made = proto("data.bin")
    made.graph.initializer[0].dims[0] = dims
    path = write(tmp_path / "m.onnx", made.SerializeToString())
    lines = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"
    write(tmp_path / "data.bin", lines)
    for read in (load, reduction.read):
        with pytest.raises(InvalidModelError, match="is a pointer of Git LFS") as caught:
            read(path)
        assert caught.value.remedy == "run `git lfs pull`"


def test_reduction_follows_the_links_too(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    link(snapshot / "m.onnx", write(blobs / "1f3a", proto("data.bin").SerializeToString()))
    link(snapshot / "data.bin", write(blobs / "77c0", DATA))
    assert reduction.read(snapshot / "m.onnx").graph.initializer[0].raw_data == DATA


@pytest.mark.parametrize("target", ["/dev/zero", "missing", "data.bin", "."])
def test_links_to_what_is_no_file(tmp_path: Path, target: str) -> None:
    path = write(tmp_path / "m.onnx", proto("data.bin").SerializeToString())
    (tmp_path / "data.bin").symlink_to(target)
    refuse(path, "external data 'data.bin'")


@pytest.mark.parametrize("location", ["../data.bin", "sub/../../data.bin", "..\\data.bin"])
def test_locations_that_lead_upwards(tmp_path: Path, location: str) -> None:
    write(tmp_path / "data.bin", DATA)
    (tmp_path / "model" / "sub").mkdir(parents=True)
    path = write(tmp_path / "model" / "m.onnx", proto(location).SerializeToString())
    refuse(path, "outside the model's folder")
    refuse(link(tmp_path / "m.onnx", path), "outside the model's folder")


def test_a_parsed_model_has_the_folder_that_is_given(tmp_path: Path) -> None:
    link(tmp_path / "linked", write(tmp_path / "real" / "data.bin", DATA).parent)
    (found,) = load_model(proto("data.bin"), folder=tmp_path / "linked").constants()
    np.testing.assert_array_equal(found.data, np.arange(16, dtype=np.uint8))
    with pytest.raises(InvalidModelError, match="has no folder"):
        load_model(proto("data.bin"))


def test_a_folder_of_links_for_a_parsed_model(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    link(snapshot / "m.onnx", write(blobs / "1f3a", b""))
    link(snapshot / "data.bin", write(blobs / "77c0", DATA))
    (found,) = load_model(proto("data.bin"), folder=snapshot).constants()
    np.testing.assert_array_equal(found.data, np.arange(16, dtype=np.uint8))
    (snapshot / "m.onnx").unlink()
    with pytest.raises(InvalidModelError, match="none of the model's folders"):
        load_model(proto("data.bin"), folder=snapshot)
