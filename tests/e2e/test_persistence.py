"""What stays over a stop, and over a delete that was asked to keep data."""

import hashlib
import os
import shutil

from harness import MergenTest


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Persistence(MergenTest):
    def test_stop_and_start_keep_address_port_and_what_the_guest_wrote(self):
        image = digest(self.server.rootfs)
        vm = self.create_and_start()
        vm.await_page()
        self.assertEqual(vm.boots(), 1)
        vm.keep_note("diary", "written in the first life")
        before = vm.view()["network"]
        vm.stop()
        self.assertEqual(vm.view()["network"], before)
        vm.start()
        vm.await_page()
        self.assertEqual(vm.view()["network"], before)
        self.assertEqual(vm.boots(), 2)
        self.assertEqual(vm.fetch("/cgi-bin/note?diary"), "written in the first life")
        self.assertEqual(digest(self.server.rootfs), image, "the image that the VM was made from is not touched")

    def test_delete_keeps_the_data_folder_only_if_asked_to(self):
        kept, lost = self.create_and_start(), self.create()
        kept.stop()
        folders = [vm.view()["paths"]["dataDir"] for vm in (kept, lost)]
        for folder in folders:
            self.assertTrue(os.listdir(folder))
        self.assert_status(400, "DELETE", kept.path + "?retainData=perhaps")
        kept.delete("?retainData=true")
        lost.delete("?retainData=false")
        self.assertFalse(os.path.exists(folders[1]))
        # The next VM may be given the same user, and these are nobody's now.
        for name in ["."] + os.listdir(folders[0]):
            self.assertEqual(os.stat(os.path.join(folders[0], name)).st_uid, os.geteuid(), name)
        self.assertIn("rootfs.ext4", os.listdir(folders[0]))
        self.assertEqual(self.server.api.list(), [])
        shutil.rmtree(folders[0])

    def test_vms_that_do_not_run_survive_a_restart_of_the_server(self):
        vm = self.create(name="sleeper", tags={"a": "b"}, metadata={"deep": {"er": [1, 2.5, None]}})
        before = vm.view()
        self.server.drain()
        self.server.start()
        self.assertEqual(vm.view(), before)
