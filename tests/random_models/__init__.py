"""Random ONNX models: typed graphs of most operators, with control flow and recurrent layers.

`generate.py` builds a model from a seed, `check.py` compares what is compiled of many with ONNX
Runtime; `python -m random_models` (in tests/) runs a range of seeds. A family of operators is a
file of rules: functions that take a `Builder`, choose operands among the values that are visible,
and emit nodes. `amounts.py` has numbers that a call brings and that decide sizes; `elements.py`
types, `loops.py` and `sequences.py` structures.
"""
