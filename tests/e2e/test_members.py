"""Every member of a create request, from the body to the files and back."""

import json
import os
import stat
import subprocess

from harness import MergenTest

# What a shell, as root, must read as text and nothing else (W8).
NASTY = {"QUOTE": "it's", "DOLLAR": "$(touch pwned) `touch pwned` $HOME", "SPACES": "  a  b  ", "EMPTY": "",
         "BACKSLASH": "a\\nb\\", "SEMICOLON": "a;touch pwned;#", "DOUBLE": '"', "_under": "é 😀", "TAB": "a\tb",
         "STAR": "*", "ALL": "'\"\\$`;|&<>(){}[]*?~!#"}


class Members(MergenTest):
    def test_every_member_is_kept_and_its_files_are_true(self):
        marker = os.path.join(self.server.images, "hook-was-run")
        hook = {"type": "exec", "cmd": ["/usr/bin/touch", marker], "timeoutMs": 1000, "strict": True}
        hooks = {event: [hook] for event in ("onCreate", "onStart", "onStop", "onDelete")}
        metadata = {"team": "a", "list": [1, 2.5, None, True, {"deep": {}}], "big": 9007199254740993, "é": "ü"}
        tags = {"app": "shop", "host": "a.example", "é": ""}
        vm = self.create(id="full", name="Full 1", vcpu=2, memMiB=200, httpPort=80, metadata=metadata, tags=tags,
                         hooks=hooks, extraEnv=NASTY, bootArgs="console=ttyS0 reboot=k panic=1 mergen.own-word",
                         ports=[{"guest": 80, "host": 0}, {"guest": 53, "host": 21053, "protocol": "tcp"}])
        view = vm.view()
        self.assertEqual((view["id"], view["name"], view["vcpu"], view["memMiB"], view["httpPort"]),
                         ("full", "Full 1", 2, 200, 80))
        self.assertEqual((view["metadata"], view["tags"]), (metadata, tags))
        self.assertIn("mergen.own-word", view["bootArgs"])
        self.assertIn("ip=" + vm.address(), view["bootArgs"])

        paths = view["paths"]
        for name in ("metaPath", "vmConfigPath", "hooksPath", "envPath"):
            self.assertEqual(stat.S_IMODE(os.stat(paths[name]).st_mode), 0o640, name)
        with open(paths["hooksPath"], encoding="utf-8") as file:
            text = file.read()
        self.assertEqual(json.loads(text), hooks)
        self.assertTrue(text.startswith("{\n  ") and text.endswith("}\n"), text)
        with open(paths["metaPath"], encoding="utf-8") as file:
            meta = json.load(file)
        self.assertEqual((meta["metadata"], meta["tags"], meta["hooks"]), (metadata, tags, hooks))
        self.assert_shell_reads(paths["envPath"], {
            **NASTY, "MGN_VM_ID": "full", "MGN_HOOKS_JSON": paths["hooksPath"], "MGN_GUEST_IP": vm.address(),
            "MGN_SOCKET_PATH": paths["socketPath"], "MGN_HTTP_PORT": "80", "MGN_PUBLISH_53": "21053/tcp"})
        self.assertTrue(any("hooks" in (event["cause"] or "") for event in vm.events()), vm.events())

        vm.start()
        self.assertIn("nothing runs them", " ".join(event["cause"] or "" for event in vm.events()))
        self.server.kill()
        self.server.start()
        again = vm.view()
        self.assertEqual({key: again[key] for key in ("name", "metadata", "tags", "bootArgs", "network", "vcpu", "memMiB")},
                         {key: view[key] for key in ("name", "metadata", "tags", "bootArgs", "network", "vcpu", "memMiB")})
        self.assert_shell_reads(paths["envPath"], NASTY)
        vm.stop()
        vm.delete()
        self.assertFalse(os.path.exists(marker), "hooks are kept, not run")

    def assert_shell_reads(self, path, expected):
        """A shell that sources the file has these variables, and nothing else has happened."""
        folder = os.path.join(self.server.folder, "shell")
        os.makedirs(folder, exist_ok=True)
        done = subprocess.run(["/bin/sh", "-euc", f'set -a; . "{path}"; exec /usr/bin/env -0'], cwd=folder, env={},
                              capture_output=True, check=True)
        self.assertEqual((done.stderr, os.listdir(folder)), (b"", []))
        read = dict(entry.split("=", 1) for entry in done.stdout.decode().split("\0") if entry)
        self.assertEqual({name: read.get(name) for name in expected}, expected)
        names = [line.split("=", 1)[0] for line in open(path, encoding="utf-8").read().splitlines()]
        self.assertEqual(names, sorted(names))

    def test_files_and_folders_lie_where_mergen_fire_has_them(self):
        hooks = {"onStart": []}
        vm = self.create_and_start(hooks=hooks)
        config, data, run = (os.path.join(root, vm.id) for root in
                             (self.server.config_root, self.server.data_root, self.server.run_root))
        self.assertEqual(sorted(os.listdir(config)), ["env", "hooks.json", "meta.json", "vm.json"])
        self.assertTrue(stat.S_ISSOCK(os.stat(os.path.join(run, "mergen.socket")).st_mode))
        mode = lambda path: stat.S_IMODE(os.stat(path).st_mode)
        for folder in (config, data, os.path.join(data, "logs")):
            self.assertEqual(mode(folder), 0o750, folder)
        for file in (run + ".lock", *(os.path.join(config, name) for name in os.listdir(config))):
            self.assertEqual(mode(file), 0o640, file)
        # Of what is in it, the VM's own user needs all and nobody else anything.
        self.assertEqual(mode(run), 0o700)
        paths = vm.view()["paths"]
        self.assertEqual((paths["configDir"], paths["dataDir"], paths["runDir"], paths["lockPath"]),
                         (config, data, run, run + ".lock"))
        vm.delete()
        for path in (config, data, run, run + ".lock"):
            self.assertFalse(os.path.exists(path), path)

    def test_a_vm_without_hooks_has_no_hooks_file(self):
        vm = self.create()
        self.assertFalse(os.path.exists(vm.view()["paths"]["hooksPath"]))
        vm.delete()
