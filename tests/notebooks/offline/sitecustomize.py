"""Put first on the path of the processes that tests start: they may talk to this machine only."""

import socket

LOCAL = ("127.", "::1", "localhost", "0.0.0.0")


def _refuse(host: object) -> None:
    if not str(host or "localhost").startswith(LOCAL):
        raise OSError(f"the tests have no network, and {host} was asked for")


def _guard(connect):
    def guarded(self, address, *rest):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _refuse(address[0])
        return connect(self, address, *rest)

    return guarded


def _ask(host, *rest, **more):
    _refuse(host.decode() if isinstance(host, bytes) else host)
    return _getaddrinfo(host, *rest, **more)


_getaddrinfo = socket.getaddrinfo
socket.getaddrinfo = _ask
socket.socket.connect = _guard(socket.socket.connect)
socket.socket.connect_ex = _guard(socket.socket.connect_ex)
