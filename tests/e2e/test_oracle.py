"""The oracle itself: it sees what is planted, and nothing where nothing is."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest

import oracle
from waiting import eventually


def run(*arguments):
    subprocess.run(arguments, check=True)


class Oracle(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp(prefix="oracle.")
        self.addCleanup(shutil.rmtree, self.root)
        self.before = self.look()

    def look(self, **options):
        return oracle.Snapshot([self.root], everything=True, **options).sections

    def assert_seen(self, *words):
        lines = oracle.differences(self.before, self.look())
        for word in words:
            self.assertTrue(any(line.lstrip("+-~ ").startswith(word) for line in lines), f"{word} is not in {lines}")

    def test_sees_nothing_where_nothing_was_done(self):
        self.assertEqual(oracle.differences(self.before, self.look()), [])

    def test_sees_a_link_its_address_and_its_route(self):
        run("ip", "link", "add", "planted0", "type", "veth", "peer", "name", "planted1")
        self.addCleanup(run, "ip", "link", "del", "planted0")
        run("ip", "link", "set", "planted0", "alias", "mergen:x", "up")
        run("ip", "link", "set", "planted1", "up")
        run("ip", "addr", "add", "198.51.100.1/24", "dev", "planted0")
        self.assert_seen("links: host: planted0", "addresses: host: planted0 198.51.100.1/24", "routes: host: dst=198.51.100")

    def test_sees_a_namespace_what_is_in_it_and_its_empty_handle(self):
        run("ip", "netns", "add", "planted")
        self.addCleanup(run, "ip", "netns", "del", "planted")
        run("ip", "-n", "planted", "link", "add", "deep0", "type", "veth", "peer", "name", "deep1")
        with open("/run/netns/empty", "w", encoding="ascii"):
            pass
        self.addCleanup(os.unlink, "/run/netns/empty")
        self.assert_seen("network namespaces: planted  namespace", "links: netns planted: deep0",
                         "network namespaces: empty  a plain file")

    def test_sees_a_changed_filter_rule_by_its_line(self):
        run("nft", "add table inet planted { chain c { }; }")
        self.addCleanup(run, "nft", "delete table inet planted")
        self.assert_seen("filter rules: host: table inet planted")
        self.before = self.look()
        run("nft", "add rule inet planted c ip daddr 198.51.100.7 drop")
        lines = oracle.differences(self.before, self.look())
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("+\t\tip daddr 198.51.100.7 drop", lines[0])

    def test_sees_a_process_and_a_zombie(self):
        child = subprocess.Popen(["sh", "-c", "true & exec sleep 1000"])
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)

        def zombies():
            return [line for line in oracle.differences(self.before, self.look()) if f"never waited for by {child.pid}" in line]
        eventually(zombies, "a zombie among the processes")
        self.assert_seen(f"processes: {child.pid} sleep")

    def test_sees_listening_sockets(self):
        with socket.socket(socket.AF_UNIX) as local, socket.create_server(("127.0.0.1", 0)) as server:
            local.bind(os.path.join(self.root, "s"))
            local.listen()
            self.assert_seen(f"sockets: host: unix {self.root}/s", f"sockets: host: tcp 127.0.0.1:{server.getsockname()[1]}")

    def test_sees_only_marked_processes_and_their_sockets_where_others_work_too(self):
        before = oracle.Snapshot([self.root]).sections
        listen = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); sys.stdin.read()"
        ports = []
        for mark in ("foreign", self.root):
            child = subprocess.Popen([sys.executable, "-c", listen, mark], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self.addCleanup(child.communicate)
            ports.append(int(child.stdout.readline()))
        lines = oracle.differences(before, oracle.Snapshot([self.root]).sections)
        self.assertEqual([line.split(":")[0] for line in lines], ["+ processes", "+ sockets"], lines)
        self.assertIn(f"127.0.0.1:{ports[1]}", lines[1])

    def test_sees_files_their_mode_and_their_content(self):
        path = os.path.join(self.root, "file")
        with open(path, "w", encoding="ascii") as file:
            file.write("one")
        self.assert_seen(f"files: {path}")
        self.before = self.look(contents=True)
        with open(path, "w", encoding="ascii") as file:
            file.write("two")
        self.assertEqual(len(oracle.differences(self.before, self.look(contents=True))), 1)
        self.before = self.look()
        os.chmod(path, 0o600)
        self.assert_seen(f"files: {path}")

    def test_sees_mounts_and_sysctls(self):
        run("mount", "-t", "tmpfs", "tmpfs", self.root)
        self.addCleanup(run, "umount", self.root)
        with open("/proc/sys/net/ipv4/conf/lo/route_localnet", "w", encoding="ascii") as file:
            file.write("1")
        self.assert_seen(f"mounts: {self.root}", "sysctls: net/ipv4/conf/lo/route_localnet")
