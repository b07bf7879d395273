"""Make sockets of families that no agent needs: kernel crypto, virtual machines, packets, netlink, raw, ping."""

import contextlib
import socket

from attack import main

FAMILIES = {"AX25": 3, "NETLINK": 16, "PACKET": 17, "RDS": 21, "CAN": 29, "TIPC": 30, "BLUETOOTH": 31, "ALG": 38}
FAMILIES |= {"VSOCK": 40, "KCM": 41, "QIPCRTR": 42, "SMC": 43, "XDP": 44}
PROMISE = "families are denied unless a rule names them"
CONTROL = "one of them is made"
ADVICE = "take the family out of your socket rules"


def attempt() -> bool:
    made = []
    for name, family in FAMILIES.items():
        for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW, socket.SOCK_STREAM):
            with contextlib.suppress(OSError), socket.socket(family, kind):
                made.append(name)
                break
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP):
        made.append("raw")
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP):
        made.append("ping")
    print(*made)
    return bool(made)


main(attempt)
