"""A web server on a loopback port that counts who connects: the demo's model, and the address it forbids."""

import threading
from http.server import BaseHTTPRequestHandler
from socket import socket
from socketserver import ThreadingTCPServer
from types import TracebackType
from typing import Any, Self

_HOST = "127.0.0.1"


class Server(ThreadingTCPServer):  # HTTPServer would ask the network for the name of this machine
    """Listens from its creation on, and serves inside a `with` block.

    Attributes:
        visits: connections that were accepted.
    """

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__((_HOST, 0), handler)
        self.visits = 0
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="demo server", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server_address[1])

    @property
    def address(self) -> str:
        """Address and port, as the audit log writes them."""
        return f"{_HOST}:{self.port}"

    @property
    def url(self) -> str:
        """The address to give to a client."""
        return f"http://{self.address}"

    def get_request(self) -> tuple[socket, Any]:
        """Accept one connection."""
        accepted = super().get_request()
        self.visits += 1
        return accepted

    def __enter__(self) -> Self:
        """Begin to serve."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, count who still waits to be accepted, and close."""
        self.shutdown()
        self._thread.join()
        self.socket.setblocking(False)
        try:
            while True:
                self.socket.accept()[0].close()
                self.visits += 1
        except BlockingIOError:
            self.server_close()


class ForbiddenServer(Server):
    """A live server that answers everybody: a connection to it can fail by denial alone."""

    def __init__(self) -> None:
        super().__init__(_Welcome)


class _Welcome(BaseHTTPRequestHandler):
    timeout = 10

    def do_GET(self) -> None:
        body = b"welcome\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal belongs to the demo."""
