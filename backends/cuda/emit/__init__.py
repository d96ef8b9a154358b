"""Kernels as Triton text: the same loop-level form that becomes LLVM IR for processors."""
