"""Allowed operations, carried out by the supervisor on pinned objects."""
