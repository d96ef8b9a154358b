"""Rewrite rules by what they simplify; `canonicalize` applies them together."""
