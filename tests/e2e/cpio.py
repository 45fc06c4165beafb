"""An initial RAM disk as a kernel takes it: an uncompressed cpio archive of the "newc" format (cpio(5))."""

import os
import stat


def archive(entries):
    """`entries`: (name, mode with file type, content) in order; parents first, and no leading '/'."""
    out = bytearray()

    def pad():
        out.extend(b"\0" * (-len(out) % 4))

    for inode, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out.extend(b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0")
        pad()
        out.extend(content)
        pad()
    return bytes(out)


def with_busybox(busybox, init):
    """busybox with `init`, the text of a shell script, as the first program."""
    with open(busybox, "rb") as file:
        program = file.read()
    folders = [(name, stat.S_IFDIR | 0o755, b"") for name in ("bin", "dev", "proc", "mnt")]
    return archive([*folders, ("bin/busybox", stat.S_IFREG | 0o755, program),
                    ("init", stat.S_IFREG | 0o755, init.encode())])


def find_busybox(build_folder):
    """The static one that the guest is made of: of the package, or taken out of it by guest/build-rootfs."""
    own = os.path.join(build_folder, "guest", "busybox")
    return own if os.path.exists(own) else "/bin/busybox"
