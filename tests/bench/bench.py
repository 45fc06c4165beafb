#!/usr/bin/python3
"""Measures a release build against the goals for speed and memory.

    bench.py --build FOLDER [--nginx PROGRAM] [--rounds N] [GOAL...]

GOAL is one of D1, A1, A2, A3, M1; without one all are measured. What is compared runs side by side in one go, turn by
turn, and medians are printed: on a machine that is shared the ratios hold, the absolute figures do not. Work is counted as
CPU time of the server's process (user and system), which a neighbour hardly moves, save where the disk is waited for.

The server runs with storage/files, supervisor/process, network/stub and every plugin library in its folder.
"""

import argparse
import http.client
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from server import Server  # noqa: E402  pylint: disable=wrong-import-position

SIZES = (10, 1_000, 10_000)
SERVER_CPU, CLIENT_CPU = 0, 1
TICK = os.sysconf("SC_CLK_TCK")


def say(text=""):
    print(text, flush=True)


# ---- what is measured of a process

def cpu_seconds(pid):
    """User and system time of the process and of those of its children that were reaped."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rsplit(b")", 1)[1].split()
    return sum(int(field) for field in fields[11:13]) / TICK


def pss_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return int(re.search(r"^Pss:\s+(\d+) kB", file.read(), re.MULTILINE).group(1))


def pin(pid, cpu):
    """All threads of the process to one processor, if there is more than one."""
    if os.cpu_count() > 1:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), {cpu})


# ---- the server under test

class Build:
    """What tests/e2e/server.py wants to know of a build, with images that are small: a create copies them."""

    def __init__(self, folder, scratch):
        self.folder = os.path.abspath(folder)
        self.mergend = os.path.join(self.folder, "bin", "mergend")
        self.kernel = os.path.join(scratch, "kernel")
        self.rootfs = os.path.join(scratch, "rootfs.ext4")
        for path in (self.kernel, self.rootfs):
            with open(path, "wb") as file:
                file.write(bytes(64 << 10))


class Subject:
    """mergend on folders of its own, with as many records as are asked for."""

    def __init__(self, build):
        self.server = Server(build, {"network": "stub"}, {
            "log": {"level": "info"}, "vm": {"max_vms": "20000"},
            "network": {"guest_cidr": "172.16.0.0/16", "port_start": "20000", "port_end": "60000"}})
        self._template = None
        self._count = 0

    def start(self):
        """(wall seconds until ready, CPU seconds until then)"""
        began = time.monotonic()
        self.server.start(seconds=300)
        return time.monotonic() - began, cpu_seconds(self.server.pid)

    def stop(self):
        self.server.drain()

    def remove(self):
        self.server.remove()

    @property
    def pid(self):
        return self.server.pid

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.server.api.port, timeout=300)

    def body(self):
        return {"rootfs": self.server.rootfs, "kernel": self.server.kernel, "memMiB": 128,
                "ports": [{"guest": 80, "host": 0}]}

    def grow(self, count):
        """Makes records until there are `count`, as copies of one that the server made; it must not run."""
        folder = self.server.config_root
        if self._template is None:
            self.start()
            name = self.server.api.create(self.body())
            view = self.server.api.get(f"/v1/vms/{name}")
            self.stop()
            self._template = {"uuid": name, "short": name[:8], "address": view["network"]["guestIP"],
                              "mac": view["network"]["mac"], "port": str(view["network"]["ports"][0]["host"]),
                              "files": {}}
            for file_name in os.listdir(os.path.join(folder, name)):
                with open(os.path.join(folder, name, file_name), encoding="utf-8") as file:
                    self._template["files"][file_name] = file.read()
            self._count = 1
        for number in range(self._count, count):
            self._copy(folder, number)
        self._count = count
        os.sync()

    def _copy(self, folder, number):
        template = self._template
        # Names and MAC addresses come from the first three bytes.
        name = str(uuid.UUID(int=(number << 104) | (0x4 << 76) | (0x8 << 60)))
        host = number + 2
        values = {template["uuid"]: name, template["short"]: name[:8],
                  template["address"]: f"172.16.{host >> 8}.{host & 255}",
                  template["mac"]: "02:fc:" + ":".join((name[0:2], name[2:4], name[4:6])) + ":01"}
        os.mkdir(os.path.join(folder, name), 0o750)
        for file_name, text in template["files"].items():
            for old, new in values.items():
                text = text.replace(old, new)
            text = re.sub(rf"\b{template['port']}\b", str(20_000 + number), text)
            text = re.sub(r'"(uid|gid)": \d+', rf'"\1": {1_900_000_000 + number}', text)
            path = os.path.join(folder, name, file_name)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(path, 0o640)


def fetch(connection, path):
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        raise RuntimeError(f"GET {path}: status {response.status}")
    return body


def server_time(subject, path, seconds):
    """CPU seconds of the server for one GET, asked for again and again over one connection."""
    connection = subject.connect()
    fetch(connection, path)
    count, began, before = 0, time.monotonic(), cpu_seconds(subject.pid)
    while time.monotonic() - began < seconds or count < 3:
        fetch(connection, path)
        count += 1
    spent = cpu_seconds(subject.pid) - before
    connection.close()
    return spent / count


def create_seconds(subject, times=15):
    """Wall seconds of one create over HTTP (median); the VMs are deleted again."""
    connection, spent, made = subject.connect(), [], []
    for _ in range(times):
        body = json.dumps(subject.body())
        began = time.monotonic()
        connection.request("POST", "/v1/vms", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        spent.append(time.monotonic() - began)
        if response.status != 201:
            raise RuntimeError(f"POST /v1/vms: {text.decode()}")
        made.append(json.loads(text)["id"])
    for name in made:
        connection.request("DELETE", f"/v1/vms/{name}")
        connection.getresponse().read()
    connection.close()
    return statistics.median(spent)


# ---- the goals

class Table:
    def __init__(self):
        self.rows = []

    def add(self, goal, what, measured, limit, better="less", unit="", note=""):
        """`limit`: what passes; printed as the ratio of the two."""
        ratio = measured / limit
        kept = ratio <= 1 if better == "less" else ratio >= 1
        if kept:
            verdict = "kept"
        else:
            verdict = f"MISSED by a factor of {ratio if better == 'less' else 1 / ratio:.2f}"
        sign = "<=" if better == "less" else ">="
        self.rows.append((goal, what, f"{measured:.3g}{unit}", f"{sign} {limit:g}{unit}", f"{ratio:.2f}",
                          verdict + (f" ({note})" if note else "")))

    def skip(self, goal, what, why):
        self.rows.append((goal, what, "-", "-", "-", f"not measured: {why}"))

    def print(self):
        heads = ("goal", "what", "measured", "goal is", "ratio", "verdict")
        widths = [max(len(row[column]) for row in [heads, *self.rows]) for column in range(len(heads))]
        for row in [heads, tuple("-" * width for width in widths), *self.rows]:
            say("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())

    def say_verdict(self):
        missed = sum(row[-1].startswith("MISSED") for row in self.rows)
        skipped = sum(row[-1].startswith("not measured") for row in self.rows)
        say(f"{len(self.rows) - missed - skipped} goals kept, {missed} missed, {skipped} not measured")


def measure_durable_create(options, table):
    done = subprocess.run([os.path.join(options.build, "bin", "mergen-bench"), "--benchmark_format=json"],
                          env={**os.environ, "TMPDIR": options.scratch}, check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True)
    run = json.loads(done.stdout)["benchmarks"][0]
    say(f"a durable record, medians of {run['iterations']} turns, us: create {run['create']:.0f}, the same by hand "
        f"{run['create_by_hand']:.0f}, change {run['change']:.0f}; one file by hand {run['one_file_by_hand']:.0f}")
    table.add("D1", "durable create / the same calls by hand", run["ratio"], 1.2, unit="x")


class Nginx:
    """One worker that gives this body to whoever asks."""

    def __init__(self, program, scratch, body, port):
        self.port = port
        path = os.path.join(scratch, "nginx.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"""
worker_processes 1; daemon off; pid {scratch}/nginx.pid; error_log {scratch}/nginx.err;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 100000000; default_type application/json;
    client_body_temp_path {scratch}/b; proxy_temp_path {scratch}/p; fastcgi_temp_path {scratch}/f;
    uwsgi_temp_path {scratch}/u; scgi_temp_path {scratch}/s;
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 '{body}'; }} }}
}}
""")
        self._master = subprocess.Popen([program, "-c", path, "-p", scratch, "-e", f"{scratch}/nginx.err"], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/")
                assert connection.getresponse().read().decode() == body
                connection.close()
                break
            except OSError:
                if self._master.poll() is not None or time.monotonic() > deadline:
                    with open(f"{scratch}/nginx.err", encoding="utf-8") as file:
                        raise RuntimeError(f"nginx does not serve: {file.read()[-500:]}") from None
                time.sleep(0.05)
        with open(f"/proc/{self._master.pid}/task/{self._master.pid}/children", encoding="ascii") as file:
            self.pid = int(file.read().split()[0])

    def stop(self):
        self._master.send_signal(signal.SIGQUIT)
        self._master.wait()


def load(url, seconds):
    """Requests that wrk got answered over 64 connections."""
    command = ["wrk", "-t1", "-c64", f"-d{seconds}s", url]
    if os.cpu_count() > 1:
        command = ["taskset", "-c", str(CLIENT_CPU), *command]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"wrk {url}: {output}")
    return int(re.search(r"(\d+) requests in", output).group(1))


def measure_get_under_load(options, table, subject, path):
    what = "GET one VM, 64 connections: requests per CPU second / nginx"
    if not shutil.which("wrk"):
        table.skip("A1", what, "there is no wrk")
        return
    if not options.nginx:
        table.skip("A1", what, "there is no nginx")
        return
    body = subject.server.api.request("GET", path).text
    nginx = Nginx(options.nginx, options.scratch, body, subject.server.api.port + 1)
    try:
        pin(nginx.pid, SERVER_CPU)
        pin(subject.pid, SERVER_CPU)
        ours, theirs = [], []
        for _ in range(options.rounds):
            for costs, pid, url in ((theirs, nginx.pid, f"http://127.0.0.1:{nginx.port}/"),
                                    (ours, subject.pid, f"http://127.0.0.1:{subject.server.api.port}{path}")):
                before = cpu_seconds(pid)
                requests = load(url, 2)
                costs.append((cpu_seconds(pid) - before) / requests)
        say(f"GET one VM under load, CPU us per request: mergend {statistics.median(ours) * 1e6:.1f}, "
            f"nginx {statistics.median(theirs) * 1e6:.1f}")
        table.add("A1", what, statistics.median(n / m for m, n in zip(ours, theirs)), 0.25, better="more", unit="x")
    finally:
        nginx.stop()


def measure_sizes(options, table, wanted):
    build = Build(options.build, options.scratch)
    subject = Subject(build)
    sizes, starts = {}, {}
    try:
        subject.start()
        empty = pss_kib(subject.pid)
        subject.stop()
        starts[0] = statistics.median(restart(subject) for _ in range(3))
        say("records   start: CPU s   create: ms   get: CPU us   list: CPU ms   PSS: MiB")
        for size in SIZES:
            subject.grow(size)
            if "A3" in wanted:
                starts[size] = statistics.median(restart(subject) for _ in range(3))
            subject.start()
            pss = pss_kib(subject.pid)
            vms = subject.server.api.list()
            strange = [vm for vm in vms if vm["state"] != "created"]
            if strange or len(vms) != size:
                raise RuntimeError(f"{len(vms)} of {size} VMs, {len(strange)} of them not as they were made: {strange[:1]}")
            name = vms[size // 2]["id"]
            sizes[size] = (create_seconds(subject), server_time(subject, f"/v1/vms/{name}", 1.0),
                           server_time(subject, "/v1/vms", 2.0), pss)
            create, get, whole, pss = sizes[size]
            say(f"{size:7}   {starts.get(size, float('nan')):12.2f}   {create * 1e3:10.1f}   {get * 1e6:11.0f}   "
                f"{whole * 1e3:12.2f}   {pss / 1024:8.1f}")
            if size == SIZES[0] and "A1" in wanted:
                measure_get_under_load(options, table, subject, f"/v1/vms/{name}")
            subject.stop()
    finally:
        subject.remove()
    most = SIZES[-1]
    if "A2" in wanted:
        table.add("A2", f"list {most:,} VMs: server's CPU", sizes[most][2] * 1e3, 10, unit=" ms")
        table.skip("A2", "a page of 100", "the API has no pages")
    if "A3" in wanted:
        table.add("A3", f"adopt {most:,} records at start: CPU beyond an empty start", starts[most] - starts[0], 0.5,
                  unit=" s")
    if "M1" in wanted:
        table.add("M1", "PSS of the server with no VM", empty / 1024, 16, unit=" MiB")
        table.add("M1", f"PSS per VM, of {most:,}", (sizes[most][3] - empty) / most, 4, unit=" KiB")


def restart(subject):
    """CPU seconds of the server until it is ready."""
    _, spent = subject.start()
    subject.stop()
    return spent


def first_line(command):
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().split("\n")[0]


def print_machine(options):
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"model name\s*:\s*(.*)", file.read())
    system = os.uname()
    say(f"machine: {os.cpu_count()} x {model.group(1) if model else system.machine}, Linux {system.release}, "
        f"load {os.getloadavg()[0]:.1f}")
    say(f"records on: {first_line(['findmnt', '-no', 'FSTYPE,SOURCE', '-T', options.scratch])}, {options.scratch}; "
        f"{options.rounds} rounds, medians")
    if os.getloadavg()[0] > os.cpu_count() / 2:
        say("note: the machine is busy; ratios of CPU time hold, what waits for the disk less so")


def main():
    goals = ("D1", "A1", "A2", "A3", "M1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--nginx")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("goals", nargs="*", metavar="GOAL", type=str.upper)
    options = parser.parse_args()
    wanted = options.goals or goals
    unknown = [goal for goal in wanted if goal not in goals]
    if unknown:
        parser.error(f"there is no goal {unknown[0]}: {' '.join(goals)}")

    table = Table()
    options.scratch = tempfile.mkdtemp(prefix="mergen-bench.", dir="/var/tmp")
    try:
        print_machine(options)
        if "D1" in wanted:
            measure_durable_create(options, table)
        if set(wanted) - {"D1"}:
            measure_sizes(options, table, wanted)
    finally:
        shutil.rmtree(options.scratch, ignore_errors=True)
    say()
    table.print()
    table.say_verdict()
    return 0


if __name__ == "__main__":
    sys.exit(main())
