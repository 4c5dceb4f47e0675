"""Python imports this by itself where its folder is in PYTHONPATH: every way to the network is refused.

What Python code asks for is written to the file REFUSED_NETWORK_LOG, with where it came from. Native code
that makes an internet socket is ended by the system (SIGSYS), where the system has such a filter. Processes
that this one starts inherit both.
"""

import ctypes
import os
import platform
import struct
import sys
import traceback

LOCAL = {"AF_UNIX", "AF_NETLINK"}
EVENTS = {
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
    "socket.connect",
    "socket.sendto",
}
ARCHITECTURES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""Linux's number of the architecture (linux/audit.h) and of its system call `socket`."""
AF_INET, AF_INET6 = 2, 10
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, KILL_PROCESS = 0x7FFF0000, 0x80000000


def refuse(event, arguments):
    if event == "socket.__new__":
        if getattr(arguments[1], "name", arguments[1]) in LOCAL or arguments[1] in (1, 16):
            return
    elif event not in EVENTS or (event in ("socket.connect", "socket.sendto") and is_local(arguments[0])):
        return
    log = os.environ["REFUSED_NETWORK_LOG"]
    with open(log, "a", encoding="utf-8") as file:  # noqa: PTH123 - starts faster without pathlib
        file.write(f"{event} {arguments}\n{''.join(traceback.format_stack(limit=12))}\n")
    raise PermissionError(f"no network in this test: {event}")


def is_local(connection):
    return getattr(connection.family, "name", "") in LOCAL


def refuse_in_the_system():
    """A filter of system calls; True if the system took it."""
    if platform.machine() not in ARCHITECTURES or sys.platform != "linux":
        return False
    architecture, socket_call = ARCHITECTURES[platform.machine()]
    program = [
        (LOAD, 0, 0, 4),  # the architecture
        (JUMP_IF_EQUAL, 0, 5, architecture),
        (LOAD, 0, 0, 0),  # the number of the call
        (JUMP_IF_EQUAL, 0, 3, socket_call),
        (LOAD, 0, 0, 16),  # its first argument: the family
        (JUMP_IF_EQUAL, 2, 0, AF_INET),
        (JUMP_IF_EQUAL, 1, 0, AF_INET6),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, KILL_PROCESS),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    whole = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    prctl = ctypes.CDLL(None).prctl
    return not prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) and not prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(whole), 0, 0
    )


if "REFUSED_NETWORK_LOG" in os.environ:
    sys.addaudithook(refuse)
    os.environ["REFUSED_BY_THE_SYSTEM"] = str(int(refuse_in_the_system()))
