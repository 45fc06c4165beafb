#!/usr/bin/python3
"""Measures how much more than the bare sequence of calls a start of a VM costs.

    start.py --build FOLDER [--rounds N] [GOAL...]

GOAL is one of S1 to S8, COLD, JAILED, GROWTH, HUNDRED; without one all are measured. The bare sequences are those of
mergen-bare-start. Both sides of a comparison run turn by turn in one go, and what counts is the ratio of medians: on a
machine that is shared the ratios hold, the absolute figures do not. The VMM is the real Firecracker that
MERGEN_FIRECRACKER_BIN names or PATH has, with the tiny guest of the build, which answers datagrams; without one it is the
fake, which has no guest, and COLD and JAILED are not measured. S1, S2, GROWTH and HUNDRED are on the fake in any case.
Needs root, and is run in tests/in-private-network.
"""

import argparse
import concurrent.futures
import glob
import json
import os
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from bench import Build, Table, print_machine, say  # noqa: E402  pylint: disable=wrong-import-position
from many import ManyVms  # noqa: E402  pylint: disable=wrong-import-position
from real_firecracker import find_firecracker  # noqa: E402  pylint: disable=wrong-import-position
from server import Server  # noqa: E402  pylint: disable=wrong-import-position

GOALS = ("S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "COLD", "JAILED", "GROWTH", "HUNDRED")
COLD = "request to the guest's first answer"
MEMORY_MIB = 128
# The table of the bare wires; the elements are added by netlink.
TABLE = "table inet bare { set links { type ifname; }; set sources { type ifname . ipv4_addr; }; }"


def median(values):
    return statistics.median(values)


def settle():
    """The kernel takes a VM and a namespace that have ended apart for a while, and network/linux what is left of it a
    quarter of a second later, on the processors of who comes next."""
    time.sleep(0.35)


class Bare:
    """mergen-bare-start: asked in JSON, a line each."""

    def __init__(self, build):
        self._process = subprocess.Popen([os.path.join(build, "bin", "mergen-bare-start")], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True)

    def ask(self, what, **members):
        self._process.stdin.write(json.dumps({"do": what, **members}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(f"{what}: {answer['error']}")
        return answer

    def close(self):
        self._process.stdin.close()
        self._process.wait()


class Vmm:
    """The program, and one place to start it at by hand."""

    def __init__(self, program, real, guest, scratch):
        self.program, self.real = program, real
        self.folder = tempfile.mkdtemp(prefix="bare.", dir="/run")
        self.socket = os.path.join(self.folder, "s")
        self.console = os.path.join(self.folder, "console")
        self.kernel = guest
        self.disk = os.path.join(scratch, "bare.disk")
        with open(self.disk, "wb") as file:
            file.write(bytes(64 << 10))
        self.record = os.path.join(scratch, "bare.record")
        os.mkdir(self.record)

    def fresh(self):
        for path in (self.socket, self.console):
            if os.path.exists(path):
                os.unlink(path)

    def arguments(self):
        return [self.program, "--api-sock", self.socket, "--id", "bare", "--level", "Warning"]

    def calls(self, subject, guest, kernel=None, disk=None):
        """What the VMM is told of the same guest as mergend's, but with this address: (path, body)."""
        told = subject.configuration
        calls = [("/machine-config", told["machine-config"]),
                 ("/boot-source", {**told["boot-source"], "kernel_image_path": kernel or self.kernel,
                                   "boot_args": told["boot-source"]["boot_args"].replace(subject.address, guest)})]
        calls += [(f"/drives/{drive['drive_id']}", {**drive, "path_on_host": disk or self.disk})
                  for drive in told["drives"]]
        calls += [(f"/network-interfaces/{card['iface_id']}", {**card, "host_dev_name": "tap0"})
                  for card in told["network-interfaces"]]
        calls.append(("/actions", {"action_type": "InstanceStart"}))
        return [[path, json.dumps(body)] for path, body in calls]

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class Subject:
    """mergend with VMs that are quick to make."""

    def __init__(self, options, vmm, jailer="off", threads=16):
        build = Build(options.build, options.scratch)
        build.kernel = vmm.kernel
        self.server = Server(build, {"vmm": "firecracker"}, {
            "server": {"threads": str(threads)}, "log": {"level": "info"}, "vm": {"max_vms": "5000"},
            "network": {"guest_cidr": "172.29.0.0/16", "port_start": "20000", "port_end": "60000"},
            "vmm.firecracker": {"binary": vmm.program, "probe": "false", "jailer": jailer}})
        self.server.start(seconds=120)
        self.configuration = self.address = None

    def create(self):
        """Its id and address; of the newest one also what its VMM is told."""
        name = self.server.api.create({"rootfs": self.server.rootfs, "kernel": self.server.kernel,
                                       "memMiB": MEMORY_MIB, "ports": [{"guest": 80, "host": 0}]})
        self.address = self.view(name)["network"]["guestIP"]
        self.configuration = self.server.api.get(f"/v1/vms/{name}/vmm-config")
        return name, self.address

    def view(self, name):
        return self.server.api.get(f"/v1/vms/{name}")

    @property
    def mac(self):
        return self.configuration["network-interfaces"][0]["guest_mac"]

    def post(self, name, what):
        self.server.api.expect(200, "POST", f"/v1/vms/{name}/{what}")

    def seconds(self, name, what):
        began = time.monotonic()
        self.post(name, what)
        return time.monotonic() - began

    def steps(self, name, operation):
        """{step: ms} of its last such operation."""
        events = self.server.api.get(f"/v1/vms/{name}/events")["items"]
        last = [event for event in events if event["operation"] == operation][-1]["operationId"]
        return {event["step"]: event["durationUs"] / 1e3 for event in events
                if event["operationId"] == last and event.get("step")}

    def remove(self):
        for vm in self.server.api.list():
            self.server.api.request("DELETE", f"/v1/vms/{vm['id']}")
        self.server.drain()
        self.server.remove()


# ---- S1, S2, COLD: a whole start

def shell_start(vmm, subject, number):
    """The same by programs, as a script does it: ms."""
    guest = f"10.128.100.{number}"
    script = f"""
set -e
head -c 2000 /dev/zero >{vmm.record}/shell.tmp; sync -d {vmm.record}/shell.tmp
mv {vmm.record}/shell.tmp {vmm.record}/shell; sync {vmm.record}
ip netns add shell; ip link add sg-{number} type veth peer name uplink netns shell
ip -n shell link set lo up
ip -n shell tuntap add tap0 mode tap vnet_hdr; ip -n shell addr add 10.128.255.254/16 dev tap0
ip -n shell link set tap0 up; ip -n shell addr add 192.0.0.2/32 dev uplink; ip -n shell link set uplink up
ip netns exec shell sysctl -qw net.ipv4.ip_forward=1
ip -n shell route add default via 192.0.0.1 dev uplink onlink
ip addr add 192.0.0.1/32 dev sg-{number}; ip link set sg-{number} up
ip route add {guest} via 192.0.0.2 dev sg-{number} onlink
nft add element inet bare links '{{ sg-{number} }}'
nft add element inet bare sources '{{ sg-{number} . {guest} }}'
ip netns exec shell {' '.join(vmm.arguments())} >{vmm.console} 2>&1 &
echo $! >{vmm.folder}/pid
until [ -S {vmm.socket} ]; do sleep 0.01; done
""" + "\n".join(f"curl -sf --unix-socket {vmm.socket} -X PUT http://localhost{path} -d '{body}'"
                for path, body in vmm.calls(subject, guest))
    vmm.fresh()
    began = time.monotonic()
    subprocess.run(["bash", "-c", script], check=True)
    spent = (time.monotonic() - began) * 1e3
    with open(f"{vmm.folder}/pid", encoding="ascii") as file:
        os.kill(int(file.read()), 9)
    subprocess.run(["bash", "-c", f"ip link del sg-{number}; ip netns del shell;"
                    f"nft delete element inet bare links '{{ sg-{number} }}';"
                    f"nft delete element inet bare sources '{{ sg-{number} . {guest} }}'"], check=True)
    return spent


def measure_starts(options, table, bare, vmm, wanted):
    subject = Subject(options, vmm)
    ours, theirs, alone, shell, spans = [], [], [], [], []
    try:
        name, address = subject.create()
        for number in range(1, options.rounds + 2):  # the first round warms up
            guest = f"10.128.0.{number}"
            vmm.fresh()
            by_hand = bare.ask("start", arguments=vmm.arguments(), socket=vmm.socket, console=vmm.console, wire=number,
                               mac=subject.mac, record=vmm.record, calls=vmm.calls(subject, guest),
                               **({"guest": guest} if vmm.real else {}))
            bare.ask("end", pid=by_hand["pid"])
            settle()
            vmm.fresh()
            only = bare.ask("start", arguments=vmm.arguments(), socket=vmm.socket, console=vmm.console, wire=number,
                            wired=True, calls=vmm.calls(subject, guest))
            bare.ask("end", pid=only["pid"])
            bare.ask("unwire", number=number)
            settle()
            started = bare.ask("request", port=subject.server.api.port, path=f"/v1/vms/{name}/start",
                               **({"guest": address} if vmm.real else {}))
            steps = subject.steps(name, "start")
            subject.post(name, "stop")
            settle()
            if "S2" in wanted:
                shell.append(shell_start(vmm, subject, number))
                settle()
            ours.append(started)
            theirs.append(by_hand)
            alone.append(only["vmm"])
            spans.append(steps)
        del ours[0], theirs[0], alone[0], spans[0]
        say(f"a start, ms: mergend {median(o['ms'] for o in ours):.1f}, "
            f"by hand {median(t['ms'] for t in theirs):.1f}, the VMM alone {median(alone):.1f}" + (f", by a shell script {median(shell[1:]):.1f}" if shell else ""))
        say("  of mergend's: " + ", ".join(f"{step} {median(span[step] for span in spans):.2f}" for step in spans[-1]))
        manager = median(o["ms"] - a for o, a in zip(ours, alone))
        hand = median(t["ms"] - a for t, a in zip(theirs, alone))
        say(f"  beside the VMM: mergend {manager:.2f}, by hand {hand:.2f}")
        if "S1" in wanted:
            table.add("S1", "a start beside its VMM: mergend / by hand", manager / hand, 2.5, unit="x")
        if "S2" in wanted:
            script = median(s - a for s, a in zip(shell[1:], alone))
            table.add("S2", "a start beside its VMM: mergend / shell script", manager / script, 1 / 15, unit="x")
        if "COLD" in wanted:
            mine, bares = median(o["answer"] for o in ours), median(t["answer"] for t in theirs)
            say(f"  {COLD}, ms: mergend {mine:.1f}, by hand {bares:.1f}")
            table.add("COLD", f"{COLD}: mergend / by hand", mine / bares, 1.3, unit="x")
    finally:
        subject.remove()


def measure_jailed(options, table, bare, vmm):
    what = "jailed, request to first answer: mergend / by hand"
    jailer = shutil.which("jailer", path=os.path.dirname(vmm.program) + ":" + os.environ["PATH"])
    if not vmm.real or not jailer:
        table.skip("JAILED", what, "there is no real Firecracker with a jailer")
        return
    keys = subprocess.run([os.path.join(options.build, "bin", "mergend"), "--print-config"], capture_output=True,
                          text=True, check=True).stdout
    if not any(line.split("=")[0].strip().endswith("jailer") for line in keys.splitlines()):
        table.skip("JAILED", what, "this mergend knows no jailer")
        return
    subject = Subject(options, vmm, jailer)
    ours, theirs = [], []
    try:
        name, address = subject.create()
        words = None
        for number in range(1, options.rounds + 2):
            started = bare.ask("request", port=subject.server.api.port, path=f"/v1/vms/{name}/start", guest=address)
            words = words or launched(name, subject)
            subject.post(name, "stop")
            ours.append(started["answer"])
            settle()
            theirs.append(jailed_by_hand(options, bare, vmm, subject, words, number))
        say(f"jailed, ms: mergend {median(ours[1:]):.1f}, by hand {median(theirs[1:]):.1f}")
        table.add("JAILED", what, median(ours[1:]) / median(theirs[1:]), 1.3, unit="x")
    finally:
        subject.remove()


def launched(name, subject):
    """The command line that mergend gave the VM's parent to execute."""
    uuid = subject.view(name)["uuid"]
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, encoding="utf-8") as file:
                words = file.read().split("\0")[:-1]
        except OSError:
            continue
        if words and words[0].endswith("mergen-vm") and any(word.endswith(uuid) for word in words):
            return words[words.index("--") + 1:]
    raise RuntimeError(f"no mergen-vm of {uuid}")


def jailed_by_hand(options, bare, vmm, subject, words, number):
    """The same jailer arguments with another id, base folder and namespace; the first answer, ms."""
    guest, name, base = f"10.128.0.{number}", f"bare{number}", os.path.join(options.scratch, "jail")
    words = list(words)
    for option, value in (("--id", name), ("--chroot-base-dir", base), ("--netns", f"/run/netns/bare-{number}")):
        if option in words:
            words[words.index(option) + 1] = value
        else:
            words[1:1] = [option, value]
    value_of = {word: words[at + 1] for at, word in enumerate(words[:-1]) if word.startswith("--")}
    uid, gid = int(value_of["--uid"]), int(value_of["--gid"])
    root = os.path.join(base, os.path.basename(value_of["--exec-file"]), name, "root")
    os.makedirs(root)
    for source, target in ((vmm.kernel, "kernel"), (vmm.disk, "rootfs")):
        shutil.copyfile(source, os.path.join(root, target))
        os.chown(os.path.join(root, target), uid, gid)
    socket = root + value_of.get("--api-sock", "/run/firecracker.socket")
    os.makedirs(os.path.dirname(socket), exist_ok=True)
    os.chown(os.path.dirname(socket), uid, gid)
    done = bare.ask("start", arguments=words, socket=socket, console=vmm.console, wire=number, uid=uid, mac=subject.mac,
                    jailed=True, record=vmm.record, calls=vmm.calls(subject, guest, "/kernel", "/rootfs"), guest=guest)
    with open(glob.glob(root + "/*.pid")[0], encoding="ascii") as file:
        pid = int(file.read())
    pidfd = os.pidfd_open(pid)
    os.kill(pid, 9)
    bare.ask("end", pid=done["pid"])
    select.select([pidfd], [], [], 10)
    os.close(pidfd)
    bare.ask("unwire", number=number)
    settle()
    shutil.rmtree(base)
    for folder in glob.glob(f"/sys/fs/cgroup/**/{name}", recursive=True):
        os.rmdir(folder)
    return done["answer"]


# ---- S3 to S6: the wire

BATCH = 15  # wires are made in a row; of these at most one finds its namespace ready


def attached(bare, number):
    """ms of reserve() and attach()"""
    done = bare.ask("attach", number=number)
    return done["reserve"] + done["attach"]


def some_flow():
    """A connection that the kernel tracks, as there is one on every host; open until it is closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return socket.create_connection(server.getsockname())


def measure_wires(options, table, bare, wanted):
    with some_flow():
        measure_wires_of(options, table, bare, wanted, "netns", 3)
        if "S4" in wanted:
            measure_wires_of(options, table, bare, {"S4"}, "tap", 1.3)


def measure_wires_of(options, table, bare, wanted, topology, growth):
    """`growth`: how much more a wire may cost with many there. Raw netlink makes wires of topology netns only."""
    bare.ask("topology", name=topology)
    bare.ask("attach", number=60000)  # one is always there, and the sockets are warm
    # At 0 before and after, as the machine's other load changes meanwhile.
    sizes = (0, 100, 1000, 0) if {"S4", "S6"} & set(wanted) else (0,)
    ours, theirs, there, gone, many = {}, {}, 0, [], []
    for size in sizes:
        for number in range(there + 1, size + 1):
            bare.ask("attach", number=number)
        if there > size:
            many = [bare.ask("detach", number=number)["ms"] for number in range(size + 1, there + 1)]
            many.append(bare.ask("settle")["ms"])
        there = size
        now, raw = [], []
        for first in range(20001, 20001 + BATCH * (options.rounds + 1), BATCH):
            numbers = range(first, first + BATCH)
            if topology == "netns":
                raw.append(statistics.mean(bare.ask("wire", number=number)["ms"] for number in numbers))
                for number in numbers:
                    bare.ask("unwire", number=number)
                settle()
            now.append(statistics.mean(attached(bare, number) for number in numbers))
            gone += [bare.ask("detach", number=number)["ms"] for number in numbers]
            bare.ask("settle")
            settle()
        ours[size] = ours.get(size, []) + now[1:]  # the first round warms up
        theirs[size] = theirs.get(size, []) + raw[1:]
        say(f"a wire ({topology}) with {size} there, ms: network/linux {median(now[1:]):.2f}" +
            (f", raw {median(raw[1:]):.2f}" if raw else ""))
    if "S3" in wanted:
        table.add("S3", "a wire: network/linux / raw netlink", median(ours[0]) / median(theirs[0]), 1.5, unit="x")
    if "S4" in wanted:
        for size in (100, 1000):
            table.add("S4", f"a wire ({topology}) at {size} / at 0", median(ours[size]) / median(ours[0]), growth,
                      unit="x")
    if "S6" in wanted:
        table.add("S6", "a wire taken away, as who asks sees it", median(gone), 2, unit=" ms")
        table.add("S6", f"each of {max(sizes)} wires, until no trace is left", sum(many) / max(sizes), 1, unit=" ms")
    bare.ask("detach", number=60000)


def measure_elements(options, table, bare):
    """One VM's ports are changed while another one's are few, and many."""
    bare.ask("attach", number=60000)
    medians = {}
    for size in (0, 10_000):
        bare.ask("publish", number=60000, port=20000, ports=size)
        settle()  # the kernel makes the map's table larger behind our back
        times = []
        for _ in range(options.rounds * 20):
            times.append(bare.ask("publish", number=50000, port=50000, ports=1)["ms"])
            times.append(bare.ask("publish", number=50000, ports=0)["ms"])
        medians[size] = median(times)
    bare.ask("detach", number=50000)
    bare.ask("detach", number=60000)
    say(f"a published port, ms: with no others {medians[0]:.3f}, with 10,000 {medians[10_000]:.3f}")
    table.add("S5", "a port with 10,000 elements there / with none", medians[10_000] / medians[0], 1.2, unit="x")


def measure_connections(options, table, bare):
    """One VM's port is connected to while another one's are none and many, turn by turn."""
    bare.ask("topology", name="netns")
    bare.ask("attach", number=50000)
    bare.ask("attach", number=60000)
    subprocess.run(["ip", "-n", f"mergen-{50000:08x}", "address", "add", f"10.64.{50000 >> 8}.{50000 & 255}", "dev", "lo"],
                   check=True)
    bare.ask("publish", number=50000, port=50000, ports=1)
    times = {0: [], 10_000: []}
    for _ in range(options.rounds):
        for size, all_of in times.items():
            bare.ask("publish", number=60000, port=20000, ports=size)
            settle()
            all_of += bare.ask("connect", number=50000, port=50000, times=50)["ms"]
    bare.ask("detach", number=50000)
    bare.ask("detach", number=60000)
    few, many = median(times[0]), median(times[10_000])
    say(f"a connection through a published port, ms: with no others {few:.4f}, with 10,000 {many:.4f}")
    table.add("S5", "a new connection with 10,000 elements / with none", many / few, 1.1, unit="x")


# ---- S7, S8

def measure_spawns(options, table, bare):
    small = large = None
    pairs = []
    for _ in range(3):
        small = bare.ask("spawn", mib=16, threads=0)["ms"]
        large = bare.ask("spawn", mib=1024, threads=64)["ms"]
        pairs.append((small, large))
    small, large = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
    say(f"a spawn, ms: out of 16 MiB {small:.3f}, out of 1 GiB with 64 threads {large:.3f}")
    table.add("S7", "a spawn out of 1 GiB and 64 threads / 16 MiB", large / small, 1.5, unit="x")


def measure_socket(options, table, bare, vmm):
    times = {True: [], False: []}
    for _ in range(options.rounds * 2):
        for busy, all_of in times.items():
            vmm.fresh()
            all_of.append(bare.ask("socket", arguments=vmm.arguments(), socket=vmm.socket, console=vmm.console,
                                   busy=busy)["ms"])
    awaited, busy = median(times[False]), median(times[True])
    say(f"from spawn to API socket, ms: awaited {awaited:.2f}, asked without a pause {busy:.2f}")
    table.add("S8", "added by the wait for the API socket", max(0, awaited - busy), 2, unit=" ms")


# ---- GROWTH, HUNDRED: on the fake, which costs nothing

def measure_growth(options, table, fake):
    subject = Subject(options, fake)
    try:
        running, medians = 0, {}
        name, _ = subject.create()
        for size in (1, 100, 1000):
            while running < size:
                subject.post(subject.create()[0], "start")
                running += 1
            times = []
            for _ in range(options.rounds + 1):
                times.append(subject.seconds(name, "start") * 1e3)
                subject.post(name, "stop")
                settle()
            medians[size] = median(times[1:])
            say(f"a start with {size} VMs running (fake), ms: {medians[size]:.2f}; " +
                ", ".join(f"{step} {spent:.2f}" for step, spent in subject.steps(name, "start").items()))
        for size in (100, 1000):
            table.add("GROWTH", f"a start with {size} VMs running / with 1 (fake)", medians[size] / medians[1], 3,
                      unit="x")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda vm: subject.server.api.request("DELETE", f"/v1/vms/{vm['id']}"),
                          subject.server.api.list()))
    finally:
        subject.remove()


class Apart(ManyVms, unittest.TestCase):
    """What no two VMs may have in common, as the tests look for it."""


def measure_hundred(options, table, fake):
    subject = Subject(options, fake, threads=136)  # a quarter of them is kept for requests that change nothing
    try:
        names = [subject.create()[0] for _ in range(100)]
        one_by_one, at_once = [], []
        for _ in range(2):
            began = time.monotonic()
            for name in names:
                subject.post(name, "start")
            one_by_one.append(time.monotonic() - began)
            with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
                list(pool.map(lambda name: subject.post(name, "stop"), names))
                began = time.monotonic()
                list(pool.map(lambda name: subject.post(name, "start"), names))
                at_once.append(time.monotonic() - began)
                views = [subject.view(name) for name in names]
                Apart().assert_nothing_is_shared(views)
                Apart().assert_running_apart(views)
                list(pool.map(lambda name: subject.post(name, "stop"), names))
        say(f"100 starts (fake), s: one after the other {min(one_by_one):.2f}, at once {min(at_once):.2f}")
        table.add("HUNDRED", "100 starts at once / one after the other (fake)", min(at_once) / min(one_by_one), 1.2,
                  unit="x")
    finally:
        subject.remove()


# ----

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("goals", nargs="*", metavar="GOAL", type=str.upper)
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    wanted = options.goals or GOALS
    unknown = [goal for goal in wanted if goal not in GOALS]
    if unknown:
        parser.error(f"there is no goal {unknown[0]}: {' '.join(GOALS)}")

    table = Table()
    options.scratch = tempfile.mkdtemp(prefix="mergen-bench.", dir="/var/tmp")
    os.chmod(options.scratch, 0o755)
    guest = os.path.join(options.build, "guest", "tiny-guest")
    fake = Vmm(os.path.join(options.build, "bin", "firecracker"), False, guest, options.scratch)
    vmm = fake
    program = find_firecracker()
    if program:
        os.mkdir(os.path.join(options.scratch, "real"))
        vmm = Vmm(program, True, guest, os.path.join(options.scratch, "real"))
    subprocess.run(["nft", TABLE], check=True)
    bare = Bare(options.build)
    try:
        print_machine(options)
        say(f"VMM: {vmm.program}" + ("" if vmm.real else ", a fake one"))
        if {"S1", "S2"} & set(wanted):
            # On the fake: what a real VMM takes varies more than what is measured here.
            measure_starts(options, table, bare, fake, set(wanted) - {"COLD"})
        if "COLD" in wanted and vmm.real:
            measure_starts(options, table, bare, vmm, {"COLD"})
        elif "COLD" in wanted:
            table.skip("COLD", f"{COLD}: mergend / by hand", "there is no real Firecracker")
        if "JAILED" in wanted:
            measure_jailed(options, table, bare, vmm)
        if {"S3", "S4", "S6"} & set(wanted):
            measure_wires(options, table, bare, wanted)
        if "S5" in wanted:
            measure_elements(options, table, bare)
            measure_connections(options, table, bare)
        if "S7" in wanted:
            measure_spawns(options, table, bare)
        if "S8" in wanted:
            measure_socket(options, table, bare, vmm)
        if "HUNDRED" in wanted:
            measure_hundred(options, table, fake)
        if "GROWTH" in wanted:
            measure_growth(options, table, fake)
    finally:
        bare.close()
        fake.remove()
        vmm.remove()
        shutil.rmtree(options.scratch, ignore_errors=True)
    say()
    table.print()
    table.say_verdict()
    return 0


if __name__ == "__main__":
    sys.exit(main())
