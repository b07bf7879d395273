"""For every test: no example of a property has a deadline, since the machine may be busy with something else."""

from hypothesis import settings

settings.register_profile("house", deadline=None)
settings.load_profile("house")
