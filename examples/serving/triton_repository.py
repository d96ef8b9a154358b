"""Makes a model repository for Triton Inference Server of what a plan chose.

python examples/serving/triton_repository.py PLAN REPOSITORY
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from tensmith.runtime.loader import Spec, load

TYPES = {
    "f64": "TYPE_FP64", "f32": "TYPE_FP32", "f16": "TYPE_FP16", "bf16": "TYPE_BF16",
    "i64": "TYPE_INT64", "i32": "TYPE_INT32", "i16": "TYPE_INT16", "i8": "TYPE_INT8",
    "u64": "TYPE_UINT64", "u32": "TYPE_UINT32", "u16": "TYPE_UINT16", "u8": "TYPE_UINT8",
    "bool": "TYPE_BOOL",
}  # fmt: skip


def configuration(
    name: str, inputs: tuple[Spec, ...], outputs: tuple[Spec, ...], instances: int, threads: int
) -> str:
    """The text of `config.pbtxt`. Sizes that the model leaves open are -1."""
    return (
        f'name: "{name}"\nbackend: "python"\nmax_batch_size: 0\n'
        f"{_tensors('input', inputs)}{_tensors('output', outputs)}"
        f"instance_group [ {{ count: {instances} kind: KIND_CPU }} ]\n"
        f'parameters {{ key: "threads" value {{ string_value: "{threads}" }} }}\n'
    )


def _tensors(role: str, specs: tuple[Spec, ...]) -> str:
    entries = []
    for spec in specs:
        dims = ", ".join(str(dim) if isinstance(dim, int) else "-1" for dim in spec.dims)
        kind = TYPES[spec.dtype]
        entries.append(f'  {{ name: "{spec.name}" data_type: {kind} dims: [ {dims} ] }}')
    joined = ",\n".join(entries)
    return f"{role} [\n{joined}\n]\n" if entries else ""


def main() -> None:
    """Write the folder of the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path, help="folder of `tensmith plan`")
    parser.add_argument("repository", type=Path, help="folder of models; made if need be")
    options = parser.parse_args()
    plan = json.loads((options.plan / "plan.json").read_text(encoding="utf-8"))
    if plan["chosen"] is None:
        raise SystemExit("the plan chose nothing: nothing keeps what it was to promise")
    point = plan["points"][plan["chosen"]]
    library = options.plan / "work" / "builds" / f"{point['name']}.so"
    name = Path(point["model"]).stem
    folder = options.repository / name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    shutil.copy(library, folder / "1" / "model.so")
    shutil.copy(Path(__file__).with_name("triton_model.py"), folder / "1" / "model.py")
    layout = point["layout"]
    with load(library) as model:
        text = configuration(
            name, model.inputs, model.outputs, layout["instances"], layout["threads"]
        )
    (folder / "config.pbtxt").write_text(text, encoding="utf-8")
    print(folder)


if __name__ == "__main__":
    main()
