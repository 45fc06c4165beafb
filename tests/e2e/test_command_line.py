"""mergend as a program: what it refuses, and what it prints."""

import socket
import subprocess

import oracle
from harness import MergenTest


class CommandLine(MergenTest):
    def mergend(self, *arguments):
        return subprocess.run([self.server.build.mergend, *arguments], env=self.server.environment(), capture_output=True,
                              text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)

    def test_a_second_server_on_the_same_folders_is_refused_and_told_the_holder(self):
        done = self.mergend("--config", self.server.configuration)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(str(self.server.pid), done.stdout + done.stderr)
        self.assertEqual(self.server.api.get("/healthz"), {"status": "ok"})

    def test_check_config_touches_nothing_and_refuses_an_unknown_key_by_line(self):
        self.server.drain()
        before = self.snapshot_with_files(contents=True)
        done = self.mergend("--config", self.server.configuration, "--check-config")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        wrong = self.server.configuration + ".wrong"
        with open(self.server.configuration, encoding="utf-8") as file:
            lines = file.read().splitlines()
        number = lines.index("[paths]") + 1
        lines.insert(number, "config_rot = /nowhere")
        with open(wrong, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        done = self.mergend("--config", wrong, "--check-config")
        self.assertNotEqual(done.returncode, 0)
        said = done.stdout + done.stderr
        for words in (f"{wrong}:{number + 1}", "config_rot", "config_root"):
            self.assertIn(words, said)
        self.assertEqual(oracle.differences(before, self.snapshot_with_files(contents=True)), [])

    def test_list_plugins_names_every_backend(self):
        done = self.mergend("--config", self.server.configuration, "--list-plugins")
        self.assertEqual(done.returncode, 0, done.stderr)
        for kind, name in (("storage", "files"), ("storage", "memory"), ("supervisor", "process"), ("network", "linux"),
                           ("network", "stub"), ("vmm", "qemu")):
            rows = [line.split() for line in done.stdout.splitlines()]
            self.assertTrue(any(kind in row and name in row for row in rows), f"{kind}/{name}:\n{done.stdout}")
        self.assertEqual(self.mergend("--version").returncode, 0)

    def test_a_server_that_cannot_start_leaves_nothing(self):
        self.server.drain()
        before = self.snapshot_with_files()
        busy = self.server.configuration + ".bad"
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with open(self.server.configuration, encoding="utf-8") as source, open(busy, "w", encoding="utf-8") as target:
                target.write(source.read().replace("listen = 127.0.0.1:0", f"listen = 127.0.0.1:{port}"))
            done = self.mergend("--config", busy)  # gets as far as the very last step of a start
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(str(port), done.stdout + done.stderr)
        self.assertEqual(oracle.differences(before, self.snapshot_with_files()), [])
