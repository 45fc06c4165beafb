"""A real Firecracker and the tiny guest: what the fake, which runs no guest, cannot show. Each story without a jail,
and in one."""

import os
import signal
import subprocess

import harness
from real_firecracker import ECHO_REPLY, ECHO_REQUEST, OnARealFirecracker, icmp_echo
from waiting import eventually

DISK_SIZE, SECTOR = 1 << 20, 512


class Life(OnARealFirecracker):
    def test_its_page_and_its_datagrams_come_through_published_ports(self):
        vm = self.create_and_start()
        page = vm.await_page()
        self.assertIn(f"eth0: {vm.address()} (asked)", page)
        self.assertIn(f" ip={vm.address()}::", page)
        self.assertEqual(vm.echo(b"over and out", seconds=10), b"over and out")
        vm.delete()

    def test_it_answers_arp_and_ping(self):
        vm = self.create_and_start()
        vm.await_page()
        network = vm.view()["network"]
        self.assertEqual(vm.neighbour()["state"], ["PERMANENT"], "the test's own premise: nobody asks by ARP")
        subprocess.run(["ip", "-n", network["netns"], "neigh", "del", vm.address(), "dev", network["tapName"]], check=True)
        answer = vm.ask_by_icmp(icmp_echo(ECHO_REQUEST, 4711, 3, b"over and out"), seconds=10)
        self.assertEqual(answer, icmp_echo(ECHO_REPLY, 4711, 3, b"over and out"))
        learnt = vm.neighbour()
        self.assertIsNotNone(learnt, "the guest was asked")
        self.assertEqual(learnt["lladdr"], network["mac"])
        self.assertNotIn("PERMANENT", learnt["state"])
        vm.delete()

    def test_it_runs_with_an_initrd_which_firecracker_has_from_its_own_copy(self):
        initrd = self.make_image("initrd", b"what a kernel with more to do would unpack")
        vm = self.create(initrd=initrd)
        copy = os.path.join(vm.view()["paths"]["dataDir"], "initrd")
        self.assertEqual(self.server.api.get(f"{vm.path}/vmm-config")["boot-source"]["initrd_path"], copy)
        vm.start()
        told = vm.told()["boot-source"]["initrd_path"]
        self.assertTrue(os.path.samefile(f"/proc/{vm.pid()}/root{told}", copy), told)
        self.assertIn("tiny guest", vm.await_page())
        vm.delete()

    def test_it_stops_by_ctrl_alt_del_and_starts_again(self):
        vm = self.create_and_start()
        vm.await_page()
        self.assertEqual(vm.stop()["endedBy"], "guest")
        view = vm.view()
        self.assertEqual((view["state"], view["lastExit"]["signalled"], view["lastExit"]["code"]),
                         ("stopped", False, 0))
        self.assertEqual((view["lastEnd"]["by"], view["lastEnd"]["operation"]), ("guest", "stop"))
        self.assertIn("tiny: Ctrl-Alt-Del", vm.console())
        vm.start()
        self.assertIn("request: ", vm.await_page())
        vm.delete()

    def test_a_paused_guest_is_silent_and_goes_on_afterwards(self):
        vm = self.create_and_start()
        vm.await_page()
        self.server.api.expect(200, "POST", f"{vm.path}/pause")
        self.assertRaises(TimeoutError, vm.echo, b"anybody?", seconds=1)
        self.server.api.expect(200, "POST", f"{vm.path}/resume")
        self.assertEqual(vm.echo(b"here again", seconds=10), b"here again")
        self.server.api.expect(200, "POST", f"{vm.path}/pause")
        vm.stop()
        self.assertIn("tiny: Ctrl-Alt-Del", vm.console(), "it was woken to hear it")
        vm.delete()

    def test_a_server_that_is_killed_is_not_missed_and_the_next_one_stops_the_guest(self):
        vm = self.create_and_start()
        vm.await_page()
        port, pid = vm.host_port(), vm.pid()
        self.server.kill()
        self.assertIn("tiny guest", harness.ask("GET", "127.0.0.1", port))
        self.server.start()
        self.assertEqual((vm.state(), vm.pid()), ("running", pid))
        self.assertIn("tiny guest", vm.fetch())
        vm.stop()
        self.assertIn("tiny: Ctrl-Alt-Del", vm.console())
        vm.delete()

    def test_a_guest_that_hears_nothing_is_ended(self):
        vm = self.create_and_start(words="tiny.halt")
        vm.await_console("tiny: up")
        self.assertEqual(vm.stop()["endedBy"], "SIGTERM")
        view = vm.view()
        self.assertEqual((view["state"], view["lastEnd"]["by"], view["lastEnd"]["operation"]),
                         ("stopped", "mergen", "stop"))
        self.assertIn("the guest did not shut down in time", vm.causes())
        vm.delete()


class LifeInAJail(Life):
    jailer = "auto"


class Ends(OnARealFirecracker):
    def test_one_that_is_killed_makes_the_vm_failed_and_it_is_said_by_whom(self):
        vm = self.create_and_start()
        vm.await_page()
        pid = vm.pid()
        self.end_vmm(pid, lambda: os.kill(pid, signal.SIGKILL))
        vm.await_state("failed")
        view = vm.view()
        self.assertEqual((view["lastEnd"]["by"], view["lastEnd"]["signal"]), ("other", signal.SIGKILL))
        self.assertIn("which Mergen did not send", view["failure"])
        vm.delete()

    def test_one_that_crashes_makes_the_vm_failed_with_what_it_said_last(self):
        vm = self.create_and_start()
        vm.await_page()
        pid = vm.pid()
        self.end_vmm(pid, lambda: os.kill(pid, signal.SIGSEGV))
        vm.await_state("failed")
        view = vm.view()
        self.assertEqual(view["lastEnd"]["by"], "vmm")  # Firecracker catches it and ends with a status
        self.assertIn("Firecracker had a segmentation fault", view["lastEnd"]["detail"])
        self.assertIn("Firecracker had a segmentation fault", view["failure"])
        last_output = view["failure"].partition("; its last output: ")[2]
        self.assertIn(f"intercepting signal {signal.SIGSEGV:d}", last_output)
        vm.delete()

    def test_its_restart_policy_brings_its_page_back(self):
        vm = self.create_and_start(restartPolicy="on-failure")
        vm.await_page()
        pid = vm.pid()
        self.end_vmm(pid, lambda: os.kill(pid, signal.SIGKILL))
        eventually(lambda: vm.view()["restarts"] == 1 and vm.pid() not in (0, pid), "its second run", [vm.logs()])
        self.assertIn("tiny guest", vm.await_page())
        self.assertEqual(vm.state(), "running")
        vm.stop()
        vm.delete()

    def test_a_panic_is_told_from_an_end_of_its_own(self):
        for words, state, by in (("tiny.panic", "failed", "panic"), ("tiny.exit", "stopped", "guest")):
            with self.subTest(words=words):
                vm = self.create_and_start(words=words)
                vm.await_state(state)
                view = vm.view()
                self.assertEqual((view["lastEnd"]["by"], view["lastEnd"]["status"]), (by, 0))
                if by == "panic":
                    self.assertIn("Kernel panic - not syncing: tiny.panic", view["failure"])
                vm.delete()


class EndsInAJail(Ends):
    jailer = "auto"


class Frozen(OnARealFirecracker):
    """Firecracker itself stands still, by SIGSTOP."""

    more_settings = {"vm": {"stop_grace": "2s", "kill_grace": "2s", "control_timeout": "1s", "probe_interval": "100ms",
                            "probe_timeout": "500ms", "probe_failures": "2"}}

    def create_serving(self, **members):
        vm = self.create_and_start(**members)
        vm.await_page()
        return vm

    def test_it_is_unresponsive_until_it_goes_on(self):
        vm = self.create_serving()
        pid = vm.pid()
        os.kill(pid, signal.SIGSTOP)
        told = eventually(lambda: vm.view()["unresponsive"], f"{vm.id} to be unresponsive")
        self.assertTrue(told["since"] and told["cause"], told)
        self.assertEqual(vm.state(), "running")
        os.kill(pid, signal.SIGCONT)
        eventually(lambda: vm.view()["unresponsive"] is None, f"{vm.id} to answer")
        self.assertEqual((vm.state(), vm.pid()), ("running", pid))
        self.assertIn("tiny guest", vm.await_page())
        vm.delete()

    def test_the_policy_restart_brings_its_page_back(self):
        vm = self.create_serving(onUnresponsive="restart")
        pid = vm.pid()
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: vm.state() == "running" and vm.pid() not in (0, pid), "its second run", [vm.logs()])
        self.assertIn("tiny guest", vm.await_page())
        view = vm.view()
        self.assertEqual((view["lastEnd"]["by"], view["lastEnd"]["operation"]), ("mergen", "probe"))
        self.assertIsNone(view["unresponsive"])
        vm.delete()

    def test_a_stop_kills_it(self):
        for paused in (False, True):
            with self.subTest(paused=paused):
                vm = self.create_serving()
                if paused:
                    self.assert_status(200, "POST", f"{vm.path}/pause")
                os.kill(vm.pid(), signal.SIGSTOP)
                self.assertEqual(vm.stop()["endedBy"], "SIGKILL")  # SIGTERM waits for a SIGCONT
                view = vm.view()
                self.assertEqual((view["state"], view["lastEnd"]["signal"]), ("stopped", signal.SIGKILL))
                vm.delete()


class FrozenInAJail(Frozen):
    jailer = "auto"


class Devices(OnARealFirecracker):
    def make_disk(self, name, content=b""):
        return self.make_image(name, content, DISK_SIZE)

    def test_disks_keep_what_is_written_over_a_stop_and_a_kill(self):
        data = self.make_disk("data.img")
        vm = self.create_and_start(dataDisk=data)
        self.assertIn(f"disk 1: {DISK_SIZE} bytes", vm.await_page())
        self.assertEqual(vm.fetch("/disk/0/write?on-the-root"), "disk 0: written\n")
        self.assertEqual(vm.fetch("/disk/1/write?on-the-data"), "disk 1: written\n")
        vm.stop()
        vm.start()
        vm.await_page()
        self.assertEqual(vm.fetch("/disk/0"), "disk 0: on-the-root\n")
        self.assertEqual(vm.fetch("/disk/1/write?once-more"), "disk 1: written\n")
        pid = vm.pid()
        self.end_vmm(pid, lambda: os.kill(pid, signal.SIGKILL))
        vm.await_state("failed")
        vm.delete()
        with open(data, "rb") as file:
            self.assertTrue(file.read(SECTOR).startswith(b"once-more\0"), "it was flushed")

    def test_a_disk_that_was_made_larger_is_so_for_the_guest_too(self):
        data = self.make_disk("data.img")
        vm = self.create_and_start(dataDisk=data)
        self.assertIn(f"disk 1: {DISK_SIZE} bytes", vm.await_page())
        os.truncate(data, 2 * DISK_SIZE)
        self.assertIn(f"disk 1: {DISK_SIZE} bytes", vm.fetch())
        self.assert_status(200, "PATCH", vm.path, {"drives": [{"driveId": "data", "pathOnHost": data}]})
        self.assertIn(f"disk 1: {2 * DISK_SIZE} bytes", vm.fetch())
        vm.delete()

    def test_a_disk_that_is_read_by_io_uring_is_there_for_the_next_start_at_once(self):
        """The kernel keeps such a file open for some tens of milliseconds after the process has ended."""
        disk = self.make_disk("async.img")
        vm = self.create(drives=[{"driveId": "async", "pathOnHost": disk, "ioEngine": "Async"}])
        for _ in range(5):
            vm.start()
            vm.await_page()
            vm.stop()
        vm.delete()

    def test_a_read_only_disk_takes_nothing(self):
        data = self.make_disk("data.img", b"as it was")
        vm = self.create_and_start(dataDisk=data, drives=[{"driveId": "data", "isReadOnly": True}])
        vm.await_page()
        self.assertEqual(vm.fetch("/disk/1"), "disk 1: as it was\n")
        self.assertEqual(vm.fetch("/disk/1/write?other"), "disk 1: failed with status 1\n")
        self.assertEqual(vm.fetch("/disk/1"), "disk 1: as it was\n")
        vm.delete()
        with open(data, "rb") as file:
            self.assertEqual(file.read(), b"as it was".ljust(DISK_SIZE, b"\0"))

    def test_further_drives_keep_what_is_written_and_take_nothing_if_read_only(self):
        logs, tools = self.make_disk("logs.img"), self.make_disk("tools.img", b"tools")
        vm = self.create_and_start(dataDisk=self.make_disk("data.img", b"data"),
                                   drives=[{"driveId": "logs", "pathOnHost": logs, "ioEngine": "Sync"},
                                           {"driveId": "tools", "pathOnHost": tools, "isReadOnly": True}])
        vm.await_page()
        self.assertEqual(vm.fetch("/disk/1"), "disk 1: data\n")
        self.assertEqual(vm.fetch("/disk/2/write?a-line"), "disk 2: written\n")
        self.assertEqual(vm.fetch("/disk/3"), "disk 3: tools\n")
        self.assertEqual(vm.fetch("/disk/3/write?other"), "disk 3: failed with status 1\n")
        vm.stop()
        vm.start()
        vm.await_page()
        self.assertEqual(vm.fetch("/disk/2"), "disk 2: a-line\n")
        vm.delete()
        with open(logs, "rb") as file:
            self.assertTrue(file.read(SECTOR).startswith(b"a-line\0"))

    def test_disks_and_cards_work_beside_devices_of_other_kinds_and_within_limits(self):
        limit = {"bandwidth": {"size": 1 << 20, "refillTime": 100}}
        vm = self.create_and_start(vsock={"guestCid": 7}, balloon={"amountMib": 16}, entropy={}, metrics=True,
                                   drives=[{"driveId": "rootfs", "rateLimiter": limit}],
                                   networkInterfaces=[{"ifaceId": "eth0", "rxRateLimiter": limit,
                                                       "txRateLimiter": limit}])
        vm.await_page()
        self.assertEqual(vm.fetch("/disk/0/write?kept"), "disk 0: written\n")
        self.assertEqual(vm.fetch("/disk/0"), "disk 0: kept\n")
        vm.delete()

    def test_each_card_has_a_guest_that_answers_on_it(self):
        vm = self.create_and_start(networkInterfaces=[{"ifaceId": "eth0"}, {"ifaceId": "eth1"}, {"ifaceId": "eth2"}])
        vm.await_page()
        for number, card in enumerate(vm.view()["network"]["interfaces"]):
            page = harness.ask("GET", card["guestIP"], 80)
            self.assertIn(f"eth{number}: {card['guestIP']} (asked)", page)
        vm.delete()

    def test_the_guest_reads_its_metadata_and_what_replaced_it(self):
        vm = self.create_and_start(mmds={"data": {"name": "first", "deep": {"er": "down"}}})
        vm.await_page()
        self.assertIn('"name":"first"', vm.fetch("/mmds"))
        self.assertIn('"down"', vm.fetch("/mmds/deep/er"))
        self.assert_status(200, "PATCH", vm.path, {"mmds": {"data": {"name": "second"}}})
        self.assertIn('"name":"second"', vm.fetch("/mmds"))
        vm.delete()

    def test_without_metadata_there_is_no_service(self):
        vm = self.create_and_start()
        vm.await_page()
        self.assertEqual(vm.fetch("/mmds", timeout=30), "mmds: nobody has its address\n")
        vm.delete()


class DevicesInAJail(Devices):
    jailer = "auto"


class Refusals(OnARealFirecracker):
    def test_what_firecracker_says_of_a_kernel_reaches_the_caller_and_nothing_runs(self):
        with open(self.server.kernel, "rb") as file:
            whole = file.read()
        for size, words in ((40, "Unable to read elf header"), (2000, "Unable to read kernel image")):
            with self.subTest(size=size):
                path = self.make_image("bad-kernel", whole[:size])
                vm = self.create(kernel=path)
                reply = self.assert_status(409, "POST", f"{vm.path}/start")
                self.assertIn(words, reply.json["detail"])
                self.assertEqual((vm.state(), vm.pid()), ("failed", 0))
                self.assertIn(words, vm.view()["failure"])
                vm.delete()

    def test_a_text_is_no_kernel(self):
        path = self.make_image("bad-kernel", b"To be or not to be\n")
        reply = self.assert_status(400, "POST", "/v1/vms", self.body(kernel=path))
        self.assertEqual(reply.json["field"], "kernel")
        self.assertEqual(self.server.api.list(), [])


class RefusalsInAJail(Refusals):
    jailer = "auto"


class Probe(OnARealFirecracker):
    def test_the_guest_and_the_probe_judge_kvm_alike(self):
        probe = os.path.join(harness.BUILD.folder, "bin", "mergen-kvm-probe")
        done = subprocess.run([probe, "/dev/kvm", "2000000", "250"], capture_output=True, text=True, check=False,
                              timeout=60)
        if done.returncode not in (0, 1):
            self.skipTest(f"KVM could not be tried: {done.stdout.strip()}")
        vm = self.create_and_start()
        vm.await_console("tiny: ready")
        verdict = "real" if done.returncode == 0 else "emulated"
        self.assertIn(f"tiny: this processor is {verdict}\n", vm.console().replace("\r", ""), done.stdout)
        vm.delete()
