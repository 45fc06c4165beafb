"""Kernels as they are handed out: the VM's own copy is the ELF file in them. On the fake Firecracker."""

import gzip
import lzma
import os

from kernels import ELF, PACKINGS, bz_image, payload
from test_firecracker import OnTheFake as FakeFirecracker


class Kernels(FakeFirecracker):
    def tearDown(self):
        path = os.path.join(self.server.images, "given-kernel")
        if os.path.exists(path):
            os.unlink(path)
        super().tearDown()

    def given(self, content):
        path = os.path.join(self.server.images, "given-kernel")
        with open(path, "wb") as file:
            file.write(content)
        return path

    def own_kernel(self, vm):
        with open(os.path.join(self.server.data_root, vm.id, "kernel"), "rb") as file:
            return file.read()

    def assert_refused(self, content, *words):
        path = self.given(content)
        before = sorted(os.listdir(self.server.data_root))
        reply = self.assert_status(400, "POST", "/v1/vms", self.body(kernel=path))
        for word in ("kernel", path, *words):
            self.assertIn(word, reply.json["detail"])
        self.assertNotIn(self.server.data_root, reply.json["detail"])
        self.assertEqual(sorted(os.listdir(self.server.data_root)), before)

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
