"""From an LLVM module to optimised machine code."""

from __future__ import annotations

from functools import cache

from llvmlite import binding, ir

from ...compiler.errors import InternalError
from ...compiler.target import CpuTarget
from .emit.target_module import TargetModule

# LLVM's features by the names that targets and the run-time check use
_LLVM_FEATURES = {"avx512_vnni": "avx512vnni", "avx512_bf16": "avx512bf16"}


@cache
def _initialise() -> None:
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()


def _features(target: CpuTarget) -> str:
    """What code may use and what not, as LLVM reads it."""
    used = (f"+{_LLVM_FEATURES.get(feature, feature)}" for feature in target.features)
    return ",".join((*used, *(f"-{feature}" for feature in target.lacks)))


def target_machine(target: CpuTarget, opt_level: int) -> binding.TargetMachine:
    """LLVM's code generator for a target: small code model; position independent, unless nothing
    there loads programs."""
    _initialise()
    generator = binding.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu,
        features=_features(target),
        opt=min(opt_level, 3),
        reloc="static" if target.bare else "pic",
        codemodel="small",
    )
    generator.set_asm_verbosity(False)
    return generator


def new_module(name: str, target: CpuTarget) -> ir.Module:
    """An empty module for the target."""
    module = TargetModule(
        name, target.triple, target.instructions, features=target.features, bare=target.bare
    )
    if target.bare:
        module.data_layout = str(target_machine(target, 0).target_data)
    return module


def set_attributes(module: ir.Module, target: CpuTarget) -> None:
    """Give every defined function the attributes that keep full-width vectors."""
    quoted = [
        f'"target-cpu"="{target.cpu}"',
        f'"tune-cpu"="{target.tune}"',
        f'"target-features"="{_features(target)}"',
    ]
    if target.vector_bits == 512:
        quoted += ['"prefer-vector-width"="512"', '"min-legal-vector-width"="512"']
    for function in module.functions:
        if function.blocks:
            function.attributes.add("nounwind")
            for text in quoted:
                set.add(function.attributes, text)


def parse(module: ir.Module) -> binding.ModuleRef:
    """LLVM's form of the module. Raises InternalError with LLVM's message when it is invalid."""
    text = str(module)
    try:
        parsed = binding.parse_assembly(text)
        parsed.verify()
    except RuntimeError as error:
        raise InternalError("the generated LLVM module is invalid", why=str(error)) from error
    return parsed


def optimise(parsed: binding.ModuleRef, generator: binding.TargetMachine, opt_level: int) -> None:
    """Run LLVM's passes. Loops and tiles are ours already: no vectoriser, no unroller."""
    options = binding.create_pipeline_tuning_options(speed_level=min(opt_level, 2))
    options.loop_vectorization = False
    options.slp_vectorization = False
    options.loop_unrolling = False
    options.loop_interleaving = False
    builder = binding.create_pass_builder(generator, options)
    builder.getModulePassManager().run(parsed, builder)
