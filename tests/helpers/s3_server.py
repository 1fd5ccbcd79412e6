"""An S3 server of moto on this machine, and a proxy before it that fails as networks and servers do."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Long enough that no message has it by chance.
KEY, SECRET, TOKEN = "AKIDFORTESTS", "s3cr3t-of-the-tests", "t0ken-of-the-tests"
# A server that repeats what it was given, as some do.
DENIED = (
    f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>InvalidAccessKeyId</Code>"
    f"<Message>{KEY} {SECRET} {TOKEN}</Message></Error>"
).encode()
BROKEN = b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>InternalError</Code><Message>again</Message></Error>"


@contextlib.contextmanager
def s3_server() -> Iterator[int]:
    """Run moto's server, and yield its port."""
    os.environ["NO_PROXY"] = "127.0.0.1"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(150):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.2)
        else:
            raise RuntimeError("moto's server did not start")
        yield port
    finally:
        server.kill()
        server.wait()


def options(port: int, **more: object) -> dict[str, object]:
    """Return storage_options for a server on this machine."""
    return {"endpoint_url": f"http://127.0.0.1:{port}", "key": KEY, "secret": SECRET, **more}


# What the proxy does with a request instead of passing it on: the status of an error, seconds to wait before the
# answer, "cut" for a connection that ends in the middle of the answer. None passes it on.
Fault = int | float | str | None


class FaultProxy:
    """A proxy that passes requests on to a server, and fails some.

    Parameters
    ----------
    port : int
        Of the server.

    Attributes
    ----------
    fault : callable
        Called with the method and the path of each request; returns what to do.
    requests : list of (str, str)
        The methods and paths of all requests.
    """

    def __init__(self, port: int) -> None:
        self.fault: Callable[[str, str], Fault] = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                pass

            def _pass(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.requests.append((self.command, self.path))
                fault = proxy.fault(self.command, self.path)
                given = self.headers.get("Authorization")
                if given is not None and f"Credential={KEY}/" not in given:
                    fault = 403
                if isinstance(fault, int):
                    self._answer(fault, [], DENIED if fault == 403 else BROKEN)
                    return
                if isinstance(fault, float):
                    time.sleep(fault)
                server = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
                server.request(self.command, self.path, body or None, headers)
                answer = server.getresponse()
                content = answer.read()
                self._answer(answer.status, answer.getheaders(), content, cut=fault == "cut")
                server.close()

            def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, cut: bool = False) -> None:
                self.send_response_only(status)
                dropped = {"transfer-encoding", "connection"} | (
                    set() if self.command == "HEAD" else {"content-length"}
                )
                for name, value in headers:
                    if name.lower() not in dropped:
                        self.send_header(name, value)
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content[: len(content) // 2] if cut else content)
                if cut:
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
