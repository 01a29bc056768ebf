"""A client in a process of its own. It could be written in any language.

It says what befalls it on its standard output, and ends with its standard input.
"""

import errno
import socket
import sys
import threading

sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 1)
sock.sendall(b"hello\n")
sock.recv(64)
print("ready", flush=True)


def wait():
    try:
        sock.recv(64)
    except OSError as error:
        print("lost", errno.errorcode[error.errno], flush=True)


threading.Thread(target=wait, daemon=True).start()
sys.stdin.read()
