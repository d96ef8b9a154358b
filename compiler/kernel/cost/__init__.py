"""What a kernel costs: cycles, traffic, and what loses time."""
