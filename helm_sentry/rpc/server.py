"""A gRPC server with the service, health and reflection; reached through a tunnel that knows its callers, or TLS.

gRPC does not tell who is at the other end of a Unix socket. So it listens on one that has no name any more, which only
this process can reach, and whoever passed the gate is connected to it from an address that says who it is.

What callers on TCP do to this process, with a certificate or without, has a bound of its own: they are served by a
second server with its own threads, and nothing of it is missing to those on the Unix socket.
"""

import itertools
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from helm_sentry.control.gate import MOST_PEERS, address
from helm_sentry.control.peer import Peer
from helm_sentry.errors import SentryError
from helm_sentry.rpc import sentry_pb2
from helm_sentry.rpc.callers import EVERYBODY, Caller, Callers
from helm_sentry.rpc.sentry_pb2_grpc import add_SentryServicer_to_server
from helm_sentry.rpc.service import MOST_WATCHERS, Sentry, Streams

_INNER = "grpc-inner"
_NAMES = (sentry_pb2.DESCRIPTOR.services_by_name["Sentry"].full_name, health.SERVICE_NAME)
_THREADS = MOST_WATCHERS + 32
_CHUNK = 1 << 16
_OPTIONS = (
    ("grpc.max_receive_message_length", 8 << 20),
    ("grpc.so_reuseport", 0),
    ("grpc.max_allowed_incoming_connections", MOST_PEERS),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_concurrent_streams", MOST_WATCHERS),
)
_MOST_CALLS = 256  # at once, those that wait for a thread among them


@dataclass(frozen=True, slots=True)
class Tls:
    """A TCP address for callers with a certificate.

    Attributes:
        host_and_port: where to listen.
        certificate: file with the server's own certificate.
        key: file with its private key.
        callers: file with the authority that signs the callers' certificates.
    """

    host_and_port: str
    certificate: str
    key: str
    callers: str


class Server:
    """The gRPC server.

    Args:
        directory: an open directory that only this user can enter.
        tls: a TCP address to listen on, too.
        callers: returns the list that says who may do what, as it is now.

    Raises:
        SentryError: an address cannot be had.
    """

    def __init__(
        self, directory: int, tls: Tls | None = None, callers: Callable[[], Callers] = lambda: EVERYBODY
    ) -> None:
        self._directory, self._numbers = directory, itertools.count()
        self._health = health.HealthServicer()
        near, far = self._make(callers), self._make(callers) if tls else None
        self._servers = [each for each in (near, far) if each]
        try:
            near.add_insecure_port(f"unix:{address(directory, _INNER)}")
            if tls and far:
                far.add_secure_port(tls.host_and_port, _credentials(tls))
            for server in self._servers:
                server.start()
            self._inner = os.open(_INNER, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            os.unlink(_INNER, dir_fd=directory)
        except (OSError, RuntimeError) as error:
            raise SentryError(f"the gRPC service cannot be started: {error}") from error
        for name in ("", *_NAMES):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def _make(self, callers: Callable[[], Callers]) -> grpc.Server:
        pool = futures.ThreadPoolExecutor(_THREADS, "grpc")
        server = grpc.server(pool, options=_OPTIONS, maximum_concurrent_rpcs=_MOST_CALLS)
        streams = Streams()
        add_SentryServicer_to_server(Sentry(caller, callers, streams), server)  # type: ignore[no-untyped-call]  # generated
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        described = _Reflection(streams, (*_NAMES, reflection.SERVICE_NAME))
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(described, server)
        return server

    def serve(self, connection: socket.socket, peer: Peer) -> None:
        """Connect a caller that passed the gate; returns when it has gone."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as inner:
            name = f"caller-{peer.pid}-{peer.uid}-{next(self._numbers)}"
            inner.bind(address(self._directory, name))
            os.unlink(name, dir_fd=self._directory)
            inner.connect(f"/proc/self/fd/{self._inner}")
            back = threading.Thread(target=_pump, args=(inner, connection), name="tunnel", daemon=True)
            back.start()
            _pump(connection, inner)
            back.join()

    def stop(self) -> None:
        """Let callers finish for a moment, and end."""
        self._health.enter_graceful_shutdown()
        for ended in [server.stop(grace=0.5) for server in self._servers]:
            ended.wait()


class _Reflection(reflection.ReflectionServicer):  # type: ignore[misc]  # untyped
    """The reflection service, whose streams take threads as those of Watch do."""

    def __init__(self, streams: Streams, names: tuple[str, ...]) -> None:
        super().__init__(names)
        self._streams = streams

    def ServerReflectionInfo(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        """Describe the services."""
        self._streams.begin(context)
        answers: Iterator[Any] = super().ServerReflectionInfo(requests, context)
        return answers


def caller(context: grpc.ServicerContext) -> Caller:
    """Return who makes a call: what the tunnel says, or the name in the certificate."""
    kind, _, name = context.peer().partition(":")
    if kind == "unix":
        pid, uid, _ = name.rpartition("/")[2].removeprefix("caller-").split("-")
        return Caller(Peer(int(pid), int(uid)))
    names = context.auth_context().get("x509_common_name", [b"somebody with a certificate"])
    return Caller(Peer(0, -1), names[0].decode("utf-8", "replace"), unquote(name))


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Copy what comes until it ends, and then end both, so that whoever copies the other way ends too."""
    try:
        while data := source.recv(_CHUNK):
            sink.sendall(data)
    except OSError:
        pass  # one side is gone
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue  # it is closed already


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    def read(path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    try:
        pair = read(tls.key), read(tls.certificate)
        return grpc.ssl_server_credentials([pair], root_certificates=read(tls.callers), require_client_auth=True)
    except OSError as error:
        raise SentryError(f"`{error.filename}` cannot be read: {error.strerror}") from error
