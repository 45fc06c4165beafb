"""Kernels in the forms that they are handed out in, on a real Firecracker: the tiny guest from each comes up to its page.
Each story without a jail, and in one."""

import os

import harness
from kernels import PACKINGS, bz_image, payload
from real_firecracker import OnARealFirecracker


class Forms(OnARealFirecracker):
    def setUp(self):
        super().setUp()
        with open(self.server.kernel, "rb") as file:
            self.elf = file.read()

    def assert_comes_up(self, name, content):
        path = self.make_image(name, content)
        vm = self.create_and_start(kernel=path)
        self.assertIn("tiny guest", vm.await_page())
        with open(os.path.join(self.server.data_root, vm.id, "kernel"), "rb") as file:
            self.assertTrue(file.read() == self.elf)
        vm.delete()

    def test_a_packed_one_comes_up(self):
        for packing, pack in PACKINGS.items():
            with self.subTest(packing):
                self.assert_comes_up(f"tiny.{packing}", pack(self.elf))

    def test_the_payload_of_a_bz_image_comes_up(self):
        for packing in PACKINGS:
            with self.subTest(packing):
                self.assert_comes_up(f"tiny-bzImage.{packing}", bz_image(payload(packing, self.elf)))

    def test_the_second_vm_comes_up_from_the_cache(self):
        path = self.make_image("tiny.xz", PACKINGS["xz"](self.elf))
        first = self.create_and_start(kernel=path)
        cache = os.path.join(self.server.data_root, ".cache", "kernels")
        [entry] = os.listdir(cache)
        written = os.stat(os.path.join(cache, entry)).st_ino
        second = self.create_and_start(kernel=path)
        self.assertIn("tiny guest", second.await_page())
        self.assertEqual([os.stat(os.path.join(cache, name)).st_ino for name in os.listdir(cache)], [written])
        second.delete()
        self.assertIn("tiny guest", first.await_page())
        first.delete()

    def test_debians_cloud_kernel_is_loaded(self):
        # Whether it comes up is KVM's matter. Firecracker answers the start once the kernel is in the guest's memory.
        vmlinuz = os.path.join(harness.BUILD.folder, "guest", "vmlinuz")
        if not os.path.exists(vmlinuz):
            self.skipTest(f"there is no {vmlinuz}: guest/build-kernel makes it")
        with open(vmlinuz, "rb") as file:
            path = self.make_image("debians", file.read())
        vm = self.create(kernel=path, memMiB=256)
        self.assert_status(200, "POST", f"{vm.path}/start")
        with open(os.path.join(self.server.data_root, vm.id, "kernel"), "rb") as file:
            self.assertEqual(file.read(4), b"\x7fELF")
        vm.delete()


class FormsInAJail(Forms):
    jailer = "auto"
