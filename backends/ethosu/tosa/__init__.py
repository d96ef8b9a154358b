"""TOSA, the operators that Vela compiles: graphs of them, and the files that hold these."""
