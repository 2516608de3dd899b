"""First on PYTHONPATH, this lets a process talk to nobody but itself, and writes down who else it tried.

Each attempt is a line of the file that SOCKET_ATTEMPTS names: the call and its address. Unix sockets and the
loopback addresses are let through; everything else is refused.
"""

import ipaddress
import os
import socket

_LOCAL_NAMES = {"localhost", "localhost.localdomain", "ip6-localhost", ""}
_real_getaddrinfo = socket.getaddrinfo


def _is_local(host):
    if host is None:
        return True
    name = host.decode() if isinstance(host, bytes) else str(host)
    if name in _LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _refuse(call, address):
    with open(os.environ["SOCKET_ATTEMPTS"], "a", encoding="utf-8") as file:
        file.write(f"{call} {address!r}\n")
    raise OSError(f"{call} to {address!r} is refused: no network here")


def _guarded(call):
    real = getattr(socket.socket, call)

    def method(self, *arguments):
        address = arguments[-1]
        is_inet = self.family in (socket.AF_INET, socket.AF_INET6)
        is_sending_on = call == "sendmsg" and len(arguments) < 4
        if not is_sending_on and self.family != socket.AF_UNIX and not (is_inet and _is_local(address[0])):
            _refuse(call, address)
        return real(self, *arguments)

    return method


def _getaddrinfo(host, *arguments, **named):
    if not _is_local(host):
        _refuse("getaddrinfo", host)
    return _real_getaddrinfo(host, *arguments, **named)


for _call in ("connect", "connect_ex", "sendto", "sendmsg"):
    setattr(socket.socket, _call, _guarded(_call))
socket.getaddrinfo = _getaddrinfo
