"""What every end-to-end test has: a server, VMs as objects, and the oracle before and after."""

import http.client
import os
import signal
import subprocess
import sys
import unittest

import oracle
from server import Build, Server
from waiting import eventually, wait_for_end

HERE = os.path.dirname(os.path.abspath(__file__))

BUILD = None  # set by run.py


def use_build(folder):
    global BUILD
    BUILD = Build(folder)


def ask(method, host, port, path="/", body=None, timeout=10):
    """The body of the answer to one HTTP request."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers={"Connection": "close"})
        return connection.getresponse().read().decode()
    finally:
        connection.close()


class Vm:
    """One VM of the server under test."""

    def __init__(self, test, vm_id):
        self._test = test
        self.id = vm_id

    @property
    def _api(self):
        return self._test.server.api

    @property
    def path(self):
        return f"/v1/vms/{self.id}"

    def view(self):
        return self._api.get(self.path)

    def start(self):
        return self._api.expect(200, "POST", f"{self.path}/start").json

    def stop(self):
        return self._api.expect(200, "POST", f"{self.path}/stop").json

    def delete(self, query=""):
        return self._api.expect(200, "DELETE", self.path + query).json

    def events(self):
        return self._api.get(f"{self.path}/events")["items"]

    def console(self):
        return self._api.expect(200, "GET", f"{self.path}/console").text

    def state(self):
        return self.view()["state"]

    def pid(self):
        return self.view()["systemd"]["mainPID"]

    def address(self):
        return self.view()["network"]["guestIP"]

    def host_port(self, guest=80):
        return next(port["host"] for port in self.view()["network"]["ports"] if port["guest"] == guest)

    def logs(self):
        return self.view()["paths"]["logsDir"]

    def request(self, method, path, body=None):
        """Asks the guest's web server through its published port."""
        return ask(method, "127.0.0.1", self.host_port(), path, body)

    def fetch(self, path="/", host="127.0.0.1", timeout=10):
        return ask("GET", host, self.host_port(), path, timeout=timeout)

    def await_page(self):
        """The guest's page, as soon as the guest serves it."""
        def try_once():
            try:
                return self.fetch(timeout=0.5)
            except (OSError, http.client.HTTPException):
                return None
        try:
            return eventually(try_once, f"the page of {self.id} on its published port", [self.logs()], seconds=90)
        except AssertionError as error:
            raise AssertionError(f"{error}\nconsole:\n{self.console()[-3000:]}") from None

    def await_console(self, text):
        """Until the guest, or its VMM, has printed this; a guest goes on printing when its page is there already."""
        eventually(lambda: text in self.console(), f"'{text}' on the console of {self.id}", [self.logs()])

    def await_state(self, state, seconds=30):
        eventually(lambda: self.state() == state, f"state {state} of {self.id}, which is {self.view()}",
                   [self.view()["paths"]["configDir"], self._test.server.config_root], seconds)

    def boots(self):
        """How often this disk was booted, as the page of its guest says."""
        page = self.fetch()
        for line in page.splitlines():
            if "boots:" in line:
                return int("".join(c for c in line.split("boots:", 1)[1] if c.isdigit()))
        raise AssertionError(f"no 'boots: N' on the page:\n{page}")

    def probe(self, host, port):
        """What a TCP connection from within the guest to host:port meets: "open", "refused" or "blocked"."""
        answer = self.fetch(f"/cgi-bin/probe?{host}:{port}", timeout=30)
        first = answer.split("\n", 1)[0]
        if first not in ("open", "refused", "blocked"):
            raise AssertionError(f"the guest's probe said {answer!r}")
        return first

    def keep_note(self, name, text):
        """Has the guest write `text` to its root disk."""
        answer = self.request("POST", f"/cgi-bin/note?{name}", text.encode())
        if answer != "kept\n":
            raise AssertionError(f"the guest did not keep a note: {answer!r}")


class MergenTest(unittest.TestCase):
    """A server of its own for every test. After each, all VMs are deleted and the server drained, and the oracle must
    find the host as it was: once with the server idle, once without it."""

    backends = {}
    settings = {}
    token = None

    def setUp(self):
        self.images_made = set()
        self.before = self.snapshot()
        self.server = Server(self.build(), self.backends, self.settings, self.token)
        self.addCleanup(self._clean_up)
        self.server.start()
        self.idle = self.snapshot_with_files()

    def build(self):
        """What the server has: its program, and the kernel and root disk of its VMs."""
        return BUILD

    def snapshot(self):
        return oracle.Snapshot(everything=True).sections

    def snapshot_with_files(self, contents=False):
        sections = oracle.Snapshot(self.server.roots, everything=True, contents=contents).sections
        # Kept on purpose; test_kernels looks at what is in there.
        return oracle.without(sections, os.path.join(self.server.data_root, ".cache"))

    def assert_same_host(self, before, take, when):
        lines = oracle.compare_when_settled(before, take)
        if lines:
            self.fail(f"the oracle sees differences {when}:\n  " + "\n  ".join(lines))

    def assert_idle_host(self, when="after the last VM was deleted"):
        """Nothing is on the host that was not there before the first VM, save the server process itself."""
        self.assert_same_host(_but_the_server(self.idle), lambda: _but_the_server(self.snapshot_with_files()), when)

    def tearDown(self):
        if self.server.pid is None:
            self.server.start()
        for vm in self.server.api.list():
            self.server.api.expect(200, "DELETE", f"/v1/vms/{vm['id']}")
        for path in filter(os.path.exists, self.images_made):
            os.unlink(path)
        self.assert_idle_host()
        self.server.drain()
        self.assert_same_host(self.before, self.snapshot, "after the server has ended")
        report = self.server.sanitizer_report()
        self.assertIsNone(report, f"a sanitizer reported:\n{report}")

    def _clean_up(self):
        """Whatever a failed test left must not be taken for a leak of the next one."""
        roots = self.server.roots
        self.server.remove()
        for name in os.listdir("/proc"):
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    arguments = file.read().decode(errors="replace")
                if any(root in arguments for root in roots) and int(name) != os.getpid():
                    os.kill(int(name), signal.SIGKILL)
            except (OSError, ValueError):
                continue

    def end_vmm(self, pid, how):
        """Calls `how`, and waits until the process that was `pid` has ended."""
        pidfd = os.pidfd_open(pid)
        try:
            how()
            wait_for_end(pidfd, 60, f"end of the VMM {pid}")
        finally:
            os.close(pidfd)

    def explain(self):
        """More about a failure: what the server said."""
        if not hasattr(self, "server"):
            return ""
        return (f"--- log of mergend, last warnings and errors:\n{self.server.log_complaints()}\n"
                f"--- log of mergend, last lines:\n{self.server.log_tail()}")

    def component(self, name):
        """What the server says of one of its parts."""
        parts = self.server.api.request("GET", "/readyz").json["components"]
        return next(part["detail"] for part in parts if part["name"] == name)

    def make_image(self, name, content=b"", size=None, owner=None):
        """A file where images may lie, which is gone when the oracle looks. `size`: cut or filled up with zeros to this.
        `owner`: uid, gid and mode."""
        path = os.path.join(self.server.images, name)
        with open(path, "wb") as file:
            file.write(content)
            if size is not None:
                file.truncate(size)
        if owner:
            os.chown(path, *owner[:2])
            os.chmod(path, owner[2])
        self.images_made.add(path)
        return path

    # ---- VMs

    def body(self, **members):
        """What creates a small VM that serves its page."""
        return {"rootfs": self.server.rootfs, "kernel": self.server.kernel, "memMiB": 192,
                "ports": [{"guest": 80, "host": 0}], **members}

    def create(self, **members):
        return Vm(self, self.server.api.create(self.body(**members)))

    def create_and_start(self, **members):
        vm = self.create(**members)
        vm.start()
        return vm

    def assert_end_is_told(self, boot_args, state, by):
        """A guest that ends within milliseconds of its start, as these arguments make it, has been started; who ended it
        is known, and nothing of its run is left."""
        vm = self.create(bootArgs=boot_args)
        vm.start()
        vm.await_state(state)
        view = vm.view()
        self.assertEqual((view["lastEnd"]["by"], view["lastEnd"]["status"]), (by, 0))
        self.assertEqual((vm.pid(), os.path.exists(view["paths"]["runDir"])), (0, False))
        vm.delete()

    def assert_status(self, status, method, path, body=None):
        reply = self.server.api.request(method, path, body)
        self.assertEqual(reply.status, status, str(reply))
        return reply


class CrashTest(MergenTest):
    """The server dies in the middle of an operation. After a restart nothing may be lost and nothing may be left."""

    # The guests of these tests have not booted far enough to obey when they are stopped.
    settings = {"vm": {"stop_grace": "1s"}}

    def crash(self, point, method, path, body=None):
        """Starts the server so that it kills itself at `point`, lets it run into that, and starts it anew."""
        if self.server.pid is not None:
            self.server.drain()
        self.server.start(failpoints=f"{point}=crash")
        try:
            reply = self.server.api.request(method, path, body)
            self.fail(f"{point} was not reached: {reply}")
        except (OSError, http.client.HTTPException):
            pass
        self.assertEqual(self.server.wait(), -signal.SIGKILL)
        self.server.start()

    def crash_while_lent(self, vm, check):
        """Crashes wherever a disk that `vm` uses in place may be lent to it or not, and calls `check` after each; the
        last one ends in a delete."""
        for point, method, path in (("engine.disks.lending", "POST", f"{vm.path}/start"),
                                    ("engine.start.lend-disks.after", "POST", f"{vm.path}/start"),
                                    ("engine.start.launch.after", "POST", f"{vm.path}/start"),
                                    ("engine.disks.taking_back", "POST", f"{vm.path}/stop"),
                                    ("engine.disks.taking_back", "DELETE", vm.path)):
            with self.subTest(point=point, method=method):
                if not path.endswith("/start"):
                    vm.start()
                self.crash(point, method, path)
                check()
        self.assertEqual(self.server.api.list(), [])


def _but_the_server(sections):
    """Without mergend itself and its API's port, which change when it is started again."""
    kept = {name: dict(entries) for name, entries in sections.items()}
    kept["processes"] = {key: value for key, value in kept["processes"].items() if not key.endswith(" mergend")}
    kept["sockets"] = {key: value for key, value in kept["sockets"].items() if not key.startswith("host: tcp 127.0.0.1:")}
    return kept


class Elsewhere:
    """Another host: a network namespace that is joined to ours by a wire."""

    NAME, HERE, THERE = "elsewhere", "192.0.2.1", "192.0.2.2"

    def __init__(self):
        for words in (f"netns add {self.NAME}", f"link add wire0 type veth peer name wire1 netns {self.NAME}",
                      f"addr add {self.HERE}/24 dev wire0", "link set wire0 up",
                      f"-n {self.NAME} link set lo up", f"-n {self.NAME} addr add {self.THERE}/24 dev wire1",
                      f"-n {self.NAME} link set wire1 up", f"-n {self.NAME} route add default via {self.HERE}"):
            subprocess.run(["ip", *words.split()], check=True)

    def remove(self):
        subprocess.run(["ip", "link", "del", "wire0"], check=True)
        subprocess.run(["ip", "netns", "del", self.NAME], check=True)

    def command(self, *arguments):
        return ["nsenter", f"--net=/run/netns/{self.NAME}", "--", *arguments]

    def connect(self, host, port, path="/"):
        """Body of http://host:port/path as fetched from there, or None if no connection is made."""
        done = subprocess.run(self.command(sys.executable, "-B", os.path.join(HERE, "peer.py"), "fetch", host, str(port), path),
                              capture_output=True, text=True, timeout=30, check=False)
        return done.stdout if done.returncode == 0 else None


class Listener:
    """A TCP server that says who connects; in our namespace, or in that of `where`."""

    def __init__(self, address, port, where=None):
        arguments = [sys.executable, "-B", os.path.join(HERE, "peer.py"), "listen", address, str(port)]
        self._process = subprocess.Popen(where.command(*arguments) if where else arguments, stdout=subprocess.PIPE, text=True)
        line = self._process.stdout.readline()
        assert line == "listening\n", f"no listener on {address}:{port}"

    def next_peer(self):
        """Address of the next one who connects (or connected)."""
        return self._process.stdout.readline().strip()

    def close(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
