"""Policies: reading, matching, deciding, planning. Pure except for reading the files."""
