"""Models of quantised tensors in integer arithmetic alone, for processors that have no floats."""
