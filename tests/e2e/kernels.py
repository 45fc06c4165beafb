"""The forms that a kernel is handed out in, made from the ELF file in it with nothing but the standard library. Where it
cannot compress so, the stream is one that only stores, which every reader of the format must take, too."""

import gzip
import lzma
import struct

# As far as anybody looks who does not run it: an ELF file of x86-64, 64-bit and little-endian.
ELF = b"\x7fELF\2\1\1".ljust(16, b"\0") + b"\2\0\x3e\0" + bytes(range(256)) * 2000


def lz4_legacy(content):
    """The legacy frame (`lz4 -l`): blocks of 8 MiB at most, here each of literals alone."""
    packed = b"\x02\x21\x4c\x18"
    for at in range(0, len(content), 8 << 20):
        block = content[at:at + (8 << 20)]
        token = min(len(block), 15) << 4
        more = b"" if len(block) < 15 else b"\xff" * ((len(block) - 15) // 255) + bytes([(len(block) - 15) % 255])
        packed += struct.pack("<I", 1 + len(more) + len(block)) + bytes([token]) + more + block
    return packed


def zstd(content):
    """One frame (RFC 8878, 3.1.1) that says its size and has raw blocks alone."""
    single_segment_of_four_bytes = 0xa0
    packed = struct.pack("<IBI", 0xfd2fb528, single_segment_of_four_bytes, len(content))
    size = 128 << 10
    for at in range(0, len(content), size):
        block = content[at:at + size]
        last = at + size >= len(content)
        packed += (len(block) << 3 | last).to_bytes(3, "little") + block
    return packed


def xz(content):
    # Of the sums, the kernel's own unpacker knows this one.
    return lzma.compress(content, check=lzma.CHECK_CRC32)


PACKINGS = {"gzip": gzip.compress, "xz": xz, "zstd": zstd, "lz4": lz4_legacy}


def payload(packing, content):
    """As the kernel's build makes it: the unpacked size stands behind all but gzip, which has it in the format."""
    return PACKINGS[packing](content) + (b"" if packing == "gzip" else struct.pack("<I", len(content)))


def bz_image(packed, after=b"\x5a" * 64):
    """As Documentation/arch/x86/boot.rst has it: one setup sector, the payload at the start of the code."""
    image = bytearray(2 * 512)
    image[0x1f1] = 1
    image[0x202:0x208] = b"HdrS\x0f\x02"
    struct.pack_into("<II", image, 0x248, 0, len(packed))
    return bytes(image) + packed + after
