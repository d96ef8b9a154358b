"""Loop code: from kernels and plans to LLVM IR."""
