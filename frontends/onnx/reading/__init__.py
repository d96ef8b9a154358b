"""Reading models: the wire format, tensors, names, and what makes a model valid."""
