#pragma once

#include <elf.h>
#include <string>

/// Kernels as far as anybody looks who does not run them.
namespace mergen::test {

/// What an ELF file of this machine begins with, up to what it is for.
inline std::string elfHead() {
    std::string head =
        "\x7f"
        "ELF";
    head.resize(20, '\0');
    head[EI_CLASS] = ELFCLASS64;
    head[EI_DATA] = ELFDATA2LSB;
    head[EI_VERSION] = EV_CURRENT;
    head[16] = ET_EXEC;
    head[18] = EM_X86_64;
    return head;
}

}  // namespace mergen::test
