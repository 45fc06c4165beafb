"""A VM is made, started, reached, stopped and deleted."""

import http.client

from harness import Elsewhere, MergenTest


class FirstLight(MergenTest):
    def setUp(self):
        self.elsewhere = Elsewhere()
        self.addCleanup(self.elsewhere.remove)
        super().setUp()

    def test_page_is_reached_from_localhost_the_hosts_address_and_another_host(self):
        vm = self.create()
        self.assertEqual(vm.state(), "created")
        self.assertEqual(vm.start(), {"id": vm.id, "status": "started"})
        page = vm.await_page()
        self.assertIn(vm.address(), page)
        self.assertEqual(vm.state(), "running")
        self.assertEqual(vm.fetch(host=Elsewhere.HERE), page, "from the host itself, through its own address")
        self.assertEqual(self.elsewhere.connect(Elsewhere.HERE, vm.host_port()), page, "from another host")
        self.assertIsNone(self.elsewhere.connect(vm.address(), 80), "the guest's own address is no way in")

        view = vm.view()
        self.assertEqual(view["network"]["ports"], [{"guest": 80, "host": vm.host_port(), "protocol": "tcp"}])
        self.assertTrue(view["firecracker"]["socketPresent"])
        vm.await_console("mergen-guest: ready")

        self.assertEqual(vm.stop(), {"id": vm.id, "status": "stopped", "endedBy": "guest"})
        self.assertEqual(vm.state(), "stopped")
        with self.assertRaises(OSError):
            vm.fetch(timeout=2)
        self.assertEqual(vm.delete(), {"id": vm.id, "status": "deleted", "endedBy": "none"})
        self.assert_status(404, "GET", vm.path)
        self.assert_status(404, "DELETE", vm.path)
        self.assertEqual(self.server.api.list(), [])

    def test_two_vms_at_once_have_nothing_in_common(self):
        first, second = self.create(), self.create()
        first.start()
        second.start()
        pages = [first.await_page(), second.await_page()]
        self.assertIn(first.address(), pages[0])
        self.assertIn(second.address(), pages[1])
        views = [vm.view() for vm in (first, second)]
        for what in (lambda v: v["id"], lambda v: v["network"]["guestIP"], lambda v: v["network"]["ports"][0]["host"],
                     lambda v: v["network"]["tapName"], lambda v: v["network"]["netns"], lambda v: v["paths"]["dataDir"],
                     lambda v: v["systemd"]["mainPID"]):
            self.assertNotEqual(what(views[0]), what(views[1]))
        first.delete()
        self.assertEqual(second.fetch(), pages[1], "deleting one VM leaves the other alone")
        with self.assertRaises((OSError, http.client.HTTPException)):
            http.client.HTTPConnection("127.0.0.1", views[0]["network"]["ports"][0]["host"], timeout=2).request("GET", "/")
        second.delete()


class Operations(MergenTest):
    # The guests of these tests have not booted far enough to obey when they are stopped.
    settings = {"vm": {"stop_grace": "1s"}}

    def test_auto_start_starts_and_starting_or_stopping_twice_succeeds(self):
        vm = self.create(autoStart=True, id="first-light", name="first light", tags={"app": "demo"})
        self.assertEqual(vm.id, "first-light")
        self.assertEqual(vm.state(), "running")
        pid = vm.pid()
        self.assertEqual(vm.start()["status"], "started")
        self.assertEqual(vm.pid(), pid, "a second start leaves the running VMM alone")
        self.assert_status(409, "POST", "/v1/vms", self.body(id="first-light"))
        vm.stop()
        self.assertEqual(vm.stop()["status"], "stopped")
        vm.delete()

    def test_events_tell_every_step_of_every_operation(self):
        vm = self.create()
        vm.start()
        vm.stop()
        events = vm.events()
        sequences = [event["sequence"] for event in events]
        self.assertEqual(sequences, sorted(set(sequences)))
        self.assertEqual(list(dict.fromkeys(event["operation"] for event in events)), ["create", "start", "stop"])
        steps = [event["step"] for event in events if event["operation"] == "start" and event["outcome"] == "ok"]
        for step in ("network", "launch", "boot", "publish"):
            self.assertIn(step, steps)
        self.assertFalse([event for event in events if event["outcome"] == "failed"])
        vm.delete()
