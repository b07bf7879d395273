"""Send datagrams to a server that no rule names: sendto, connected, sendmsg, with a route in the header."""

import contextlib
import socket
import struct

from attack import FACTS, main

WITNESS = "datagram"
PROMISE = "every datagram's address is judged"
CONTROL = "the server receives one"
ADVICE = "narrow the rule that allows it"


def attempt() -> bool:
    name = ("127.0.0.1", FACTS["udp_port"])
    pktinfo = [(socket.IPPROTO_IP, 8, struct.pack("=i4s4s", 0, socket.inet_aton("127.0.0.1"), bytes(4)))]

    def connected(client: socket.socket) -> int:
        client.connect(name)
        return client.send(b"x")

    ways = (
        lambda client: client.sendto(b"x", name),
        connected,
        lambda client: client.sendmsg([b"x"], [], 0, name),
        lambda client: client.sendmsg([b"x"], pktinfo, 0, name),
    )
    sent = False
    for way in ways:
        with socket.socket(type=socket.SOCK_DGRAM) as client, contextlib.suppress(OSError):
            sent = way(client) > 0 or sent
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client, contextlib.suppress(OSError):
        sent = client.sendto(b"x", (f"::ffff:{name[0]}", name[1])) > 0 or sent
    return sent


main(attempt)
