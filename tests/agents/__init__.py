"""Real agents from their registries, driven by a scripted model on loopback. Run by hand: see `try_agents.py`."""
