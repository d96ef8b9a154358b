"""From fused nodes to a plan: kernels formed, tensors placed, control flow."""
