"""What backends share beyond loops: object files, linking, the toolchain."""
