"""What the stories on a real Firecracker share: where it is, and guests of the build's tiny kind (tests/guest)."""

import json
import os
import re
import shutil
import socket
import struct
import subprocess
import unittest

import harness
from api import UnixConnection
from harness import MergenTest, Vm
from server import Build


def find_firecracker():
    """The program, by MERGEN_FIRECRACKER_BIN or from the PATH; nothing if there is none."""
    return os.environ.get("MERGEN_FIRECRACKER_BIN") or shutil.which("firecracker")


def jailer_beside(program):
    """Where Mergen finds the jailer of this Firecracker, without links, whether or not there is one."""
    return os.path.realpath(os.path.join(os.path.dirname(os.path.realpath(program)), "jailer"))


def require_firecracker(with_jailer=False):
    """The program. Skips the test, or the class of tests, and says in one line why, where there is none or no KVM."""
    program = find_firecracker()
    if not program:
        raise unittest.SkipTest("there is no real Firecracker: neither on the PATH nor by MERGEN_FIRECRACKER_BIN")
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise unittest.SkipTest(f"/dev/kvm does not open: {error.strerror}") from None
    if with_jailer and not os.path.exists(jailer_beside(program)):
        raise unittest.SkipTest(f"there is no jailer beside {program}")
    return program


# A line of Firecracker's log, which goes where the guest prints, and that letter by letter: it may come between any two.
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+ \[[^]\n]*\] .*\n")


ECHO_REQUEST, ECHO_REPLY = 8, 0


def icmp_echo(kind, identifier, sequence, data):
    """One ICMP message; `data` of an even length."""
    def message(checksum):
        return struct.pack("!BBHHH", kind, 0, checksum, identifier, sequence) + data
    total = sum(word for word, in struct.iter_unpack("!H", message(0)))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return message(~total & 0xffff)


class TinyVm(Vm):
    def console(self):
        """What the guest printed."""
        return LOG_LINE.sub("", super().console())

    def causes(self):
        return [event["cause"] for event in self.events() if event["cause"]]

    def echo(self, data, seconds):
        """What comes back from the guest's UDP, through the published port. Raises TimeoutError if nothing does."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(seconds)
            client.connect(("127.0.0.1", self.host_port(guest=7)))
            client.send(data)
            return client.recv(2048)

    def ask_by_icmp(self, message, seconds):
        """The ICMP message with which the guest answers this one, sent to its own address. Raises TimeoutError if none
        comes."""
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as client:
            client.settimeout(seconds)
            client.connect((self.address(), 0))
            client.send(message)
            packet = client.recv(2048)
        return packet[(packet[0] & 0xf) * 4:]  # behind the IP header

    def neighbour(self):
        """What its namespace knows of who has the guest's address: an object of ip's, or nothing."""
        network = self.view()["network"]
        found = subprocess.run(["ip", "-j", "-n", network["netns"], "neigh", "show", self.address(), "dev",
                                network["tapName"]], check=True, capture_output=True, text=True).stdout
        return next(iter(json.loads(found)), None)

    def told(self, path="/vm/config"):
        """What Firecracker itself answers to GET `path`."""
        connection = UnixConnection(self.view()["firecracker"]["socketPath"], timeout=20)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


def tiny_build():
    """The build, with the tiny guest as its VMs' kernel."""
    build = Build(harness.BUILD.folder)
    build.kernel = build.tiny_guest
    return build


class RealProgram:
    """Before a story's class that was written for the fake Firecracker: it runs on a real one, with the tiny guest."""

    needs_jailer = False
    kvm_device = "/dev/kvm"

    @classmethod
    def setUpClass(cls):
        cls.program = require_firecracker(cls.needs_jailer)
        if cls.needs_jailer:
            cls.jailer = jailer_beside(cls.program)

    def build(self):
        return tiny_build()


class OnARealFirecracker(MergenTest):
    """Servers whose `vmm/firecracker` starts a real one. Its VMs have the tiny guest, which runs wherever KVM opens."""

    backends = {"vmm": "firecracker"}
    jailer = "off"  # setting of vmm/firecracker; "auto": jailed by the one that lies beside it
    more_settings = {}  # {section: {key: value}}, of other sections or in place of one of these

    def build(self):
        return tiny_build()

    def setUp(self):
        self.program = require_firecracker(with_jailer=self.jailer == "auto")
        # KVM is not judged: the tiny guest runs on one that no Linux comes up on.
        self.settings = {"vmm.firecracker": {"binary": self.program, "probe": "false", "jailer": self.jailer},
                         "vm": {"stop_grace": "5s", "kill_grace": "5s"}, **self.more_settings}
        super().setUp()
        # Mergen runs a Firecracker that no jail can hold without one, and says so; the stories would not see it.
        jailed = f"jailed by {jailer_beside(self.program)}" if self.jailer == "auto" else "not jailed: jailer = off"
        self.assertIn(jailed, self.component("firecracker"))

    def body(self, words="", **members):
        """`words`: of the guest's command line."""
        ports = [{"guest": 80, "host": 0}, {"guest": 7, "host": 0, "protocol": "udp"}]
        return super().body(**{"memMiB": 128, "ports": ports, "bootArgs": f"console=ttyS0 {words}".strip(), **members})

    def create(self, **members):
        return TinyVm(self, super().create(**members).id)
