"""A VM under Firecracker, from create to delete. On the fake Firecracker, which runs no guest; what needs a guest's answer
is shown on a real one by test_real_firecracker."""

import os
import signal
import subprocess
import unittest

import harness
from harness import CrashTest, MergenTest
from waiting import eventually


class OnTheFake(MergenTest):
    """Servers whose `vmm/firecracker` starts the fake."""

    @classmethod
    def setUpClass(cls):
        cls.program = os.path.join(harness.BUILD.folder, "bin", "firecracker")
        if not os.path.exists(cls.program):
            raise unittest.SkipTest(f"there is no fake Firecracker at {cls.program}")

    backends = {"vmm": "firecracker"}
    network = {}  # settings of network/linux
    jailer = "off"  # test_jail runs some of these stories with one
    kvm_device = "/dev/null"  # opens everywhere, and a fake runs no guest
    vm_settings = {"stop_grace": "5s", "kill_grace": "5s"}

    def firecracker_settings(self):
        return {"binary": self.program, "probe": "false", "jailer": self.jailer, "kvm_device": self.kvm_device}

    def setUp(self):
        self.settings = {"vmm.firecracker": self.firecracker_settings(), "network.linux": self.network,
                         "vm": self.vm_settings}
        super().setUp()

    def assert_start_fails(self, vm, status):
        reply = self.assert_status(status, "POST", f"{vm.path}/start")
        self.assertEqual(vm.state(), "failed")
        return reply.json["detail"]

    def causes(self, vm):
        return [event["cause"] for event in vm.events() if event["cause"]]


class Life(OnTheFake):
    def test_a_vm_lives_from_create_to_delete(self):
        vm = self.create(vcpu=2, bootArgs="console=ttyS0 one=1")
        view = vm.view()
        self.assertEqual(view["vmm"], "firecracker")
        vm.start()
        self.assertEqual(vm.state(), "running")
        self.assert_status(200, "POST", f"{vm.path}/start")  # once more does nothing
        vm.await_console("fake-guest: ready")
        console = vm.console()
        self.assertIn("2 vcpus, 192 MiB", console)
        # L32, L33, L34: arguments, ip=, MAC.
        gateway = view["network"]["guestIP"].rsplit(".", 1)[0] + ".1"
        self.assertIn(f"cmdline console=ttyS0 one=1 ip={view['network']['guestIP']}::{gateway}:255.255.255.0::eth0:off",
                      console)
        self.assertIn("network eth0 02:fc:", console.lower())
        self.assertEqual(os.path.basename(os.readlink(f"/proc/{vm.pid()}/exe")), os.path.basename(self.program))

        vm.stop()
        self.assertEqual(vm.state(), "stopped")
        self.assertIn("fake-guest: shutting down", vm.console())
        self.assertEqual((vm.view()["lastExit"]["signalled"], vm.view()["lastExit"]["code"]), (False, 0))
        self.assertIn("the guest shut down", self.causes(vm))

        vm.start()
        vm.delete()

    def test_the_vmm_runs_as_a_user_of_its_own_with_nothing_of_the_servers(self):
        vm = self.create_and_start()
        with open(f"/proc/{vm.pid()}/status", encoding="ascii") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        self.assertGreaterEqual(int(status["Uid"].split()[0]), 1900000000)
        self.assertEqual(status["NoNewPrivs"], "1")
        with open(f"/proc/{vm.pid()}/environ", "rb") as file:
            self.assertEqual(file.read(), b"")
        self.assertNotEqual(os.readlink(f"/proc/{vm.pid()}/ns/net"), os.readlink("/proc/self/ns/net"))
        vm.delete()

    def test_a_guest_that_does_not_hear_is_ended(self):
        vm = self.create_and_start(bootArgs="console=ttyS0 fake.ignore-shutdown")
        vm.await_console("fake-guest: ready")
        vm.stop()
        self.assertIn("fake-guest: hears nothing", vm.console())
        self.assertIn("the guest did not shut down in time", self.causes(vm))
        vm.delete()

    def test_a_server_finds_the_vm_of_its_predecessor_and_stops_it(self):
        vm = self.create_and_start()
        pid = vm.pid()
        self.server.kill()
        self.server.start()
        self.assertEqual((vm.state(), vm.pid()), ("running", pid))
        vm.stop()
        self.assertIn("fake-guest: shutting down", vm.console())
        vm.delete()

    def test_one_that_ends_by_itself_says_what_its_status_means(self):
        vm = self.create_and_start(bootArgs="fake.exit=148")
        vm.await_state("failed")
        self.assertIn("exit status 148", vm.view()["failure"])
        self.assertIn("seccomp", vm.view()["failure"])
        vm.delete()

    def test_one_that_is_killed_makes_the_vm_failed(self):
        vm = self.create_and_start()
        pid = vm.pid()
        self.end_vmm(pid, lambda: os.kill(pid, signal.SIGKILL))
        vm.await_state("failed")
        self.assertIn("signal 9", vm.view()["failure"])
        vm.delete()

    def test_a_paused_one_is_found_paused_goes_on_and_is_stopped_from_there(self):
        vm = self.create_and_start()
        vm.await_console("fake-guest: ready")
        for _ in range(2):  # the second time does nothing
            self.assertEqual(self.server.api.expect(200, "POST", f"{vm.path}/pause").json["status"], "paused")
        self.assertEqual(vm.state(), "paused")
        self.server.kill()
        self.server.start()
        self.assertEqual(vm.state(), "paused")
        for _ in range(2):
            self.assertEqual(self.server.api.expect(200, "POST", f"{vm.path}/resume").json["status"], "resumed")
        self.assertEqual(vm.state(), "running")
        self.server.api.expect(200, "POST", f"{vm.path}/pause")
        vm.stop()
        self.assertIn("fake-guest: shutting down", vm.console(), "it was woken to hear it")
        self.assert_status(409, "POST", f"{vm.path}/pause")
        vm.delete()

    def test_its_parent_starts_it_again_while_the_server_is_down_and_a_stop_is_a_stop(self):
        vm = self.create_and_start(restartPolicy="on-failure")
        vm.await_console("fake-guest: ready")
        pid, logs = vm.pid(), vm.logs()
        self.server.kill()
        self.end_vmm(pid, lambda: os.kill(pid, signal.SIGKILL))

        def ready_twice():
            with open(os.path.join(logs, "console.log"), encoding="utf-8", errors="replace") as file:
                return file.read().count("fake-guest: ready") == 2
        eventually(ready_twice, "the guest of the second run", [logs])
        self.server.start()
        view = vm.view()
        self.assertEqual((view["state"], view["restarts"], view["lastEnd"]["signal"]), ("running", 1, 9))
        self.assertNotIn(view["systemd"]["mainPID"], (0, pid))

        vm.stop()
        self.assertEqual((vm.state(), vm.pid()), ("stopped", 0))
        self.assertEqual(vm.view()["lastEnd"]["operation"], "stop")
        vm.delete()


class OnATap(OnTheFake):
    """Firecracker opens the tap in the host's own namespace, as the VM's user."""

    network = {"topology": "tap"}

    def test_a_vm_lives_from_create_to_delete(self):
        vm = self.create_and_start()
        vm.await_console("fake-guest: ready")
        self.assertEqual(os.readlink(f"/proc/{vm.pid()}/ns/net"), os.readlink("/proc/self/ns/net"))
        vm.stop()
        vm.delete()


class Crashes(OnTheFake, CrashTest):
    """The server dies between two calls to Firecracker."""

    def test_before_the_guest_runs_the_start_is_undone(self):
        vm = self.create()
        self.crash("vmm.firecracker.boot.before_start", "POST", f"{vm.path}/start")
        self.assertEqual((vm.state(), vm.pid()), ("stopped", 0))
        vm.start()
        vm.delete()

    def test_after_the_guest_runs_the_start_is_finished(self):
        vm = self.create()
        self.crash("vmm.firecracker.boot.after_start", "POST", f"{vm.path}/start")
        self.assertEqual(vm.state(), "running")
        vm.await_console("fake-guest: ready")
        vm.stop()
        self.assertIn("fake-guest: shutting down", vm.console())
        vm.delete()


class FirecrackersRefusals(OnTheFake):
    def test_what_firecracker_refuses_is_in_the_reply_and_in_the_timeline(self):
        vm = self.create()
        disk = os.path.join(self.server.data_root, vm.id, "rootfs.ext4")
        os.rename(disk, disk + ".away")
        words = "Error manipulating the backing file: No such file or directory (os error 2)"
        detail = self.assert_start_fails(vm, 409)
        self.assertIn("PUT /drives/rootfs", detail)
        self.assertIn(words, detail)
        self.assertTrue(any(words in cause for cause in self.causes(vm)), self.causes(vm))
        self.assertIn(words, vm.view()["failure"])
        os.rename(disk + ".away", disk)
        vm.start()
        vm.delete()

    def test_a_damaged_compressed_kernel_is_refused_with_its_name_and_changes_nothing(self):
        packed = os.path.join(self.server.images, "vmlinuz.gz")
        with open(packed, "wb") as file:
            file.write(b"\x1f\x8b\x08 packed")
        reply = self.assert_status(400, "POST", "/v1/vms", self.body(kernel=packed))
        self.assertEqual(reply.json["field"], "kernel")
        self.assertIn(packed, reply.json["detail"])
        self.assertIn("gzip", reply.json["detail"])
        self.assertEqual(self.server.api.list(), [])
        os.unlink(packed)

    def test_one_that_dies_while_it_is_configured_ends_the_start_at_once(self):
        vm = self.create(bootArgs="fake.die-at=PUT:/drives/rootfs")
        self.assertIn("PUT /drives/rootfs", self.assert_start_fails(vm, 503))
        vm.delete()

    def test_one_that_dies_before_its_restart_policy_holds_fails_the_start_or_is_restarted(self):
        vm = self.create(bootArgs="fake.die-after-start", restartPolicy="on-failure", maxRestarts=1)
        reply = self.server.api.request("POST", f"{vm.path}/start")
        if reply.status == 503:  # it was quicker
            self.assertIn("before its restart policy could take hold", reply.json["detail"])
        else:
            self.assertEqual(reply.status, 200)
        vm.await_state("failed")
        vm.delete()

    def test_a_program_that_is_missing_is_said_and_nothing_is_left(self):
        self.server.drain()
        settings = {**self.firecracker_settings(), "binary": "/nonexistent/firecracker"}
        self.server.use_settings({"vmm.firecracker": settings})
        self.server.start()
        ready = self.assert_status(503, "GET", "/readyz").json
        self.assertTrue(any("/nonexistent/firecracker" in part["detail"] for part in ready["components"]), ready)
        vm = self.create()
        self.assertIn("/nonexistent/firecracker", self.assert_start_fails(vm, 409))
        vm.delete()


class Configuration(OnTheFake):
    def test_its_file_is_what_firecracker_takes(self):
        vm = self.create()
        reply = self.assert_status(200, "GET", f"{vm.path}/vmm-config")
        whole = reply.json
        self.assertEqual(sorted(whole), ["boot-source", "drives", "machine-config", "network-interfaces"])
        self.assertEqual(whole["machine-config"], {"vcpu_count": 1, "mem_size_mib": 192, "smt": False})
        for path in (whole["boot-source"]["kernel_image_path"], whole["drives"][0]["path_on_host"]):
            self.assertTrue(path.startswith(os.path.join(self.server.data_root, vm.id)), path)
            self.assertTrue(os.path.exists(path), path)
        self.assertEqual(whole["drives"][0]["is_root_device"], True)
        self.assertEqual(whole["network-interfaces"][0]["host_dev_name"], vm.view()["network"]["tapName"])
        with open(vm.view()["paths"]["vmConfigPath"], "rb") as file:
            self.assertEqual(file.read(), reply.body, "vm.json of the record is the same")
        self.assert_taken(self.program, reply.body, "fake-guest: ready")
        vm.delete()

    def assert_taken(self, program, configuration, ready):
        """`firecracker --config-file` starts a guest with it. Its tap is made for the occasion, as root."""
        file = os.path.join(self.server.folder, "vm.json")
        with open(file, "wb") as out:
            out.write(configuration)
        process = subprocess.Popen([program, "--no-api", "--config-file", file], stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if ready in line:
                    return
            self.fail(f"{program} does not take it:\n{''.join(lines)}\n{configuration.decode()}")
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


class Choice(OnTheFake):
    """`vmm = auto`."""

    backends = {"vmm": "auto"}

    def test_auto_is_firecracker_where_its_program_is_and_kvm_is_taken_for_granted(self):
        vm = self.create_and_start()
        self.assertEqual(vm.view()["vmm"], "firecracker")
        vm.await_console("fake-guest: ready")
        parts = {part["name"]: part for part in self.server.api.get("/readyz")["components"]}
        self.assertIn("auto: firecracker, because", parts["firecracker"]["detail"])
        self.assertTrue(parts["qemu"]["ok"])
        vm.delete()

    def test_auto_is_qemu_without_a_firecracker_and_the_vms_of_the_other_stay(self):
        vm = self.create()
        self.server.drain()
        self.server.use_settings({"vmm.firecracker": {**self.firecracker_settings(), "binary": "/nonexistent/firecracker"}})
        self.server.start()
        parts = {part["name"]: part for part in self.assert_status(503, "GET", "/readyz").json["components"]}
        self.assertIn("auto: qemu, because", parts["qemu"]["detail"])
        self.assertIn("/nonexistent/firecracker", parts["qemu"]["detail"])
        self.assertFalse(parts["firecracker"]["ok"], "a VM needs it")
        self.assertEqual(vm.view()["vmm"], "firecracker")
        other = self.create()
        self.assertEqual(other.view()["vmm"], "qemu")
        vm.delete()
        parts = {part["name"]: part for part in self.server.api.get("/readyz")["components"]}
        self.assertIn("no VM needs it", parts["firecracker"]["detail"])
        other.delete()

    def test_a_caller_may_choose_among_those_that_are_loaded(self):
        vm = self.create(vmm="qemu")
        self.assertEqual(vm.view()["vmm"], "qemu")
        reply = self.assert_status(400, "POST", "/v1/vms", self.body(vmm="bhyve"))
        self.assertEqual(reply.json["field"], "vmm")
        self.assertIn("firecracker, qemu", reply.json["detail"])
        vm.delete()
