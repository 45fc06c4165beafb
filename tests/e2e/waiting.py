"""Waiting without sleeping blindly."""

import ctypes
import os
import select
import time

_libc = ctypes.CDLL(None, use_errno=True)
_IN_MODIFY, _IN_CLOSE_WRITE, _IN_MOVED, _IN_CREATE, _IN_DELETE = 0x2, 0x8, 0xC0, 0x100, 0x200


class Watch:
    """Tells when something changes in some folders (inotify(7)); folders that do not exist are left out."""

    def __init__(self, *folders):
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        for folder in folders:
            _libc.inotify_add_watch(self._fd, os.fsencode(folder),
                                    _IN_MODIFY | _IN_CLOSE_WRITE | _IN_MOVED | _IN_CREATE | _IN_DELETE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._fd)

    def wait(self, seconds):
        """Returns at the next change, or after `seconds`."""
        readable, _, _ = select.select([self._fd], [], [], seconds)
        if readable:
            os.read(self._fd, 1 << 16)


def eventually(question, what, folders=(), seconds=60):
    """The first true answer of `question`, which is asked again whenever one of `folders` changes, and a few times a
    second for what no folder shows. `what` says in the failure what was waited for."""
    deadline = time.monotonic() + seconds
    with Watch(*folders) as watch:
        while True:
            answer = question()
            if answer:
                return answer
            left = deadline - time.monotonic()
            if left <= 0:
                raise AssertionError(f"not within {seconds} s: {what}")
            watch.wait(min(left, 0.2))


def read_until(text, stream, what, seconds=60):
    """What the unbuffered `stream` of a process gives, until it has given `text`. `what` says in the failure who prints."""
    deadline = time.monotonic() + seconds
    got = b""
    while text.encode() not in got:
        readable, _, _ = select.select([stream], [], [], max(0, deadline - time.monotonic()))
        piece = os.read(stream.fileno(), 1 << 16) if readable else b""
        if not piece:
            why = "before it ended" if readable else f"within {seconds} s"
            raise AssertionError(f"no '{text}' from {what} {why}, after:\n{got.decode(errors='replace')}")
        got += piece
    return got.decode(errors="replace")


def wait_for_end(pidfd, seconds, what):
    """Waits until the process of `pidfd` has ended."""
    readable, _, _ = select.select([pidfd], [], [], seconds)
    if not readable:
        raise AssertionError(f"not within {seconds} s: {what}")


def start_time(pid):
    """When the process began, in clock ticks after boot: with the pid, who it is. Nothing if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rsplit(b")", 1)[1].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None
