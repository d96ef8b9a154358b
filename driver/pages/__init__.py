"""HTML pages that need no network: plots as SVG text, and their style."""
