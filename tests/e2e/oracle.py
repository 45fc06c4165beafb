#!/usr/bin/python3
"""The leak oracle: what is on this host that a VM manager could leave behind, without asking the manager.

    oracle.py snapshot FILE [--root PATH]... [--mark TEXT]...
    oracle.py compare  FILE [--root PATH]... [--mark TEXT]...     exit status 1 and one line per difference

A snapshot is made of sections (links, routes, processes, ...), each a map from what a thing is called to what it looks
like, read from /proc, ip, nft and the file system. Values hold only what stays the same while nobody acts: no
counters, no lifetimes, no operational states, nothing that the kernel adds by itself some time later.

Whole host or private network: links, addresses, routes, rules, filter rules, mounts, named namespaces and network
sysctls are taken whole. Processes and sockets are taken whole only with `everything`, which a test may ask for because
it runs in a network namespace of its own. Elsewhere a process counts if a root or a mark is in its argument list, and a
socket if such a process has it or its path has one.
"""

import argparse
import difflib
import hashlib
import json
import os
import stat
import subprocess
import sys
import time

NETNS_DIR = "/run/netns"
HASH_LIMIT = 1 << 20

# Of /proc/sys/net: what a manager of VMs may be tempted to turn and must give back.
GLOBAL_SYSCTLS = ("net/ipv4/ip_forward", "net/ipv4/ip_nonlocal_bind", "net/ipv6/conf/all/forwarding",
                  "net/bridge/bridge-nf-call-iptables")
PER_LINK_SYSCTLS = ("accept_local", "accept_redirects", "arp_ignore", "forwarding", "proxy_arp", "route_localnet",
                    "rp_filter", "send_redirects")


class OracleError(Exception):
    """The host could not be looked at: no verdict, which is not the same as a clean one."""


def _run(arguments, namespace=None):
    if namespace is not None:
        arguments = ["nsenter", f"--net={namespace}", "--", *arguments]
    done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode != 0:
        raise OracleError(f"{' '.join(arguments)}: exit status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _ip(namespace, *words):
    text = _run(["ip", "-j", *words], namespace)
    return json.loads(text) if text.strip() else []


def _words(entry, *names):
    """The named members of an ip object as "name=value", absent ones left out."""
    return " ".join(f"{name}={entry[name]}" for name in names if entry.get(name) not in (None, "", []))


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def _link(path):
    try:
        return os.readlink(path)
    except OSError:
        return None


class Snapshot:
    """Reads the host at construction."""

    def __init__(self, roots=(), marks=(), everything=False, contents=False):
        self._roots = [os.path.realpath(root) for root in roots]
        self._marks = [*self._roots, *marks]
        self._everything = everything
        self._contents = contents
        self.sections = {}
        own = _link("/proc/self/ns/net")
        named = {}
        self._section("network namespaces", self._named_namespaces(named))
        for label, namespace in [("host", None), *((f"netns {name}", path) for name, path in sorted(named.items()))]:
            self._look_at_network(label, namespace)
        inside = {own, *(f"net:[{os.stat(path).st_ino}]" for path in named.values())}
        processes, pids = self._processes(inside)
        self._section("processes", processes)
        self._inodes = None if everything else _sockets_of(pids)
        self._look_at_sockets("host", "/proc/self/net")
        for name, path in sorted(named.items()):
            self._look_at_sockets(f"netns {name}", None, path)
        self._anonymous_namespaces(pids, inside)
        self._section("mounts", self._mounts())
        self._section("sysctls", self._sysctls())
        for root in self._roots:
            self._section("files", self._files(root))

    def _section(self, name, entries):
        self.sections.setdefault(name, {}).update(entries)

    @staticmethod
    def _named_namespaces(named):
        entries = {}
        try:
            names = sorted(os.listdir(NETNS_DIR))
        except FileNotFoundError:
            return entries
        for name in names:
            path = os.path.join(NETNS_DIR, name)
            try:
                is_namespace = os.statvfs(path).f_bsize and _is_nsfs(path)
            except OSError as error:
                entries[name] = f"unreadable: {error.strerror}"
                continue
            entries[name] = "namespace" if is_namespace else "a plain file, no namespace is mounted on it"
            if is_namespace:
                named[name] = path
        return entries

    def _look_at_network(self, label, namespace):
        links, addresses = {}, {}
        for link in _ip(namespace, "-d", "addr", "show"):
            name = f"{label}: {link['ifname']}"
            kind = link.get("linkinfo", {}).get("info_kind", "")
            links[name] = (f"kind={kind or link.get('link_type')} index={link['ifindex']} " +
                           _words(link, "ifalias", "mtu", "master", "address", "link"))
            for address in link.get("addr_info", []):
                # The kernel gives every link one of these when it gets a carrier.
                if address["family"] == "inet6" and address.get("scope") == "link":
                    continue
                addresses[f"{name} {address['local']}/{address['prefixlen']}"] = _words(address, "scope", "address")
        self._section("links", links)
        self._section("addresses", addresses)

        routes = {}
        for family in ("-4", "-6"):
            for route in _ip(namespace, family, "route", "show", "table", "all"):
                if family == "-6" and route.get("protocol") == "kernel":
                    continue
                key = _words(route, "type", "dst", "gateway", "dev", "table", "metric", "nexthops")
                routes[f"{label}: {key}"] = _words(route, "scope", "prefsrc", "protocol") + " ".join(
                    flag for flag in route.get("flags", []) if flag in ("onlink", "pervasive"))
            for rule in _ip(namespace, family, "rule", "show"):
                self._section("routing rules", {f"{label}: {family} {json.dumps(rule, sort_keys=True)}": ""})
            for entry in _ip(namespace, family, "neigh", "show", "nud", "permanent"):
                self._section("neighbours", {f"{label}: {entry['dst']} dev {entry.get('dev')}":
                                             str(entry.get("lladdr"))})
        self._section("routes", routes)
        self._section("filter rules", {f"{label}: {table}": text
                                       for table, text in _tables(_run(["nft", "-s", "list", "ruleset"], namespace))})

    def _processes(self, inside):
        """Processes of interest, and their pids."""
        found = {}
        zombies = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            status = _read(f"/proc/{entry}/stat")
            if status is None:
                continue
            comm, fields = status[status.index(b"(") + 1:status.rindex(b")")], status[status.rindex(b")") + 2:].split()
            if fields[0] == b"Z":
                zombies.append((entry, fields[1].decode(), comm.decode(errors="replace")))
                continue
            arguments = (_read(f"/proc/{entry}/cmdline") or b"").replace(b"\0", b" ").decode(errors="replace").strip()
            places = [_link(f"/proc/{entry}/{name}") or "" for name in ("cwd", "root")]
            ours = any(mark in arguments for mark in self._marks) or any(
                place == root or place.startswith(root + "/") for place in places for root in self._roots)
            if self._everything and not ours:
                ours = _link(f"/proc/{entry}/ns/net") in inside
            if ours and int(entry) != os.getpid():
                found[entry] = (comm.decode(errors="replace"), arguments)
        entries = {f"{pid} {comm}": arguments for pid, (comm, arguments) in found.items()}
        for pid, parent, comm in zombies:
            if parent in found:
                entries[f"{pid} {comm}"] = f"zombie, never waited for by {parent} {found[parent][0]}"
        return entries, found

    def _anonymous_namespaces(self, pids, inside):
        for pid in pids:
            namespace = _link(f"/proc/{pid}/ns/net")
            if namespace and namespace not in inside:
                self._section("network namespaces", {f"without a name, {namespace}": f"of process {pid}"})

    def _look_at_sockets(self, label, directory, namespace=None):
        sockets = {}
        for name in ("tcp", "tcp6", "udp", "udp6", "unix"):
            text = (_read(f"{directory}/{name}") or b"").decode(errors="replace") if directory else _run(
                ["cat", f"/proc/self/net/{name}"], namespace)
            for line in text.splitlines()[1:]:
                fields = line.split()
                if name == "unix":
                    listening = int(fields[3], 16) & 0x10000  # __SO_ACCEPTCON
                    path = fields[7] if len(fields) > 7 else ""
                    if listening and path and (self._everything or any(mark in path for mark in self._marks)):
                        sockets[f"{label}: unix {path}"] = "listening"
                elif fields[3] == ("0A" if name.startswith("tcp") else "07") and (
                        self._inodes is None or fields[9] in self._inodes):
                    sockets[f"{label}: {name} {_endpoint(fields[1])}"] = "listening"
        self._section("sockets", sockets)

    @staticmethod
    def _mounts():
        entries = {}
        for line in (_read("/proc/self/mountinfo") or b"").decode(errors="replace").splitlines():
            before, _, after = line.partition(" - ")
            fields, kind = before.split(), after.split()
            key = fields[4]
            # The folder mounted on itself, so that names in it spread to other mount namespaces: whoever makes the first
            # named namespace on a host makes it, as `ip netns add` does, and it stays, as others may use it by then.
            if key == NETNS_DIR:
                continue
            while key in entries:
                key += " (again)"
            entries[key] = f"{kind[0]} {fields[3]}" if kind[0] != "nsfs" else "nsfs"
        return entries

    @staticmethod
    def _sysctls():
        entries = {}
        paths = list(GLOBAL_SYSCTLS)
        base = "/proc/sys/net/ipv4/conf"
        for link in sorted(os.listdir(base)):
            paths += [f"net/ipv4/conf/{link}/{name}" for name in PER_LINK_SYSCTLS]
        for path in paths:
            value = _read(f"/proc/sys/{path}")
            if value is not None:
                entries[path] = value.decode().strip()
        return entries

    def _files(self, root):
        entries = {}
        for folder, folders, files in os.walk(root):
            for name in folders + files:
                path = os.path.join(folder, name)
                try:
                    info = os.lstat(path)
                except FileNotFoundError:
                    continue
                text = f"{stat.filemode(info.st_mode)} {info.st_uid}:{info.st_gid}"
                if stat.S_ISLNK(info.st_mode):
                    text += f" -> {_link(path)}"
                elif self._contents and stat.S_ISREG(info.st_mode):
                    text += f" {info.st_size} bytes"
                    if info.st_size <= HASH_LIMIT:
                        text += " " + hashlib.sha256(_read(path) or b"").hexdigest()[:16]
                entries[path] = text
        return entries


def _is_nsfs(path):
    # NSFS_MAGIC is not in statvfs; an nsfs file lies on another device than its folder and has no size.
    return os.stat(path).st_dev != os.stat(os.path.dirname(path)).st_dev


def _sockets_of(pids):
    """Inodes of the sockets that these processes have open, as /proc/net/tcp writes them."""
    links = (_link(f"/proc/{pid}/fd/{fd}") or "" for pid in pids for fd in _list(f"/proc/{pid}/fd"))
    return {link[len("socket:["):-1] for link in links if link.startswith("socket:[")}


def _list(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _endpoint(text):
    address, port = text.split(":")
    if len(address) == 8:
        address = ".".join(str(byte) for byte in reversed(bytes.fromhex(address)))
    return f"{address}:{int(port, 16)}"


def _tables(ruleset):
    """Splits the output of `nft list ruleset` into (table's name, text)."""
    name, lines = None, []
    for line in ruleset.splitlines():
        if line.startswith("table "):
            name, lines = line.rstrip(" {"), []
        lines.append(line)
        if line == "}" and name:
            yield name, "\n".join(lines)
            name = None


def differences(before, after):
    """Readable lines, none if both are the same: '+' what is new, '-' what is gone, '~' what looks different."""
    lines = []
    for section in {**before, **after}:
        old, new = before.get(section, {}), after.get(section, {})
        for key in sorted({*old, *new}):
            if key not in old:
                lines.append(f"+ {section}: {key}  {_indented(new[key])}")
            elif key not in new:
                lines.append(f"- {section}: {key}  {_indented(old[key])}")
            elif old[key] != new[key]:
                if "\n" in old[key]:
                    changed = [line for line in difflib.unified_diff(old[key].splitlines(), new[key].splitlines(), n=0)
                               if not line.startswith(("---", "+++", "@@"))]
                    lines.append(f"~ {section}: {key}" + "".join("\n      " + line for line in changed))
                else:
                    lines.append(f"~ {section}: {key}  {old[key]}  ->  {new[key]}")
    return lines


def _indented(text):
    return text.replace("\n", "\n      ")


def without(sections, prefix):
    """`sections` without the folder `prefix` and the files below it."""
    return {name: {key: value for key, value in entries.items()
                   if name != "files" or not f"{key}/".startswith(prefix.rstrip("/") + "/")}
            for name, entries in sections.items()}


def compare_when_settled(before, take, seconds=2.0):
    """Differences between `before` and take(), asked again for a moment: the kernel frees some things (a dying process, a
    socket's port) shortly after the call that ended them has returned. A leak stays."""
    deadline = time.monotonic() + seconds
    while True:
        lines = differences(before, take())
        if not lines or time.monotonic() > deadline:
            return lines
        time.sleep(0.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("snapshot", "compare"))
    parser.add_argument("file")
    parser.add_argument("--root", action="append", default=[], help="files below it count, and processes that name it")
    parser.add_argument("--mark", action="append", default=[], help="processes and sockets that name it count")
    options = parser.parse_args()

    def take():
        return Snapshot(options.root, options.mark).sections

    try:
        if options.action == "snapshot":
            with open(options.file, "w", encoding="utf-8") as file:
                json.dump(take(), file, indent=1, sort_keys=True)
            return 0
        with open(options.file, encoding="utf-8") as file:
            before = json.load(file)
        lines = compare_when_settled(before, take)
    except OracleError as error:
        print(f"oracle: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines) if lines else "no difference")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
