"""Kernels as they are handed out: the VM's own copy is the ELF file in them. On the fake Firecracker."""

import gzip
import lzma
import os
import struct

from test_firecracker import OnTheFake as FakeFirecracker

ELF = b"\x7fELF" + bytes(range(256)) * 2000


def bz_image(payload, after=b"\x5a" * 64):
    """As Documentation/arch/x86/boot.rst has it: one setup sector, the payload at the start of the code."""
    image = bytearray(2 * 512)
    image[0x1f1] = 1
    image[0x202:0x208] = b"HdrS\x0f\x02"
    struct.pack_into("<II", image, 0x248, 0, len(payload))
    return bytes(image) + payload + after


def xz_payload(content):
    return lzma.compress(content, check=lzma.CHECK_CRC32) + struct.pack("<I", len(content))


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
        for name, content in {"elf": ELF, "gzip": gzip.compress(ELF), "xz": lzma.compress(ELF),
                              "bzImage, gzip": bz_image(gzip.compress(ELF)), "bzImage, xz": bz_image(xz_payload(ELF)),
                              "bzImage in gzip": gzip.compress(bz_image(xz_payload(ELF)))}.items():
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
        self.assert_refused(b"\x02\x21\x4c\x18 packed", "compressed by lz4")

    def test_a_bomb_is_refused_and_leaves_nothing(self):
        # 520 MiB of nothing after what looks like a kernel.
        compressor = lzma.LZMACompressor()
        megabyte = bytes(1 << 20)
        bomb = b"".join([compressor.compress(ELF), *(compressor.compress(megabyte) for _ in range(520)),
                         compressor.flush()])
        self.assert_refused(bomb, "more than 512 MiB")
