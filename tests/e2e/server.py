"""mergend with folders of its own, as a test drives it: start, kill -9, drain, start again."""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import select

from api import Api
from waiting import eventually

GUEST_NETWORK = "172.29.7.0/24"
PORT_START, PORT_END = 21000, 21999

# What the log says when the token file was read again.
TOKENS_READ = re.compile(r" api\.tokens\.(reloaded|kept) ")

# What a sanitizer prints: a report is a failed test even if the server survived it.
SANITIZER = re.compile(r"(ERROR|WARNING): \w+Sanitizer|runtime error:|LeakSanitizer")


class Build:
    """The build tree under test."""

    def __init__(self, folder):
        self.folder = os.path.abspath(folder)
        self.mergend = os.path.join(self.folder, "bin", "mergend")
        self.kernel = os.path.join(self.folder, "guest", "vmlinuz")
        self.rootfs = os.path.join(self.folder, "guest", "rootfs.ext4")
        self.tiny_guest = os.path.join(self.folder, "guest", "tiny-guest")


class Server:
    """One set of folders, and the server process that works on it, if one runs."""

    def __init__(self, build, backends=None, settings=None, token=None):
        """`settings`: {section: {key: value}}, over what is set here. `token`: what `api` sends with every request."""
        self.build = build
        # VMs run as users of their own and must get through to their folders.
        self.folder = tempfile.mkdtemp(prefix="mergen-e2e.", dir="/var/tmp")
        os.chmod(self.folder, 0o711)
        # On the tmpfs of in-private-network, and short: a socket's path has at most 107 bytes.
        self.run_root = tempfile.mkdtemp(prefix="mergen.", dir="/run")
        os.chmod(self.run_root, 0o711)
        self.config_root = os.path.join(self.folder, "config")
        self.data_root = os.path.join(self.folder, "data")
        self.images = os.path.join(self.folder, "images")
        self.log_path = os.path.join(self.folder, "mergend.log")
        self._port_file = os.path.join(self.folder, "port")
        self._notify_path = os.path.join(self.folder, "notify")
        self._temporary = os.path.join(self.folder, "tmp")
        for folder in (self.images, self._temporary):
            os.mkdir(folder, 0o755)
        self.kernel = os.path.join(self.images, "vmlinuz")
        self.rootfs = os.path.join(self.images, "rootfs.ext4")
        for source, target in ((build.kernel, self.kernel), (build.rootfs, self.rootfs)):
            subprocess.run(["cp", "--sparse=always", "--reflink=auto", source, target], check=True)
        self._process = None
        self._pidfd = None
        self.api = None
        self._token = token
        self._backends = backends or {}
        self._write_configuration(self._backends, settings or {})

    def use_settings(self, settings):
        """Other settings from the next start on."""
        self._write_configuration(self._backends, settings)

    def _write_configuration(self, backends, settings):
        sections = {
            "server": {"listen": "127.0.0.1:0", "port_file": self._port_file},
            "log": {"level": "debug", "format": "text"},
            "paths": {"config_root": self.config_root, "data_root": self.data_root, "run_root": self.run_root,
                      "image_roots": self.images},
            "network": {"guest_cidr": GUEST_NETWORK, "port_start": str(PORT_START), "port_end": str(PORT_END)},
            "backends": {"storage": "files", "supervisor": "process", "network": "linux", "vmm": "qemu", **backends},
        }
        for section, values in settings.items():
            sections.setdefault(section, {}).update(values)
        self.configuration = os.path.join(self.folder, "mergen.ini")
        with open(self.configuration, "w", encoding="utf-8") as file:
            for section, values in sections.items():
                file.write(f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items()) + "\n")
        os.chmod(self.configuration, 0o644)  # whatever the umask: mergend takes no file that others can write

    @property
    def socket(self):
        """Where the API's unix socket stands by default."""
        return os.path.join(self.run_root, "mergend.sock")

    @property
    def roots(self):
        """Folders in which nothing may be left behind."""
        return [self.config_root, self.data_root, self.run_root, self.images, self._temporary]

    @property
    def pid(self):
        return self._process.pid if self._process else None

    def environment(self, failpoints=None):
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": self._temporary, "LANG": "C.UTF-8"}
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS"):
            if name in os.environ:
                environment[name] = os.environ[name]
        if failpoints:
            environment["MERGEN_FAILPOINTS"] = failpoints
        return environment

    def start(self, failpoints=None, seconds=60):
        """Starts mergend and waits until it says that it is ready. Raises if it ends before."""
        assert self._process is None, "the server runs already"
        if os.path.exists(self._port_file):
            os.unlink(self._port_file)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify, \
                open(self.log_path, "ab") as log:
            if os.path.exists(self._notify_path):
                os.unlink(self._notify_path)
            notify.bind(self._notify_path)
            self._process = subprocess.Popen(
                [self.build.mergend, "--config", self.configuration], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**self.environment(failpoints), "NOTIFY_SOCKET": self._notify_path}, start_new_session=True)
            self._pidfd = os.pidfd_open(self._process.pid)
            self._await_ready(notify, time.monotonic() + seconds)
        os.unlink(self._notify_path)
        with open(self._port_file, encoding="ascii") as file:
            self.api = Api(int(file.read()), token=self._token)

    def _await_ready(self, notify, deadline):
        while True:
            readable, _, _ = select.select([notify, self._pidfd], [], [], max(0, deadline - time.monotonic()))
            if notify in readable:
                if b"READY=1" in notify.recv(4096).split(b"\n"):
                    return
            elif readable:
                status = self._reap()
                raise AssertionError(f"mergend ended with status {status} before it was ready:\n{self.log_tail()}")
            else:
                self.kill()
                raise AssertionError(f"mergend was not ready in time:\n{self.log_tail()}")

    def _reap(self):
        status = self._process.wait()
        os.close(self._pidfd)
        self._process = self._pidfd = self.api = None
        return status

    def wait(self, seconds=30):
        """Waits until the process has ended by itself, and gives its exit status (negative: the signal)."""
        readable, _, _ = select.select([self._pidfd], [], [], seconds)
        assert readable, f"mergend did not end within {seconds} s:\n{self.log_tail()}"
        return self._reap()

    def kill(self):
        """As `kill -9` does."""
        self._process.send_signal(signal.SIGKILL)
        return self.wait()

    def drain(self, number=signal.SIGTERM):
        """Asks it to end, which must succeed; VMs run on."""
        self._process.send_signal(number)
        status = self.wait()
        assert status == 0, f"mergend ended with status {status} after a signal to drain:\n{self.log_tail()}"

    def reload_tokens(self):
        """Sends SIGHUP, and waits until the log says what came of the token file."""
        def times():
            return len(TOKENS_READ.findall(self.log()))
        before = times()
        self._process.send_signal(signal.SIGHUP)
        eventually(lambda: times() > before, "the server's word that it read the token file again", [self.folder])

    def log(self):
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def log_tail(self, lines=60):
        return "\n".join(self.log().splitlines()[-lines:])

    def log_complaints(self, lines=20):
        return "\n".join([line for line in self.log().splitlines() if line.startswith(("[WARN", "[ERROR"))][-lines:])

    def sanitizer_report(self):
        match = SANITIZER.search(self.log())
        return self.log()[match.start():match.start() + 4000] if match else None

    def remove(self):
        """Ends the process if it still runs, and removes the folders."""
        if self._process is not None:
            self.kill()
        for folder in (self.folder, self.run_root):
            shutil.rmtree(folder, ignore_errors=True)
