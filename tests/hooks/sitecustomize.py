"""On PYTHONPATH, it notes every address that a Python process looks for, and its children's too.

A line for each in the file that WATCHED names: the event, and the address or the name to resolve.
"""

import os
import sys
from typing import Any

_ARGUMENT = {
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
    "socket.gethostbyaddr": 0,
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
}
_seen = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _ARGUMENT:
        os.write(_seen, f"{event}\t{arguments[_ARGUMENT[event]]!r}\n".encode())


sys.addaudithook(_note)
