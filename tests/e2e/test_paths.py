"""What a request may name: the real server with devices, mounts, full disks, and somebody who swaps files meanwhile."""

import ctypes
import os
import socket
import stat
import subprocess
import threading

from harness import MergenTest

MEMBERS = ("rootfs", "kernel", "initrd", "dataDisk")
_libc = ctypes.CDLL(None, use_errno=True)


def exchange(first, second):
    """The two names change places, atomically (renameat2, RENAME_EXCHANGE)."""
    if _libc.renameat2(-100, os.fsencode(first), -100, os.fsencode(second), 2) != 0:
        raise OSError(ctypes.get_errno(), f"exchange {first} {second}")


class Swapper(threading.Thread):
    """Exchanges two names again and again."""

    def __init__(self, first, second):
        super().__init__()
        self._names = first, second
        self._enough = threading.Event()
        self.rounds = 0

    def run(self):
        while not self._enough.is_set():
            exchange(*self._names)
            self.rounds += 1

    def end(self):
        self._enough.set()
        self.join()


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)


class Paths(MergenTest):
    def setUp(self):
        super().setUp()
        self.at = lambda *names: os.path.join(self.server.images, *names)

    def assert_refused(self, member, path, status=400):
        problem = self.assert_status(status, "POST", "/v1/vms", self.body(**{member: path})).json
        self.assertEqual(problem["field"], member, problem)
        return problem["message"]

    def with_nothing_changed(self, action):
        before = self.snapshot_with_files()
        action()
        self.assertEqual(self.server.api.list(), [])
        self.assert_same_host(before, self.snapshot_with_files, "after refused creates")

    def test_what_is_no_plain_file_below_a_root_is_refused_of_every_member(self):
        made = {"block": stat.S_IFBLK | 0o666, "character": stat.S_IFCHR | 0o666}
        for name, kind in made.items():
            os.mknod(self.at(name), kind, os.makedev(1, 3))  # as a character device: /dev/null
        os.mkfifo(self.at("fifo"))
        os.mkdir(self.at("folder"))
        write(self.at("empty"), b"")
        os.symlink("/dev/null", self.at("link"))
        os.symlink("rootfs.ext4", self.at("link-inside"))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.at("socket"))
            paths = [self.at(name) for name in (*made, "fifo", "folder", "empty", "link", "link-inside", "socket", "none",
                                                "folder/../rootfs.ext4", "../mergen.ini", "n" * 256, "rootfs.ext4/")]
            paths += ["/dev/null", "/proc/self/mem", "/proc/self/exe", "/etc/shadow", "/proc/self/fd/0",
                      os.path.join(self.server.config_root, "x", "meta.json")]

            def refuse_all():
                for member in MEMBERS:
                    for path in paths:
                        with self.subTest(member=member, path=path):
                            self.assert_refused(member, path)
            self.with_nothing_changed(refuse_all)
        for name in (*made, "fifo", "empty", "link", "link-inside", "socket"):
            os.unlink(self.at(name))
        os.rmdir(self.at("folder"))

    def test_what_is_mounted_below_a_root_is_refused_until_it_is_named(self):
        os.mkdir(self.at("mounted"))
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self.at("mounted")], check=True)
        try:
            kernel = self.at("mounted", "vmlinuz")
            with open(self.server.kernel, "rb") as file:
                write(kernel, file.read())
            self.with_nothing_changed(lambda: self.assertIn("mounted", self.assert_refused("kernel", kernel)))
            self.server.drain()
            with open(self.server.configuration, encoding="utf-8") as file:
                text = file.read()
            with open(self.server.configuration, "w", encoding="utf-8") as file:
                file.write(text.replace(f"image_roots = {self.server.images}",
                                        f"image_roots = {self.server.images}, {self.at('mounted')}"))
            self.server.start()
            self.create(kernel=kernel).delete()
        finally:
            subprocess.run(["umount", self.at("mounted")], check=True)
            os.rmdir(self.at("mounted"))

    def test_a_folder_that_changes_places_with_a_link_never_leads_outside(self):
        outside = os.path.join(self.server.folder, "outside")
        for folder, content in ((self.at("sub"), b"good"), (outside, b"secret")):
            os.mkdir(folder)
            for member in ("rootfs", "kernel", "initrd"):
                write(os.path.join(folder, member), content)
        os.symlink(outside, self.at("link"))
        body = self.body(**{member: self.at("sub", member) for member in ("rootfs", "kernel", "initrd")})
        swapper = Swapper(self.at("sub"), self.at("link"))
        swapper.start()
        made = refused = 0
        try:
            for _ in range(400):
                reply = self.server.api.request("POST", "/v1/vms", body)
                if reply.status == 201:
                    made += 1
                    vm = self.server.api.get(f"/v1/vms/{reply.json['id']}")
                    for name in ("rootfs.ext4", "kernel", "initrd"):
                        with open(os.path.join(vm["paths"]["dataDir"], name), "rb") as file:
                            self.assertEqual(file.read(), b"good")
                    self.server.api.expect(200, "DELETE", f"/v1/vms/{vm['id']}")
                else:
                    self.assertEqual(reply.status, 400, str(reply))
                    refused += 1
                if made > 20 and refused > 20:
                    break
        finally:
            swapper.end()
        self.assertGreater(swapper.rounds, 0)
        self.assertGreater(made, 0)
        self.assertGreater(refused, 0)
        subprocess.run(["rm", "-r", self.at("sub"), self.at("link"), outside], check=True)

    def test_an_image_that_changes_while_it_is_copied_is_refused(self):
        write(self.at("changing"), b"x" * (16 << 20))
        copied = threading.Event()

        def touch():
            # Opened and closed for each write, as a downloader that resumes would, and mostly closed: else it is seen
            # beforehand.
            while not copied.wait(0.001):
                with open(self.at("changing"), "r+b") as file:
                    file.write(b"y")

        writer = threading.Thread(target=touch)
        writer.start()
        try:
            for _ in range(1000):
                reply = self.server.api.request("POST", "/v1/vms", self.body(rootfs=self.at("changing")))
                if reply.status == 409 and "changed meanwhile" in reply.json["message"]:
                    break
                self.assertIn(reply.status, (201, 409), str(reply))
                if reply.status == 201:
                    self.server.api.expect(200, "DELETE", f"/v1/vms/{reply.json['id']}")
            else:
                self.fail("no copy was refused")
        finally:
            copied.set()
            writer.join()
        self.assertEqual((reply.json["error"], reply.json["field"]), ("conflict", "rootfs"))
        self.assertEqual(self.server.api.list(), [])
        self.assertEqual(sorted(os.listdir(self.server.data_root)), [".lock", "instance"])
        os.unlink(self.at("changing"))

    def test_a_disk_that_does_not_fit_leaves_nothing(self):
        self.server.drain()
        mounted = self.server.data_root
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=751", "tmpfs", mounted], check=True)
        try:
            self.server.start()
            write(self.at("large"), os.urandom(1 << 20) * 30)
            with open(self.at("sparse"), "wb") as file:
                file.truncate(1 << 40)

            def refuse():
                problem = self.assert_status(507, "POST", "/v1/vms", self.body(rootfs=self.at("large"))).json
                self.assertEqual(problem["error"], "resource_exhausted")
            self.with_nothing_changed(refuse)
            vm = self.create(rootfs=self.at("sparse"))  # what it will need is the guest's affair
            self.assertEqual(os.path.getsize(os.path.join(vm.view()["paths"]["dataDir"], "rootfs.ext4")), 1 << 40)
            vm.delete()
            self.server.drain()
        finally:
            if self.server.pid:
                self.server.kill()
            subprocess.run(["umount", mounted], check=True)
        self.server.start()
        for name in ("large", "sparse"):
            os.unlink(self.at(name))
