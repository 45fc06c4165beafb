"""What this host cannot give a guest is refused, with a real Firecracker and the host's own processor and huge pages."""

import re

from real_firecracker import OnARealFirecracker

POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB/"
TEMPLATES = {"GenuineIntel": ("C3", "T2", "T2S", "T2CL"), "AuthenticAMD": ("T2A",)}


def vendor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        found = re.search(r"^vendor_id\s*: (\S+)", file.read(), re.MULTILINE)
    return found.group(1) if found else ""


def free_pages():
    def counter(name):
        with open(POOL + name, encoding="ascii") as file:
            return int(file.read())
    try:
        return counter("free_hugepages") - counter("resv_hugepages")
    except FileNotFoundError:
        return 0


class HostFit(OnARealFirecracker):
    def ask(self, machine, **members):
        body = self.body(machineConfig=machine, **members)
        del body["memMiB"]
        return self.server.api.request("POST", "/v1/vms", body)

    def test_memory_in_huge_pages_that_no_host_has_is_refused_before_anything_is_made(self):
        reply = self.ask({"hugePages": "2M", "memSizeMib": 1 << 20}, autoStart=True)
        self.assertIn(reply.status, (400, 409), str(reply))  # 400: a kernel without any
        self.assertEqual(reply.json["field"], "machineConfig.hugePages")
        self.assertEqual(self.server.api.list(), [])

    def test_a_guest_runs_in_huge_pages_where_they_are(self):
        before = free_pages()
        if before < 64:
            self.skipTest(f"the host has {before} free huge pages of 2 MiB, and the guest needs 64: sysctl vm.nr_hugepages")
        vm = self.create(machineConfig={"hugePages": "2M"})
        vm.start()
        self.assertEqual(vm.told()["machine-config"]["huge_pages"], "2M")
        vm.await_page()
        self.assertLess(free_pages(), before, "its memory is in them")
        vm.delete()
        self.assertEqual(free_pages(), before)

    def test_a_cpu_template_of_another_vendor_is_refused_and_nothing_is_made(self):
        own = vendor()
        others = [name for maker, names in TEMPLATES.items() if maker != own for name in names] + ["V1N1"]
        for name in others:
            reply = self.ask({"cpuTemplate": name})
            self.assertEqual(reply.status, 400, str(reply))
            self.assertEqual(reply.json["field"], "machineConfig.cpuTemplate")
            self.assertIn(own, reply.json["detail"])
        self.assertEqual(self.server.api.list(), [])

    def test_a_cpu_template_of_its_own_vendor_is_firecrackers_to_judge(self):
        for name in TEMPLATES.get(vendor(), ()):
            with self.subTest(template=name):
                vm = self.create(machineConfig={"cpuTemplate": name})
                reply = self.server.api.request("POST", f"{vm.path}/start")
                if reply.status == 200:
                    self.assertEqual(vm.told()["machine-config"]["cpu_template"], name)
                    vm.await_page()
                else:  # each is for a few models of its vendor
                    words = "PUT /actions: it refuses: Start microvm error: "
                    self.assertEqual(reply.status, 409, str(reply))
                    self.assertIn(words, reply.json["detail"])
                    self.assertEqual((vm.state(), vm.pid()), ("failed", 0))
                    self.assertIn(words, vm.view()["failure"])
                vm.delete()
