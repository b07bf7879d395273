"""The verifier as one file for machines without this package: its own modules, put together (ADR 0012)."""
