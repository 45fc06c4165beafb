"""A small client of the REST interface: one connection per request, nothing clever."""

import http.client
import json
import socket


class Reply:
    def __init__(self, method, path, response):
        self.request = f"{method} {path}"
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def text(self):
        return self.body.decode("utf-8", errors="replace")

    @property
    def json(self):
        return json.loads(self.body)

    def __str__(self):
        return f"{self.request} -> {self.status} {self.text}"


class UnixConnection(http.client.HTTPConnection):
    """As http.client's, over a unix socket."""

    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Api:
    def __init__(self, port, host="127.0.0.1", timeout=120, token=None):
        """`port`: a number, or the path of a unix socket. `token` goes with every request."""
        self._port = port
        self._host = host
        self._timeout = timeout
        self._token = token

    def with_token(self, token):
        return Api(self._port, self._host, self._timeout, token)

    def _connection(self):
        if isinstance(self._port, str):
            return UnixConnection(self._port, self._timeout)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)

    def request(self, method, path, body=None, headers=None):
        """`body`: anything that json.dumps takes, or bytes that are sent as they are."""
        connection = self._connection()
        sent = {"Connection": "close", **(headers or {})}
        if self._token is not None:
            sent.setdefault("Authorization", f"Bearer {self._token}")
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
            if not isinstance(body, bytes):
                body = json.dumps(body).encode()
        try:
            connection.request(method, path, body=body, headers=sent)
            return Reply(method, path, connection.getresponse())
        finally:
            connection.close()

    def expect(self, status, method, path, body=None):
        """The reply, which must have this status (or one of these)."""
        reply = self.request(method, path, body)
        if reply.status not in (status if isinstance(status, tuple) else (status,)):
            raise AssertionError(f"expected status {status}, got: {reply}")
        return reply

    def get(self, path):
        return self.expect(200, "GET", path).json

    def create(self, body):
        return self.expect(201, "POST", "/v1/vms", body).json["id"]

    def list(self):
        return self.get("/v1/vms")["items"]
