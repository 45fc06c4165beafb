"""One operation per VM at a time."""

import threading

from harness import MergenTest
from waiting import eventually


class Conflict(MergenTest):
    def test_a_second_operation_is_refused_and_told_who_holds_the_vm(self):
        self.server.drain()
        self.server.start(failpoints="engine.start.launch.before=1*delay(3000)")
        vm, other = self.create(), self.create()
        replies = []
        starter = threading.Thread(target=lambda: replies.append(
            self.server.api.request("POST", f"{vm.path}/start")))
        starter.start()
        eventually(lambda: vm.state() == "starting", "state starting", [vm.view()["paths"]["configDir"]])
        for method, path in (("POST", f"{vm.path}/stop"), ("POST", f"{vm.path}/start"), ("DELETE", vm.path)):
            reply = self.assert_status(409, method, path)
            self.assertEqual(reply.json["error"], "conflict")
            self.assertIn("start", reply.json["message"])
            self.assertIn(vm.view()["operation"]["id"], reply.json["message"])
        other.start()
        self.assertEqual(vm.state(), "starting", "VMs do not wait for each other")
        starter.join()
        self.assertEqual([reply.status for reply in replies], [200])
        vm.delete()
        other.delete()

    def test_creates_at_once_never_share_an_address_or_a_port(self):
        ids, failures = [], []

        def create():
            try:
                ids.append(self.create().id)
            except AssertionError as error:
                failures.append(str(error))

        threads = [threading.Thread(target=create) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        vms = self.server.api.list()
        self.assertEqual(sorted(vm["id"] for vm in vms), sorted(ids))
        self.assertEqual(len({vm["network"]["guestIP"] for vm in vms}), 8)
        self.assertEqual(len({vm["network"]["ports"][0]["host"] for vm in vms}), 8)
