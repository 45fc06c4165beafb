"""The jail on a real Firecracker and the jailer that lies beside it, with the tiny guest."""

import os
import signal

import test_jail
from real_firecracker import RealProgram, TinyVm
from test_jail import cgroups_of
from waiting import eventually


class OnTheRealPair(RealProgram, test_jail.Jailed):
    """A real Firecracker, started by the real jailer that lies beside it, runs a guest that serves its page."""

    needs_jailer = True

    def firecracker_settings(self):
        return {**super().firecracker_settings(), "jailer": "auto"}

    def create(self, **members):
        return TinyVm(self, super().create(**{"bootArgs": "console=ttyS0", "memMiB": 128, **members}).id)

    test_its_control_groups_hold_it_and_its_limits = test_jail.Life.test_its_control_groups_hold_it_and_its_limits
    test_its_resource_limits_hold = test_jail.Life.test_its_resource_limits_hold
    test_the_socket_path_answers = test_jail.Life.test_the_socket_path_answers

    def test_its_life_with_a_page_through_the_published_port(self):
        vm = self.create_and_start()
        self.assertIn(f"jailed by {self.jailer}", self.firecracker_detail())
        self.assert_jailed(vm)
        self.assertTrue(vm.await_page())
        uuid = vm.view()["uuid"]
        vm.stop()
        self.assertFalse(os.path.exists(self.base))
        self.assertEqual(cgroups_of(uuid), [])
        vm.start()
        self.server.kill()
        self.server.start()
        self.assertEqual(vm.state(), "running")
        self.assertTrue(vm.await_page())
        vm.delete()

    def test_it_is_started_again_by_its_parent(self):
        vm = self.create_and_start(restartPolicy="on-failure")
        first = vm.pid()
        self.end_vmm(first, lambda: os.kill(first, signal.SIGKILL))
        eventually(lambda: vm.view()["restarts"] == 1 and vm.pid() not in (0, first), "the second run", [vm.logs()])
        self.assert_jailed(vm)
        self.assertTrue(vm.await_page())
        vm.stop()
        vm.delete()


class OnTheRealOneAlone(OnTheRealPair):
    """The same without a jail, because the settings say so."""

    needs_jailer = False
    test_it_is_started_again_by_its_parent = None
    test_its_control_groups_hold_it_and_its_limits = None
    test_its_resource_limits_hold = None
    test_the_socket_path_answers = None

    def firecracker_settings(self):
        return {**super().firecracker_settings(), "jailer": "off"}

    def test_its_life_with_a_page_through_the_published_port(self):
        vm = self.create_and_start()
        self.assertIn("not jailed: jailer = off", self.firecracker_detail())
        self.assertFalse(os.path.exists(self.base))
        self.assertEqual(os.readlink(f"/proc/{vm.pid()}/ns/pid"), os.readlink("/proc/self/ns/pid"))
        self.assertEqual(os.readlink(f"/proc/{vm.pid()}/exe"), os.path.realpath(self.program))
        self.assertTrue(vm.await_page())
        vm.stop()
        vm.delete()
