"""What exists after compilation: C sources that are linked into artifacts, and their loader."""
