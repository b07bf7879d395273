"""Prometheus metrics over a Unix socket: what runs, what was decided, what waits, what the processes take."""

import http.server
import os
import socket
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from helm_sentry.control.peer import Peer
from helm_sentry.daemon import runs

_PAGE = os.sysconf("SC_PAGE_SIZE")
_CONTENT = "text/plain; version=0.0.4; charset=utf-8"


class Metrics(Collector):
    """Counts when it is asked.

    Attributes:
        unsealed: runs that were found ended without a seal.
        turned_away: peers that were turned away.
    """

    def __init__(self) -> None:
        self.unsealed = self.turned_away = 0
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """Return all metrics in the text format."""
        return bytes(generate_latest(self._registry))

    def collect(self) -> Iterator[Metric]:
        """Return all metrics."""
        going: list[Any] = runs.running()
        yield GaugeMetricFamily("helm_sentry_runs", "Runs that go on.", value=len(going))
        yield CounterMetricFamily("helm_sentry_unsealed_runs", "Runs found ended without a seal.", value=self.unsealed)
        yield CounterMetricFamily("helm_sentry_turned_away", "Peers that were turned away.", value=self.turned_away)
        decisions = CounterMetricFamily("helm_sentry_decisions", "Decisions.", labels=("run", "policy", "verdict"))
        waiting = GaugeMetricFamily("helm_sentry_waiting_approvals", "Calls that wait for a person.", labels=("run",))
        epoch = GaugeMetricFamily("helm_sentry_policy_epoch", "Policies a run had before this one.", labels=("run",))
        memory = GaugeMetricFamily(
            "helm_sentry_resident_bytes", "Resident memory of supervisor and main program.", labels=("run", "process")
        )
        for about in going:
            run = about["run"]
            for verdict, count in about["decisions"].items():
                decisions.add_metric((run, about["name"], verdict), count)
            waiting.add_metric((run,), about["waiting"])
            epoch.add_metric((run,), about["epoch"])
            for process in ("supervisor", "agent"):
                memory.add_metric((run, process), _resident(about[process]))
        yield from (decisions, waiting, epoch, memory)

    def serve(self, connection: socket.socket, peer: Peer) -> None:
        """Answer one scrape over HTTP."""
        _Scrape(connection, peer, self)


class _Scrape(http.server.BaseHTTPRequestHandler):
    timeout = 10

    def __init__(self, connection: socket.socket, peer: Peer, metrics: Metrics) -> None:
        self._metrics = metrics
        super().__init__(connection, (str(peer.pid), peer.uid), None)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404)
            return
        text = self._metrics.text()
        self.send_response(200)
        self.send_header("Content-Type", _CONTENT)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0
