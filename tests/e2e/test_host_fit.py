"""What this host cannot give a guest is refused in the words of the request, before anything is made. On the fake
Firecracker, with a processor and huge pages that are made up; test_real_host_fit has this host's own."""

import os
import shutil
import stat
import tempfile

from harness import Vm
from made_up_host import MadeUpHost
from test_configuration import Told
from test_firecracker import OnTheFake

HUGE = {"hugePages": "2M", "memSizeMib": 192}
PAGES = 96  # of 2 MiB: 192 MiB


class OnAMadeUpHost(Told):
    vendor = "AuthenticAMD"

    def setUp(self):
        self.host = MadeUpHost(self.vendor)  # its mounts are seen by no oracle: they are there before and after
        self.addCleanup(self.host.remove)
        super().setUp()

    def asking_for(self, machine, **members):
        body = self.body(machineConfig=machine, **members)
        del body["memMiB"]
        return body

    def created(self, body):
        return Vm(self, self.server.api.create(body))

    def assert_refused(self, status, field, body):
        """And nothing is made."""
        reply = self.assert_status(status, "POST", "/v1/vms", body)
        self.assertEqual(reply.json["field"], field, str(reply))
        self.assertEqual(self.server.api.list(), [])
        self.assert_idle_host("after a create was refused")
        return reply.json["detail"]


class HugePages(OnAMadeUpHost):
    def test_a_create_that_is_to_start_at_once_is_refused_until_enough_are_free(self):
        body = self.asking_for(HUGE, autoStart=True)
        detail = self.assert_refused(409, "machineConfig.hugePages", body)
        for words in ("192 MiB", "96 huge pages of 2 MiB", "has 0 available",
                      "echo 96 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"):
            self.assertIn(words, detail)
        self.host.give_pages(PAGES + 4, free=PAGES - 1)
        detail = self.assert_refused(409, "machineConfig.hugePages", body)
        self.assertIn("has 95 available; reserve more: echo 101 >/sys", detail)
        self.host.give_pages(PAGES)
        vm = self.created(body)
        self.assertEqual(vm.state(), "running")
        self.assertEqual(self.told(vm)["machine-config"]["huge_pages"], "2M")

    def test_a_vm_is_made_without_and_starts_once_they_are_there(self):
        vm = self.created(self.asking_for(HUGE))
        made = self.snapshot_with_files()
        reply = self.assert_status(409, "POST", f"{vm.path}/start")
        self.assertIn("machineConfig.hugePages: 192 MiB of memory need 96 huge pages", reply.json["detail"])
        self.assertIn("machineConfig.hugePages", self.causes(vm)[-1])
        self.assertEqual(vm.state(), "created", "nothing has happened")
        self.assert_same_host(made, self.snapshot_with_files, "after a start was refused")
        self.host.give_pages(PAGES)
        vm.start()
        vm.stop()
        self.host.give_pages(0)
        self.assert_status(409, "POST", f"{vm.path}/start")
        self.assertEqual(vm.state(), "stopped")

    def test_a_kernel_without_them_is_no_place_for_such_a_vm(self):
        vm = self.created(self.asking_for(HUGE))
        self.host.lose_pages()
        reply = self.assert_status(501, "POST", f"{vm.path}/start")
        self.assertIn("machineConfig.hugePages: this host's kernel has no huge pages of 2 MiB", reply.json["detail"])
        vm.delete()
        for more in ({}, {"autoStart": True}):
            detail = self.assert_refused(400, "machineConfig.hugePages", self.asking_for(HUGE, **more))
            self.assertIn("/sys/kernel/mm/hugepages/hugepages-2048kB", detail)
        self.create_and_start()  # what asks for none is not concerned


class CpuTemplates(OnAMadeUpHost):
    own, others = ("T2A",), ("C3", "T2", "T2S", "T2CL", "V1N1")

    def test_those_of_other_vendors_are_refused_when_a_vm_is_made(self):
        for name in self.others:
            detail = self.assert_refused(400, "machineConfig.cpuTemplate", self.asking_for({"cpuTemplate": name}))
            self.assertIn(f"'{name}' is for processors of ", detail)
            self.assertIn(f"this host's are of {self.vendor}", detail)

    def test_its_own_reach_firecracker(self):
        for name in self.own:
            vm = self.created(self.asking_for({"cpuTemplate": name}, autoStart=True))
            self.assertEqual(self.told(vm)["machine-config"]["cpu_template"], name)
            vm.delete()


class CpuTemplatesOnIntel(CpuTemplates):
    vendor = "GenuineIntel"
    own, others = ("C3", "T2", "T2S", "T2CL"), ("T2A", "V1N1")


class CpuTemplatesOnAnotherHost(OnAMadeUpHost):
    def test_a_vm_whose_template_does_not_fit_any_more_is_refused_at_its_start(self):
        vm = self.created(self.asking_for({"cpuTemplate": "T2A"}))
        self.server.drain()
        self.host.set_vendor("GenuineIntel")
        self.server.start()
        reply = self.assert_status(501, "POST", f"{vm.path}/start")
        self.assertIn("machineConfig.cpuTemplate: 'T2A' is for processors of AMD", reply.json["detail"])
        self.assertEqual(vm.state(), "created", "nothing has happened")


class KvmWithoutAProbe(OnTheFake):
    """The server is root and its VMs have no jail: they open KVM as users of their own."""

    def setUp(self):
        self.device = os.path.join(tempfile.mkdtemp(prefix="mergen-kvm.", dir="/run"), "kvm")
        self.addCleanup(shutil.rmtree, os.path.dirname(self.device))
        os.mknod(self.device, stat.S_IFCHR | 0o600, os.stat("/dev/null").st_rdev)
        self.kvm_device = self.device
        super().setUp()

    def ready_after_a_restart(self, status):
        """What the health page says of the VMM."""
        self.server.drain()
        self.server.start()
        parts = self.assert_status(status, "GET", "/readyz").json["components"]
        return next(part["detail"] for part in parts if part["name"] == "firecracker")

    def test_the_health_page_says_whether_vms_can_open_it(self):
        self.assertIn(f"runs no guests: {self.device}: only its owner may open it", self.ready_after_a_restart(503))
        os.chmod(self.device, 0o660)
        os.chown(self.device, 0, 12345)
        self.assertIn("not tried out, as the settings say", self.ready_after_a_restart(200))
        os.unlink(self.device)
        self.assertIn(f"runs no guests: {self.device}: No such file or directory", self.ready_after_a_restart(503))
