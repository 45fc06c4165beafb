"""Kernels as they are handed out: the VM's own copy is the ELF file in them. On the fake Firecracker."""

import gzip
import hashlib
import lzma
import os

from harness import CrashTest
from kernels import ELF, PACKINGS, bz_image, payload
from test_firecracker import OnTheFake as FakeFirecracker


class OnGivenKernels(FakeFirecracker):
    def given(self, content):
        return self.make_image("given-kernel", content)

    def own_kernel(self, vm):
        with open(os.path.join(self.server.data_root, vm.id, "kernel"), "rb") as file:
            return file.read()

    def data_root_without_cache(self):
        return sorted(name for name in os.listdir(self.server.data_root) if name != ".cache")

    def assert_refused(self, content, *words):
        path = self.given(content)
        before = self.data_root_without_cache()
        reply = self.assert_status(400, "POST", "/v1/vms", self.body(kernel=path))
        for word in ("kernel", path, *words):
            self.assertIn(word, reply.json["detail"])
        self.assertNotIn(self.server.data_root, reply.json["detail"])
        self.assertEqual(self.data_root_without_cache(), before)


class Kernels(OnGivenKernels):
    def test_every_form_becomes_the_elf_file_in_it_and_starts(self):
        forms = {"elf": ELF, "bzImage in gzip": gzip.compress(bz_image(payload("xz", ELF)))}
        for name, pack in PACKINGS.items():
            forms |= {name: pack(ELF), f"bzImage, {name}": bz_image(payload(name, ELF))}
        for name, content in forms.items():
            with self.subTest(name):
                path = self.given(content)
                vm = self.create(kernel=path)
                self.assertTrue(self.own_kernel(vm) == ELF)
                vm.start()
                vm.await_console("fake-guest: ready")
                vm.stop()
                vm.delete()
                with open(path, "rb") as file:
                    self.assertTrue(file.read() == content, "the caller's file was changed")

    def test_what_cannot_be_unpacked_is_refused_by_name_and_leaves_nothing(self):
        packed = gzip.compress(ELF)
        self.assert_refused(packed[:-9], "cut off")
        self.assert_refused(packed + b"more", "4 bytes after the end")
        self.assert_refused(gzip.compress(lzma.compress(ELF)), "compressed twice")
        self.assert_refused(gzip.compress(b"#!/bin/sh\n"), "neither an ELF file nor a bzImage")
        self.assert_refused(bz_image(packed, b"")[:-100], "not within")

    def test_other_compressions_are_refused_by_their_name(self):
        for name, content in {"bzip2": b"BZh9 packed", "lzma": b"\x5d\0\0 packed", "lzo": b"\x89LZO packed",
                              "lz4 in its newer frame": b"\x04\x22\x4d\x18 packed"}.items():
            self.assert_refused(content, f"compressed by {name}")

    def test_a_kernel_of_another_machine_is_refused_in_every_form(self):
        arm = bytearray(ELF)
        arm[18] = 183  # EM_AARCH64
        words = "an ELF file for aarch64, not for x86_64"
        self.assert_refused(arm, words)
        self.assert_refused(gzip.compress(arm), words)
        self.assert_refused(bz_image(payload("lz4", arm)), words)

    def test_a_bomb_is_refused_and_leaves_nothing(self):
        # 520 MiB of nothing after what looks like a kernel.
        compressor = lzma.LZMACompressor()
        megabyte = bytes(1 << 20)
        bomb = b"".join([compressor.compress(ELF), *(compressor.compress(megabyte) for _ in range(520)),
                         compressor.flush()])
        self.assert_refused(bomb, "more than 512 MiB")


class Cache(OnGivenKernels):
    def setUp(self):
        super().setUp()
        self.packed = gzip.compress(ELF)
        self.folder = os.path.join(self.server.data_root, ".cache", "kernels")
        self.entry = f"{hashlib.sha256(self.packed).hexdigest()}-{len(ELF)}"

    def mark(self):
        """Changes the content of the entry, as nobody else could, and gives what a VM gets that comes from there."""
        marked = ELF[:-6] + b"marked"
        with open(os.path.join(self.folder, self.entry), "r+b") as file:
            file.write(marked)
        return marked

    def create_and_delete(self, content):
        vm = self.create(kernel=self.given(content))
        kernel = self.own_kernel(vm)
        vm.delete()
        return kernel

    def test_the_next_vm_of_a_kernel_gets_a_copy_and_servers_and_deletes_leave_the_cache(self):
        self.assertTrue(self.create_and_delete(self.packed) == ELF)
        self.assertEqual(os.listdir(self.folder), [self.entry])
        marked = self.mark()
        self.server.kill()
        self.server.start()
        self.assertEqual(self.server.api.list(), [], "its folder is no VM's")
        vm = self.create(kernel=self.given(self.packed))
        self.assertTrue(self.own_kernel(vm) == marked)
        os.unlink(os.path.join(self.folder, self.entry))
        vm.start()
        vm.await_console("fake-guest: ready")
        self.assertTrue(self.own_kernel(vm) == marked, "it is the VM's own")
        vm.delete()

    def test_an_entry_that_others_could_have_written_is_made_anew(self):
        self.create_and_delete(self.packed)
        self.mark()
        os.chmod(os.path.join(self.folder, self.entry), 0o622)
        self.assertTrue(self.create_and_delete(self.packed) == ELF)
        status = os.stat(os.path.join(self.folder, self.entry))
        self.assertEqual((status.st_mode & 0o7777, status.st_uid), (0o400, os.geteuid()))
        with open(os.path.join(self.folder, self.entry), "rb") as file:
            self.assertTrue(file.read() == ELF)

    def test_a_kernel_that_is_refused_is_not_kept(self):
        self.assert_refused(self.packed[:-9], "cut off")
        self.assertFalse(os.path.exists(self.folder))

    def test_it_has_its_bound_and_zero_turns_it_off(self):
        self.create_and_delete(self.packed)
        self.server.drain()
        self.server.use_settings({"vmm.firecracker": {**self.firecracker_settings(), "kernel_cache": 0}})
        self.server.start()
        self.assertEqual(os.listdir(self.folder), [], "there is no room for what was kept")
        self.assertTrue(self.create_and_delete(self.packed) == ELF)
        self.assertEqual(os.listdir(self.folder), [])
        self.server.drain()
        self.server.use_settings({"vmm.firecracker": {**self.firecracker_settings(), "kernel_cache": len(ELF)}})
        self.server.start()
        self.create_and_delete(self.packed)
        other = gzip.compress(ELF[:-1])
        self.assertTrue(self.create_and_delete(other) == ELF[:-1])
        self.assertEqual(os.listdir(self.folder), [f"{hashlib.sha256(other).hexdigest()}-{len(ELF) - 1}"])


class CacheOfACrash(OnGivenKernels, CrashTest):
    def test_what_is_half_made_is_gone_with_the_next_server_and_the_next_vm_has_its_kernel(self):
        packed = gzip.compress(ELF)
        body = self.body(kernel=self.given(packed))
        self.crash("vmm.firecracker.kernel_cache.aside", "POST", "/v1/vms", body)
        folder = os.path.join(self.server.data_root, ".cache", "kernels")
        self.assertEqual(os.listdir(folder), [])
        self.assertEqual(self.server.api.list(), [])
        vm = self.create(kernel=body["kernel"])
        self.assertTrue(self.own_kernel(vm) == ELF)
        self.assertEqual(len(os.listdir(folder)), 1)
        vm.delete()
