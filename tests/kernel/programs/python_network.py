"""asyncio, ssl and sockets on loopback and on Unix sockets, all between tasks and threads of this one program."""

import asyncio
import http.client
import http.server
import os
import socket
import ssl
import sys
import threading
import urllib.request


async def echo(reader, writer):
    writer.write((await reader.readline()).upper())
    await writer.drain()
    writer.close()


async def ask(reader, writer):
    writer.write(b"hello\n")
    answer = await reader.read()
    writer.close()
    return answer.decode().strip()


async def streams():
    for host in ("127.0.0.1", "localhost"):
        server = await asyncio.start_server(echo, host, 0)
        port = server.sockets[0].getsockname()[1]
        print("tcp", host, await ask(*await asyncio.open_connection(host, port)))
        server.close()
        await server.wait_closed()
    server = await asyncio.start_unix_server(echo, "echo.socket")
    print("unix", await ask(*await asyncio.open_unix_connection("echo.socket")))
    server.close()


async def subprocesses():
    script = "import sys; print(sys.stdin.read()[::-1]); sys.exit(3)"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate(b"stressed")
    print("subprocess", out.decode().strip(), child.returncode)
    shell = await asyncio.create_subprocess_shell("echo $((6 * 7)) | cat", stdout=asyncio.subprocess.PIPE)
    print("shell", (await shell.communicate())[0].decode().strip(), shell.returncode)
    sleeper = await asyncio.create_subprocess_exec("sleep", "100")
    sleeper.kill()
    print("killed", await sleeper.wait())
    print("thread", await asyncio.to_thread(os.path.basename, "/a/b"))


def datagrams():
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
    ):
        one.bind(("127.0.0.1", 0))
        two.sendto(b"datagram", one.getsockname())
        data, sender = one.recvfrom(100)
        one.sendto(data.upper(), sender)
        print("udp", two.recv(100).decode())


def descriptors():
    left, right = socket.socketpair()
    read, write = os.pipe()
    socket.send_fds(left, [b"x"], [write])
    _, received, _, _ = socket.recv_fds(right, 10, 1)
    os.write(received[0], b"through a passed descriptor")
    print("send_fds", os.read(read, 100).decode())


def http_server():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.path.encode())

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/one") as answer:
            print("urllib", answer.status, answer.read().decode())
        client = http.client.HTTPConnection("localhost", server.server_port)
        client.request("GET", "/two")
        print("http.client", client.getresponse().read().decode())
        server.shutdown()


def tls():
    context = ssl.create_default_context()
    print("certificates", len(context.get_ca_certs()) > 10, context.minimum_version.name)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        context.wrap_bio(incoming, outgoing, server_hostname="example.org").do_handshake()
    except ssl.SSLWantReadError:
        print("client hello", outgoing.pending > 100)


asyncio.run(streams())
asyncio.run(subprocesses())
datagrams()
descriptors()
http_server()
tls()
print("names", socket.getaddrinfo("localhost", 80, socket.AF_INET, socket.SOCK_STREAM)[0][4])
