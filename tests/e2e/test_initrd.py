"""A guest that starts from an initial RAM disk of its own."""

import json
import os

import cpio
import harness

HELLO = "mergen-initrd: this is the first program"

# Says a line, and then goes on with the root disk as initrds do.
INIT = f"""#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
echo "{HELLO}" >/dev/ttyS0
set -- $($b cat /proc/cmdline)
for word; do case $word in root=*) root=${{word#root=}} ;; esac; done
$b mount -t ext4 "$root" /mnt
$b umount /proc
$b umount /dev
exec $b switch_root /mnt /sbin/init
"""


class Initrd(harness.MergenTest):
    def write(self, path, init):
        with open(path, "wb") as file:
            file.write(cpio.with_busybox(cpio.find_busybox(harness.BUILD.folder), init))

    def test_a_guest_runs_its_own_copy_of_the_initrd_before_its_root_disk(self):
        initrd = os.path.join(self.server.images, "initrd.img")
        self.write(initrd, INIT)
        vm = self.create(initrd=initrd)
        view = vm.view()
        self.assertEqual(view["initrd"], initrd)
        copy = os.path.join(view["paths"]["dataDir"], "initrd")
        with open(view["paths"]["vmConfigPath"], encoding="utf-8") as file:
            self.assertEqual(json.load(file)["boot-source"]["initrd_path"], copy)
        with open(copy, "rb") as own, open(initrd, "rb") as given:
            self.assertEqual(own.read(), given.read())
        self.write(initrd, "#!/bin/busybox sh\necho another one\n")  # too late for this VM

        vm.start()
        vm.await_page()
        self.assertIn(HELLO, vm.console())
        self.server.kill()
        self.server.start()
        self.assertEqual(vm.view()["initrd"], initrd)
        vm.stop()
        vm.start()
        vm.await_page()
        self.assertEqual(vm.boots(), 2)
        vm.delete()
        os.unlink(initrd)

    def test_a_guest_that_is_nothing_but_an_initrd_ends_as_it_says(self):
        initrd = os.path.join(self.server.images, "initrd.img")
        self.write(initrd, f"""#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
echo "{HELLO}" >/dev/ttyS0
/bin/busybox reboot -f
""")
        vm = self.create(initrd=initrd, ports=[])
        vm.start()
        vm.await_state("stopped", seconds=90)
        self.assertIn(HELLO, vm.console())
        self.assertEqual(vm.view()["lastExit"]["code"], 0)
        vm.delete()
        os.unlink(initrd)
