"""The other end of a connection, as a process, so that it can be put into any network namespace.

    peer.py fetch HOST PORT PATH    prints the body; exit status 1 if no connection is made within 3 s
    peer.py listen ADDRESS PORT     prints "listening", then the address of everyone who connects
"""

import http.client
import socket
import sys


def fetch(host, port, path):
    connection = http.client.HTTPConnection(host, int(port), timeout=3)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        sys.stdout.write(connection.getresponse().read().decode())
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"{host}:{port}: {error}")


def listen(address, port):
    with socket.create_server((address, int(port))) as server:
        print("listening", flush=True)
        while True:
            connection, peer = server.accept()
            with connection:
                print(peer[0], flush=True)


if __name__ == "__main__":
    {"fetch": fetch, "listen": listen}[sys.argv[1]](*sys.argv[2:])
