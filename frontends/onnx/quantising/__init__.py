"""Quantising a model of floats: as a file of QuantizeLinear and DequantizeLinear."""
