"""A thousand real Firecrackers on one host, whose guests have halted: made, started, listed, adopted after the server was
killed, stopped and removed, with nothing left. How long it took is printed beside the result; nothing depends on it."""

import os
import re
import time

from api import UnixConnection
from many import ManyVms
from real_firecracker import OnARealFirecracker
from waiting import eventually

VMS = 1000


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(re.search(r"VmRSS:\s+(\d+) kB", file.read()).group(1)) / 1024


class Thousand(ManyVms, OnARealFirecracker):
    more_settings = {"server": {"threads": "48"},  # to stop a guest that hears nothing takes a thread for as long as it may
                     "log": {"level": "warn"},  # a thousand VMs' steps are nothing to read
                     "vm": {"stop_grace": "1s", "kill_grace": "30s"},
                     "network": {"guest_cidr": "172.29.0.0/16", "port_start": "20000", "port_end": "29999"}}

    def setUp(self):
        super().setUp()
        self.report = []
        self.rootfs = os.path.join(self.server.images, "small.ext4")
        with open(self.rootfs, "wb") as target:
            target.write(bytes(64 << 10))
        self.idle = self.snapshot_with_files()

    def tearDown(self):
        """What a failure left goes away as quickly as it came."""
        if self.server.pid is None:
            self.server.start()
        self.await_adoption()
        self.crowd(lambda caller, vm: caller.expect(200, "DELETE", f"/v1/vms/{vm['id']}"), self.server.api.list())
        super().tearDown()

    def await_adoption(self):
        """A server that has many to look at serves before it has done so; it says of each VM that it holds it."""
        eventually(lambda: not any(vm["operation"] for vm in self.server.api.list()), "the end of the adoption")

    def explain(self):
        return "--- log of mergend, last lines:\n" + self.server.log_tail(40)

    def phase(self, what, call, *arguments):
        began = time.monotonic()
        result = call(*arguments)
        self.report.append((what, f"{time.monotonic() - began:.1f} s"))
        return result

    def post_all(self, ids, what):
        return self.crowd(lambda caller, vm: caller.expect(200, "POST", f"/v1/vms/{vm}/{what}"), ids)

    def assert_views_are_true(self, ids):
        """Of each VM by itself: the process is its Firecracker, in its namespace, and says so itself on its socket."""
        def look(caller, vm_id):
            view = caller.expect(200, "GET", f"/v1/vms/{vm_id}")
            pid = view["systemd"]["mainPID"]
            with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
                self.assertIn(view["paths"]["socketPath"], file.read().split("\0"), vm_id)
            namespace = os.stat(os.path.join("/run/netns", view["network"]["netns"]))
            self.assertEqual(os.stat(f"/proc/{pid}/ns/net").st_ino, namespace.st_ino, vm_id)
            connection = UnixConnection(view["paths"]["socketPath"], 30)
            connection.request("GET", "/")
            said = connection.getresponse().read().decode()
            connection.close()
            self.assertIn('"state":"Running"', said, vm_id)
            return view["state"], pid
        return self.crowd(look, ids)

    def test_a_thousand_are_made_adopted_and_removed_with_nothing_left(self):
        body = {**self.body(words="tiny.halt"), "rootfs": self.rootfs, "ports": [{"guest": 80, "host": 0}]}
        ids = self.phase("created", self.crowd, lambda caller, _: caller.expect(201, "POST", "/v1/vms", body)["id"],
                         range(VMS))
        self.phase("started over 32 connections", self.post_all, ids, "start")
        vms = self.phase("listed, once", self.assert_count, VMS, "running")
        self.assert_nothing_is_shared(vms)
        self.assert_running_apart(vms)
        seen = self.phase("each looked at", self.assert_views_are_true, ids)
        self.report.append(("the server's memory", f"{resident_mib(self.server.pid):.1f} MiB"))

        self.server.kill()
        self.phase("started again: serves", self.server.start)
        self.phase("all adopted, after that", self.await_adoption)
        self.assert_count(VMS, "running")
        self.assertEqual(self.assert_views_are_true(ids), seen, "it is the processes that were there before")
        self.report.append(("its memory after the adoption", f"{resident_mib(self.server.pid):.1f} MiB"))

        self.phase("stopped", self.post_all, ids, "stop")
        self.assert_count(VMS, "stopped")
        self.phase("removed", self.crowd, lambda caller, vm: caller.expect(200, "DELETE", f"/v1/vms/{vm}"), ids)
        self.assert_count(0, "")
        self.assert_idle_host("after a thousand VMs were removed")
        self.print_report()

    def print_report(self):
        lines = [f"    {VMS} real Firecrackers: {what:32} {value:>10}" for what, value in self.report]
        folder = os.environ.get("MERGEN_TABLES")
        if folder:
            with open(os.path.join(folder, "thousand.txt"), "w", encoding="ascii") as file:
                file.write("\n".join(lines) + "\n")
        print("\n".join(lines))
