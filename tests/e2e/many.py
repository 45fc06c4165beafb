"""What the stories of many VMs share: callers that come all at once, and what no two VMs may have in common."""

import collections
import http.client
import json
import os
import threading

CONNECTIONS = 32


class Caller:
    """One connection that is kept."""

    def __init__(self, port):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)

    def request(self, method, path, body=None):
        """(status, what the body says)"""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        self._connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = self._connection.getresponse()
        return response.status, json.loads(response.read())

    def expect(self, status, method, path, body=None):
        seen, said = self.request(method, path, body)
        if seen != status:
            raise AssertionError(f"{method} {path}: expected status {status}, got {seen} {said}")
        return said

    def close(self):
        self._connection.close()


class ManyVms:
    """Beside MergenTest: its server is asked over CONNECTIONS connections."""

    def crowd(self, work, items):
        """Calls work(caller, item) for every item, on as many threads as there are connections, all let go at once; gives
        the results in the order of the items."""
        items = list(items)
        waiting = collections.deque(enumerate(items))
        results, failures = [None] * len(items), []
        together = threading.Barrier(CONNECTIONS)

        def run():
            caller = Caller(self.server.api.port)
            try:
                together.wait(60)
                while True:
                    try:
                        index, item = waiting.popleft()
                    except IndexError:
                        return
                    results[index] = work(caller, item)
            except Exception as error:  # pylint: disable=broad-except
                failures.append(f"{type(error).__name__}: {error}")
            finally:
                caller.close()

        threads = [threading.Thread(target=run) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures[:3], [], f"{len(failures)} connections failed")
        return results

    def assert_distinct(self, what, values):
        values = list(values)
        self.assertNotIn(None, values, what)
        shared = [value for value, times in collections.Counter(values).items() if times > 1]
        self.assertEqual(shared, [], f"{what}: given to more than one VM")

    def assert_nothing_is_shared(self, vms):
        """Of VMs that exist at one time."""
        for name in ("id", "uuid"):
            self.assert_distinct(name, (vm[name] for vm in vms))
        for name in ("guestIP", "mac", "tapName", "netns"):
            self.assert_distinct(name, (vm["network"][name] for vm in vms))
        self.assert_distinct("host port", ((port["protocol"], port["host"]) for vm in vms for port in vm["network"]["ports"]))
        for name in ("configDir", "dataDir", "runDir", "socketPath"):
            self.assert_distinct(name, (vm["paths"][name] for vm in vms))

    def assert_running_apart(self, vms):
        """Each is a process of its own, as a user of its own, in a network namespace of its own."""
        pids = [vm["systemd"]["mainPID"] for vm in vms]
        self.assert_distinct("process", pids)
        self.assert_distinct("uid", (os.stat(f"/proc/{pid}").st_uid for pid in pids))
        self.assert_distinct("network namespace", (os.readlink(f"/proc/{pid}/ns/net") for pid in pids))

    def assert_count(self, count, state):
        vms = self.server.api.list()
        self.assertEqual(collections.Counter(vm["state"] for vm in vms), {state: count} if count else {})
        return vms
