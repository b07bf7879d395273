"""The tamper-evident log."""
