"""Forms: the algorithms that a fused group can take, and the choice among them."""
