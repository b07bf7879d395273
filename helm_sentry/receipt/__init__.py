"""Signed statements about a run, and their offline verification."""
