"""Models of the zoo with a symbolic batch."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: nothing is exported")
pytest.importorskip("transformers", reason="transformers is not installed: nothing is exported")

from tensmith.benchmarks import zoo  # noqa: E402  (needs torch)


def spec(x: object, dynamic: object = None) -> zoo.ZooModel:
    return zoo.ZooModel(torch.nn.Identity(), {"x": x}, [{"x": x}], ["x"], ["y"], dynamic)


def test_samples_are_of_all_batches() -> None:
    found = zoo.batched(spec(torch.arange(200.0).reshape(1, 200)))
    assert [sample["x"].shape[0] for sample in found.samples] == list(zoo.BATCHES)
    assert len(torch.unique(found.samples[-1]["x"], dim=0)) == zoo.BATCHES[-1]
    assert found.dynamic == {"x": {0: "batch"}}


def test_models_without_a_variant_are_told_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of all models those are left out; by name, that is an error."""
    one = torch.zeros(1, 4)
    specs = {
        "dyn": spec(one, {"x": {0: "batch"}}),
        "lists": spec([one, one]),
        "two": spec(torch.zeros(2, 4)),
        "fits": spec(one),
    }
    monkeypatch.setattr(zoo, "MODELS", {name: lambda s=s: s for name, s in specs.items()})
    monkeypatch.setattr(zoo, "known", lambda: zoo.MODELS)
    written = []
    monkeypatch.setattr(zoo, "write_model", lambda spec, path: written.append(spec) or path.touch())
    monkeypatch.setattr(zoo, "check", lambda spec, folder: 0.0)
    options = ["--batch", "--output", str(tmp_path)]
    assert zoo.main(options) == 0
    told = capsys.readouterr().err
    assert "dyn: left out: its dimensions are symbolic already" in told
    assert "lists: left out: 'x' is a list of inputs" in told
    assert "two: left out: axis 0 of 'x' is no batch of one" in told
    assert [path.name for path in (tmp_path / "batch").iterdir()] == ["fits"]
    assert len(written) == 1
    assert zoo.main([*options, "lists"]) == 1
