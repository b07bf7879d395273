"""The compiled receiver: decided opens for reading, repeated without the interpreter. Optional at run time."""
