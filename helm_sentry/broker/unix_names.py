"""Names of Unix sockets that the broker bound: what the agent wrote, and what the kernel was told instead.

A socket is bound in its pinned directory, by way of a descriptor: `/proc/self/fd/N/leaf`. The kernel keeps that text
as the socket's name and shows it to the socket and to its peers. So a directory keeps its number N for as long as the
name is remembered: the name means one socket file, and an agent that answers to it can be understood.
"""

import os

_MOST_DIRECTORIES = 64
_MOST_NAMES = 4096


class UnixNames:
    """What is remembered of the names; the oldest directory is forgotten, with its names, when there are too many."""

    def __init__(self) -> None:
        self._directories: dict[tuple[int, int], int] = {}
        self._written: dict[bytes, bytes] = {}

    def link(self, directory: int, leaf: bytes) -> bytes:
        """Return a path to a name in a directory that stays the same while it is remembered."""
        status = os.fstat(directory)
        key = (status.st_dev, status.st_ino)
        if key not in self._directories:
            if len(self._directories) >= _MOST_DIRECTORIES:
                self._forget(next(iter(self._directories)))
            self._directories[key] = os.dup(directory)
        return b"%b%b" % (_prefix(self._directories[key]), leaf)

    def add(self, link: bytes, written: bytes) -> None:
        """Remember that the agent wrote `written` for the socket that the kernel knows as `link`."""
        if len(self._written) >= _MOST_NAMES:
            del self._written[next(iter(self._written))]
        self._written[link] = written

    def written(self, link: bytes) -> bytes:
        """Return the agent's own spelling of a name that the kernel reports."""
        return self._written.get(link, link)

    def meant(self, path: bytes) -> bytes:
        """Return the path that the agent means by a name which it may have got from the kernel."""
        if path not in self._written:
            return path
        link, _, leaf = path.rpartition(b"/")
        return b"%b/%b" % (os.readlink(link), leaf) if link else path

    def _forget(self, key: tuple[int, int]) -> None:
        number = self._directories.pop(key)
        prefix = _prefix(number)
        self._written = {link: text for link, text in self._written.items() if not link.startswith(prefix)}
        os.close(number)


def _prefix(number: int) -> bytes:
    return b"/proc/self/fd/%d/" % number
