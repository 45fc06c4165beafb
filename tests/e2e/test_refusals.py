"""Wrong input is refused with the member, the value and the rule, and changes nothing."""

import os

from harness import MergenTest


class Refusals(MergenTest):
    def assert_refused(self, status, body, field=None):
        reply = self.assert_status(status, "POST", "/v1/vms", body)
        self.assertEqual(reply.headers["content-type"], "application/problem+json", str(reply))
        problem = reply.json
        self.assertEqual(problem["status"], status)
        for member in ("type", "title", "detail", "error", "message"):
            self.assertTrue(problem.get(member), f"{member} is missing: {reply}")
        if field:
            self.assertEqual(problem.get("field"), field, str(reply))

    def test_a_create_with_wrong_input_changes_nothing(self):
        images = self.server.images
        outside = os.path.join(self.server.folder, "outside.ext4")
        with open(outside, "wb") as file:
            file.truncate(1 << 20)
        os.symlink(outside, os.path.join(images, "link.ext4"))
        os.symlink(self.server.folder, os.path.join(images, "folder-link"))
        os.mkfifo(os.path.join(images, "fifo"))
        kept = self.create(ports=[{"guest": 80, "host": 21500}], name="taken", id="taken")
        before = self.snapshot_with_files(contents=True)
        listed = self.server.api.list()

        wrong = [
            ({}, "rootfs"), ({"rootfs": None}, "rootfs"), ({"rootfs": ""}, "rootfs"), ({"rootfs": "rootfs.ext4"}, "rootfs"),
            ({"rootfs": os.path.join(images, "none")}, "rootfs"), ({"rootfs": images}, "rootfs"),
            ({"rootfs": outside}, "rootfs"), ({"rootfs": "/dev/vda"}, "rootfs"), ({"rootfs": "/etc/shadow"}, "rootfs"),
            ({"rootfs": os.path.join(images, "link.ext4")}, "rootfs"),
            ({"rootfs": os.path.join(images, "folder-link", "outside.ext4")}, "rootfs"),
            ({"rootfs": os.path.join(images, "..", "outside.ext4")}, "rootfs"),
            ({"rootfs": os.path.join(images, "fifo")}, "rootfs"),
            ({"kernel": None}, "kernel"), ({"kernel": "/proc/self/mem"}, "kernel"), ({"kernel": 7}, "kernel"),
            ({"dataDisk": outside}, "dataDisk"),
            ({"vcpu": 0}, "vcpu"), ({"vcpu": -1}, "vcpu"), ({"vcpu": "2"}, "vcpu"), ({"vcpu": 1.5}, "vcpu"),
            ({"memMiB": 127}, "memMiB"), ({"memMiB": 1 << 40}, "memMiB"),
            ({"ports": {}}, "ports"), ({"ports": [{"guest": 0}]}, None), ({"ports": [{"guest": 65536}]}, None),
            ({"ports": [{"guest": 80, "host": -1}]}, None), ({"ports": [{"guest": 80, "protocol": "sctp"}]}, None),
            ({"ports": [{"guest": 80, "host": 21001}, {"guest": 81, "host": 21001}]}, None),
            ({"tags": {"a": 1}}, None), ({"metadata": []}, "metadata"), ({"autoStart": "yes"}, "autoStart"),
            ({"extraEnv": {"x;reboot": "1"}}, None), ({"extraEnv": {"MGN_VM_ID": "1"}}, None),
            ({"id": "../escape"}, "id"), ({"id": "UPPER"}, "id"), ({"bootArgs": "a\nb"}, "bootArgs"),
            ({"memMib": 512}, "memMib"),
        ]
        for members, field in wrong:
            with self.subTest(members=members):
                body = self.body(**members) if members else {"kernel": self.server.kernel}
                self.assert_refused(400, body, field)
        for taken in ({"id": "taken"}, {"name": "taken"}, {"ports": [{"guest": 80, "host": 21500}]}):
            with self.subTest(taken=taken):
                self.assert_refused(409, self.body(**taken))

        self.assertEqual(self.server.api.list(), listed)
        self.assert_same_host(before, lambda: self.snapshot_with_files(contents=True), "after refused creates")
        kept.delete()
        for name in ("link.ext4", "folder-link", "fifo"):
            os.unlink(os.path.join(images, name))

    def test_a_host_port_that_somebody_listens_on_is_refused(self):
        import socket
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.assert_refused(409, self.body(ports=[{"guest": 80, "host": port}]))
        self.assertEqual(self.server.api.list(), [])

    def test_unknown_vms_and_routes_are_not_found(self):
        for method, path in (("GET", "/v1/vms/none"), ("POST", "/v1/vms/none/start"), ("POST", "/v1/vms/none/stop"),
                             ("DELETE", "/v1/vms/none"), ("GET", "/v1/vms/none/events"), ("GET", "/nothing")):
            with self.subTest(path=path):
                self.assert_status(404, method, path)
        self.assert_status(405, "PUT", "/v1/vms")

    def test_health_and_plugins_are_told(self):
        self.assertEqual(self.server.api.get("/healthz"), {"status": "ok"})
        self.assert_status(200, "GET", "/readyz")
        plugins = self.server.api.get("/v1/plugins")["items"]
        ready = {(plugin["kind"], plugin["name"]) for plugin in plugins if plugin["state"] == "ready"}
        self.assertEqual(ready, {("storage", "files"), ("supervisor", "process"), ("network", "linux"), ("vmm", "qemu")})
