"""A host whose processor and huge pages are made up, for the servers that a test starts: mounts over the kernel's own files,
in the mount namespace of the story alone."""

import os
import subprocess
import tempfile

CPU_INFO = "/proc/cpuinfo"
MEMORY = "/sys/kernel/mm"
POOL = os.path.join(MEMORY, "hugepages", "hugepages-2048kB")
COUNTERS = ("nr_hugepages", "free_hugepages", "resv_hugepages", "surplus_hugepages", "nr_overcommit_hugepages")


class MadeUpHost:
    """`vendor`: of the processor, as /proc/cpuinfo names it. Its pool of huge pages is empty, until give_pages()."""

    def __init__(self, vendor):
        with tempfile.NamedTemporaryFile(prefix="mergen-cpuinfo.", dir="/run") as file:
            subprocess.run(["mount", "--bind", file.name, CPU_INFO], check=True)  # which needs the name no longer
        self.set_vendor(vendor)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", MEMORY], check=True)
        os.makedirs(POOL)
        self.give_pages(0)

    @staticmethod
    def set_vendor(vendor):
        """For servers that start from now on."""
        with open(CPU_INFO, "w", encoding="ascii") as file:
            file.write(f"processor\t: 0\nvendor_id\t: {vendor}\n\n")

    def give_pages(self, number, free=None):
        """The pool has so many from now on, of which `free` are free; by default all."""
        for counter in COUNTERS:
            value = {"nr_hugepages": number, "free_hugepages": number if free is None else free}.get(counter, 0)
            with open(os.path.join(POOL, counter), "w", encoding="ascii") as file:
                file.write(f"{value}\n")

    @staticmethod
    def lose_pages():
        """The kernel is one that knows no pages of 2 MiB."""
        for counter in COUNTERS:
            os.unlink(os.path.join(POOL, counter))
        os.rmdir(POOL)

    @staticmethod
    def remove():
        for place in (MEMORY, CPU_INFO):
            subprocess.run(["umount", place], check=True)
