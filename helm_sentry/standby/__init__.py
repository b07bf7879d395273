"""A warm process of the user's, from which runs are forked that would otherwise wait for an interpreter."""
