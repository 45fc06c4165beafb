"""A small client of the REST interface: one connection per request, nothing clever."""

import http.client
import json


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


class Api:
    def __init__(self, port, host="127.0.0.1", timeout=120):
        self.port = port
        self._address = (host, port)
        self._timeout = timeout

    def request(self, method, path, body=None, headers=None):
        """`body`: anything that json.dumps takes, or bytes that are sent as they are."""
        connection = http.client.HTTPConnection(*self._address, timeout=self._timeout)
        sent = {"Connection": "close", **(headers or {})}
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
