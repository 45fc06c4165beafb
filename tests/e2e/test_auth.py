"""Who may talk to the API: tokens, the unix socket, addresses; mergend itself, as an operator configures it."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile

import harness
from api import Api
from harness import Elsewhere, MergenTest

HERE_ADDRESS = Elsewhere.HERE
NOBODY = 65534


class AuthTest(MergenTest):
    """A server that touches nothing of the host, with a token file where `names` is not empty."""

    backends = {"storage": "memory", "network": "stub"}
    server_section = {}
    names = ()

    def setUp(self):
        self.secrets = tempfile.mkdtemp(prefix="mergen-auth.", dir="/var/tmp")
        self.addCleanup(shutil.rmtree, self.secrets, ignore_errors=True)
        self.token_file = os.path.join(self.secrets, "tokens")
        self.made = {}
        section = dict(self.server_section)
        if self.names:
            self.write_tokens(*self.names)
            section["token_file"] = self.token_file
            self.token = self.made[self.names[0]][0]
        self.settings = {"server": section}
        super().setUp()

    def mergend(self, *arguments):
        return subprocess.run([harness.BUILD.mergend, *arguments], capture_output=True, text=True, timeout=120, check=False,
                              stdin=subprocess.DEVNULL)

    def token_of(self, name):
        """The token of this name, made when it is first asked for."""
        if name not in self.made:
            done = self.mergend("--new-token", name)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.made[name] = done.stdout.splitlines()
            self.assertEqual(len(self.made[name]), 2)
        return self.made[name][0]

    def write_tokens(self, *names, mode=0o600, more=""):
        for name in names:
            self.token_of(name)
        with open(self.token_file, "w", encoding="ascii") as file:
            file.write("# for tests\n" + "".join(self.made[name][1] + "\n" for name in names) + more)
        os.chmod(self.token_file, mode)

    def status(self, name=None, method="GET", path="/v1/vms", body=None, headers=None):
        """The status of one request over TCP with the token of that name, or without one."""
        api = self.server.api.with_token(self.token_of(name) if name else None)
        return api.request(method, path, body, headers).status

    def as_nobody(self, path, group):
        """What a process of another user, in `group`, meets when it connects to the socket."""
        script = ("import socket, sys\n"
                  "try:\n socket.socket(socket.AF_UNIX).connect(sys.argv[1]); print('connected')\n"
                  "except PermissionError: print('denied')\n")
        done = subprocess.run(["/usr/bin/python3", "-c", script, path], capture_output=True, text=True, timeout=60,
                              check=True, user=NOBODY, group=group, extra_groups=[])
        return done.stdout.strip()


class Tokens(AuthTest):
    names = ("ops", "ci")

    def test_every_request_over_tcp_needs_one_of_the_tokens(self):
        self.assertEqual(self.status(), 401)
        self.assertEqual(self.status("ops"), 200)
        self.assertEqual(self.status("ci"), 200)
        self.assertEqual(self.status("stranger"), 401)
        for value in (self.token_of("ops"), f"Basic {self.token_of('ops')}", f"Bearer {self.token_of('ops')[:-1]}",
                      "Bearer", "Bearer " + self.made["ops"][1]):
            self.assertEqual(self.status(headers={"Authorization": value}), 401, value)
        self.assertEqual(self.status(path=f"/v1/vms?access_token={self.token_of('ops')}"), 401)
        self.assertEqual(self.status("ops", headers={"X-Long": "a" * 20000}), 431)
        self.assertEqual(self.status(headers={"Authorization": "Bearer " + "A" * 15000}), 401)
        self.assertEqual(self.status(path="/healthz"), 200)
        self.assertEqual(self.status(path="/readyz"), 401)

    def test_a_401_changes_nothing(self):
        vm = self.create()
        for method, path, body in (("POST", "/v1/vms", self.body(id="other")), ("POST", f"/v1/vms/{vm.id}/start", None),
                                   ("POST", f"/v1/vms/{vm.id}/stop", None), ("DELETE", f"/v1/vms/{vm.id}", None),
                                   ("GET", f"/v1/vms/{vm.id}", None), ("HEAD", f"/v1/vms/{vm.id}", None),
                                   ("GET", f"/v1/vms/{vm.id}/console", None)):
            before = self.server.api.get(f"/v1/vms/{vm.id}/events"), self.server.api.list()
            reply = self.server.api.with_token(self.token_of("stranger")).request(method, path, body)
            self.assertEqual(reply.status, 401, str(reply))
            self.assertEqual(reply.headers["www-authenticate"], "Bearer")
            if method != "HEAD":
                self.assertEqual(reply.headers["content-type"], "application/problem+json")
                self.assertEqual(reply.json["error"], "unauthorized")
            self.assertEqual((self.server.api.get(f"/v1/vms/{vm.id}/events"), self.server.api.list()), before, path)

    def test_the_log_and_the_timeline_name_who_asked_and_no_token(self):
        vm = self.create()
        local = Api(self.server.socket)
        local.expect(200, "POST", f"/v1/vms/{vm.id}/stop")
        events = self.server.api.get(f"/v1/vms/{vm.id}/events")["items"]
        self.assertEqual({event["by"] for event in events if event["operation"] == "create" and event["step"]}, {"token:ops"})
        self.status("stranger", path=f"/v1/vms?token={self.token_of('stranger')}")
        self.status(headers={"Authorization": f"Bearer {self.token_of('stranger')}"})
        local.expect(200, "DELETE", f"/v1/vms/{vm.id}")
        self.server.drain()
        log = self.server.log()
        self.assertIn("by=token:ops", log)
        self.assertIn("by=uid:0", log)
        self.assertIn("api.unauthorized", log)
        for name in self.made:
            self.assertNotIn(self.token_of(name)[7:20], log)
            self.assertNotIn(self.made[name][1].split(":")[2], log)

    def test_many_failures_are_counted_and_do_not_flood_the_log(self):
        for _ in range(300):
            self.assertEqual(self.status("stranger"), 401)
        detail = next(one["detail"] for one in self.server.api.get("/readyz")["components"] if one["name"] == "access")
        self.assertIn("refused for lack of a valid token so far: 300", detail)
        self.assertLess(self.server.log().count("api.unauthorized"), 300)
        self.assertEqual(self.status("ops"), 200)

    def test_sighup_lets_new_tokens_in_and_withdrawn_ones_no_more(self):
        self.write_tokens("ops", "new")
        self.assertEqual(self.status("ci"), 200, "before SIGHUP the old ones count")
        self.assertEqual(self.status("new"), 401)
        self.server.reload_tokens()
        self.assertEqual(self.status("ci"), 401)
        self.assertEqual(self.status("new"), 200)
        self.assertEqual(self.status("ops"), 200)
        self.assertIn("api.tokens.reloaded", self.server.log())

    def test_a_token_file_that_cannot_be_used_keeps_the_old_tokens(self):
        def unlink():
            os.unlink(self.token_file)

        def make_directory():
            unlink()
            os.mkdir(self.token_file)

        for spoil, words in (
                (lambda: self.write_tokens("new", more="nonsense\n"), "line 3 is not of the form NAME:sha256:HEX"),
                (lambda: self.write_tokens("new", mode=0o644), "can be read by others"),
                (lambda: self.write_tokens("new", more="#" * 70000), "larger than 65536 bytes"),
                (unlink, "No such file"),
                (lambda: os.symlink("/dev/null", self.token_file), "symbolic link"),
                (make_directory, "not a regular file")):
            spoil()
            self.server.reload_tokens()
            self.assertIn(words, self.server.log().rsplit("api.tokens.kept", 1)[-1])
            self.assertEqual(self.status("ops"), 200, words)
            self.assertEqual(self.status("new"), 401, words)
        os.rmdir(self.token_file)
        self.write_tokens("new", "ops")
        self.server.reload_tokens()
        self.assertEqual(self.status("new"), 200)

    def test_a_token_file_without_tokens_withdraws_the_last_one(self):
        self.write_tokens()
        self.server.reload_tokens()
        self.assertEqual(self.status("ops"), 401)
        self.assertIn("no request over TCP is let in any more", self.server.log())
        self.assertEqual(Api(self.server.socket).request("GET", "/v1/vms").status, 200)
        self.write_tokens("ops")
        self.server.reload_tokens()
        self.assertEqual(self.status("ops"), 200)

    def test_a_new_token_is_printed_and_kept_nowhere(self):
        before = self.snapshot_with_files(contents=True)
        one, other = self.mergend("--new-token", "x"), self.mergend("--new-token", "x")
        self.assertRegex(one.stdout, r"\Amergen_[A-Za-z0-9_-]{43}\nx:sha256:[0-9a-f]{64}\n\Z")
        self.assertNotEqual(one.stdout, other.stdout)
        self.assertEqual(self.snapshot_with_files(contents=True)["files"], before["files"])
        for name in ("", "a b", "a:b"):
            done = self.mergend(f"--new-token={name}")
            self.assertEqual(done.returncode, 2, name)
            self.assertEqual(done.stdout, "")


class Socket(AuthTest):
    server_section = {"socket_group": str(NOBODY - 1)}

    def test_it_serves_a_whole_life_without_a_token(self):
        self.assertEqual(os.stat(self.server.socket).st_mode & 0o7777, 0o660)
        self.assertEqual((os.stat(self.server.socket).st_uid, os.stat(self.server.socket).st_gid), (0, NOBODY - 1))
        local = Api(self.server.socket)
        vm = local.create(self.body())
        self.assertEqual([one["id"] for one in local.list()], [vm])
        events = local.get(f"/v1/vms/{vm}/events")["items"]
        self.assertEqual({event["by"] for event in events if event["step"]}, {"uid:0"})
        local.expect(200, "DELETE", f"/v1/vms/{vm}")

    def test_curl_speaks_to_it(self):
        if not shutil.which("curl"):
            self.skipTest("needs curl")
        done = subprocess.run(["curl", "-sS", "--fail", "--unix-socket", self.server.socket, "http://mergen/v1/vms"],
                              capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stdout), (0, '{"items":[]}'), done.stderr)

    def test_another_user_connects_only_as_member_of_its_group(self):
        self.assertEqual(self.as_nobody(self.server.socket, NOBODY), "denied")
        self.assertEqual(self.as_nobody(self.server.socket, NOBODY - 1), "connected")

    def test_it_goes_with_an_orderly_end_and_is_replaced_after_a_kill(self):
        self.server.drain()
        self.assertFalse(os.path.lexists(self.server.socket))
        self.server.start()
        self.server.kill()
        self.assertTrue(os.path.lexists(self.server.socket))
        self.server.start()
        self.assertEqual(Api(self.server.socket).request("GET", "/v1/vms").status, 200)

    def test_whatever_else_stands_there_is_refused_and_stays(self):
        self.server.drain()
        for make in (lambda path: open(path, "w", encoding="ascii").close(), os.mkdir, os.mkfifo,
                     lambda path: os.symlink("/nowhere", path)):
            make(self.server.socket)
            before = os.lstat(self.server.socket)
            with self.assertRaisesRegex(AssertionError, "something else stands there, and stays"):
                self.server.start()
            self.assertEqual(os.lstat(self.server.socket), before)
            (os.rmdir if os.path.isdir(self.server.socket) else os.unlink)(self.server.socket)
        self.server.start()

    def test_one_that_another_program_listens_on_is_left_to_it(self):
        self.server.drain()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(self.server.socket)
            other.listen(1)
            with self.assertRaisesRegex(AssertionError, "it is in use by another program"):
                self.server.start()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(self.server.socket)
        self.server.start()  # what the other has left behind is stale now


class Listening(AuthTest):
    """What starts and what is refused, and in which words, on a host that another one reaches."""

    def setUp(self):
        self.elsewhere = Elsewhere()
        self.addCleanup(self.elsewhere.remove)
        super().setUp()

    def configuration(self, section):
        """The server's own configuration with `section` over its [server]."""
        with open(self.server.configuration, encoding="utf-8") as file:
            lines = file.read().splitlines()
        keys = {"listen": "127.0.0.1:0", "port_file": os.path.join(self.server.folder, "port"), **section}
        begin, end = lines.index("[server]"), lines.index("[log]")
        lines[begin + 1:end] = [f"{key} = {value}" for key, value in keys.items()]
        path = os.path.join(self.server.folder, "other.ini")
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        return path

    def port(self):
        with open(os.path.join(self.server.folder, "port"), encoding="ascii") as file:
            return int(file.read())

    def test_what_is_refused_is_refused_by_line_with_what_to_do(self):
        self.write_tokens("ops")
        empty = os.path.join(self.secrets, "empty")
        with open(empty, "w", encoding="ascii"):
            os.chmod(empty, 0o600)
        reach = "can be reached from other hosts"
        for section, line, words in (
                ({"listen": "0.0.0.0:0"}, 2, (reach, "set token_file", "insecure = true")),
                ({"listen": "*:0"}, 2, (reach,)),
                ({"listen": "[::]:0"}, 2, (reach,)),
                ({"listen": f"{HERE_ADDRESS}:0"}, 2, (reach,)),
                ({"listen": "[2001:db8::1]:0", "insecure": "false"}, 2, (reach,)),
                ({"listen": "[::ffff:127.0.0.1]:0"}, 2, (reach,)),
                ({"listen": "example.org:80"}, 2, ("is no address, and names are not looked up",)),
                ({"listen": "0.0.0.0:0", "token_file": empty}, 4, ("holds no token", "mergend --new-token NAME")),
                ({"listen": ":0", "token_file": empty}, 4, ("holds no token",)),
                ({"token_file": os.path.join(self.secrets, "none")}, 4, ("No such file",)),
                ({"token_file": self.secrets}, 4, ("not a regular file",)),
                ({"listen": "", "port_file": "", "socket": ""}, 2, ("there is nothing to listen on",)),
                ({"socket": "/run/" + "s" * 103}, 4, ("108 bytes; at most 107",)),
                ({"socket_group": "no-such-group"}, 4, ("there is no group 'no-such-group' on this host",)),
                ({"socket_group": "4294967295"}, 4, ("is not the number of a group",))):
            path = self.configuration(section)
            for arguments in (("--check-config",), ()):
                done = self.mergend("--config", path, *arguments) if arguments else self.with_server_drained(path)
                said = done.stdout + done.stderr
                self.assertEqual(done.returncode, 1, f"{section}: {said}")
                self.assertIn(f"{path}:{line}: server.", said)
                for word in words:
                    self.assertIn(word, said, section)

    def with_server_drained(self, path):
        if self.server.pid is not None:
            self.server.drain()
        return self.mergend("--config", path)

    def start_with(self, section):
        """Starts the server with that [server] section, and gives what the log says of it."""
        if self.server.pid is not None:
            self.server.drain()
        before = len(self.server.log())
        self.server.configuration = self.configuration(section)
        self.server.start()
        return self.server.log()[before:]

    def test_what_starts_says_whom_it_serves(self):
        tokens = {"token_file": self.token_file}
        self.write_tokens("ops")
        loopback = ("api.loopback", "only this host is served")
        for section, words, open_to_others, needs_token in (
                ({}, loopback, False, False),
                ({"listen": ":0"}, (*loopback, "address=127.0.0.1:", "':PORT' and 'localhost:PORT' mean"), False, False),
                ({"listen": "localhost:0"}, loopback, False, False),
                ({"listen": "localhost:0", "insecure": "true"}, loopback, False, False),
                ({"listen": ":0", **tokens}, (*loopback, 'access="with a token"'), False, True),
                ({"listen": "*:0", **tokens}, ("api.cleartext", "travels unencrypted"), True, True),
                ({"listen": f"{HERE_ADDRESS}:0", **tokens}, ("api.cleartext",), True, True),
                ({"listen": "[::]:0", **tokens}, ("api.cleartext",), True, True),
                ({"listen": "0.0.0.0:0", "insecure": "true", **tokens}, ("api.cleartext",), True, True),
                ({"listen": "0.0.0.0:0", "insecure": "true"}, ("[WARN]", "api.insecure", "INSECURE"), True, False)):
            log = self.start_with(section)
            for word in words:
                self.assertIn(word, log, section)
            other = Api(self.port(), host=HERE_ADDRESS)
            if open_to_others:
                self.assertEqual(other.request("GET", "/v1/vms").status, 401 if needs_token else 200, section)
                self.assertEqual(other.with_token(self.token_of("ops")).request("GET", "/v1/vms").status, 200, section)
                self.server.api = other.with_token(self.token_of("ops"))
            else:
                with self.assertRaises(ConnectionRefusedError, msg=section):
                    other.request("GET", "/healthz")
                self.assertEqual(self.status(), 401 if needs_token else 200, section)
            local = Api(self.server.socket)
            detail = next(one["detail"] for one in local.get("/readyz")["components"] if one["name"] == "access")
            self.assertEqual("INSECURE" in detail, open_to_others and not needs_token, detail)
            self.assertEqual("from this host only" in detail, not open_to_others, detail)
        self.start_with({})
        self.assertEqual(self.status(), 200)

    def test_another_host_gets_in_with_a_token_only(self):
        self.write_tokens("ops")
        self.start_with({"listen": "*:0", "token_file": self.token_file})
        port = str(self.port())
        script = ("import http.client, sys\n"
                  "c = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=30)\n"
                  "c.request('GET', '/v1/vms', headers={'Authorization': sys.argv[3]})\n"
                  "print(c.getresponse().status)\n")

        def ask(authorization):
            done = subprocess.run(self.elsewhere.command(sys.executable, "-c", script, HERE_ADDRESS, port, authorization),
                                  capture_output=True, text=True, timeout=60, check=True)
            return int(done.stdout)

        self.assertEqual(ask("Bearer none"), 401)
        self.assertIn(f"peer={self.elsewhere.THERE}:", self.server.log())
        self.assertEqual(ask(f"Bearer {self.token_of('ops')}"), 200)
        self.start_with({"listen": ":0"})
        self.assertIsNone(self.elsewhere.connect(HERE_ADDRESS, self.port(), "/healthz"))

    def test_the_socket_may_be_the_only_way(self):
        self.server.drain()
        configuration = self.server.configuration
        path = os.path.join(self.server.run_root, "only.sock")
        self.server.configuration = self.configuration({"listen": "", "port_file": "", "socket": path})
        process = subprocess.Popen([harness.BUILD.mergend, "--config", self.server.configuration], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            line = next(line for line in process.stderr if " server.ready " in line)
            self.assertIn(f"unix:{path}", line)
            self.assertEqual(Api(path).request("GET", "/v1/vms").status, 200)
        finally:
            process.terminate()
            process.communicate(timeout=60)
        self.assertFalse(os.path.lexists(path))
        self.server.configuration = configuration
