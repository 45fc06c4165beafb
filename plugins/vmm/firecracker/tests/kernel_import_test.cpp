#include "kernel_import.hpp"

#include <cstdint>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <lzma.h>
#include <malloc.h>
#include <new>
#include <optional>
#include <random>
#include <string>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>
#include <zstd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "kernels.hpp"
#include "test_host.hpp"
#include "unpack.hpp"

namespace mergen::vmm {
namespace {

using test::gzip;
using test::lz4;
using test::lz4BlockBytes;
using test::number32;
using test::put32;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string xz(const std::string& content) {
    std::string packed(::lzma_stream_buffer_bound(content.size()), '\0');
    std::size_t size = 0;
    EXPECT_EQ(
        ::lzma_easy_buffer_encode(6, LZMA_CHECK_CRC32, nullptr, reinterpret_cast<const std::uint8_t*>(content.data()),
                                  content.size(), reinterpret_cast<std::uint8_t*>(packed.data()), &size, packed.size()),
        LZMA_OK);
    packed.resize(size);
    return packed;
}

std::string zstd(const std::string& content) {
    std::string packed(::ZSTD_compressBound(content.size()), '\0');
    const std::size_t size = ::ZSTD_compress(packed.data(), packed.size(), content.data(), content.size(), 3);
    EXPECT_EQ(::ZSTD_isError(size), 0U);
    packed.resize(size);
    return packed;
}

struct Compression {
    std::string name;
    std::function<std::string(const std::string&)> pack;
    bool appendsSize;  ///< the kernel's build writes the unpacked size after it
};

const std::vector<Compression>& compressions() {
    static const std::vector<Compression> all{
        {"gzip", gzip, false}, {"xz", xz, true}, {"zstd", zstd, true}, {"lz4", lz4, true}};
    return all;
}

/// An ELF file as far as anybody here looks, longer than the buffers and not all alike.
std::string elf() {
    std::string content = test::elfHead();
    for (std::uint32_t i = 0; content.size() < 300'000; ++i) content += std::to_string(i * 2654435761U);
    return content;
}

constexpr std::size_t payloadLengthAt = 0x24c;

/// `setupSectors` and 512 bytes of boot sector come before the protected-mode code, and 100 bytes of that before the
/// payload.
std::string bzImage(const std::string& payload, std::uint8_t setupSectors = 2, char minorProtocol = '\x0f') {
    const std::size_t codeAt = (std::size_t{setupSectors == 0 ? 4U : setupSectors} + 1) * 512;
    std::string image(codeAt + 100, '\0');
    image[0x1f1] = static_cast<char>(setupSectors);
    image.replace(0x202, 4, "HdrS");
    image[0x206] = minorProtocol;
    image[0x207] = 2;
    put32(image, 0x248, 100);
    put32(image, payloadLengthAt, static_cast<std::uint32_t>(payload.size()));
    return image + payload + std::string(64, '\x5a');  // the signature and what else a build may append
}

std::string payloadOf(const Compression& compression, const std::string& content) {
    const std::string size = compression.appendsSize ? number32(static_cast<std::uint32_t>(content.size())) : "";
    return compression.pack(content) + size;
}

class KernelImport : public ::testing::Test {
protected:
    /// What the file is after the import; its refusal if there was one. Nothing may be beside it in any case.
    std::string import(const std::string& content, std::optional<FirecrackerVersion> version = {}) {
        std::filesystem::create_directory(folder_);
        writeFileAtomically(kernel_, content, 0440);
        std::string result;
        try {
            importKernelImage(kernel_, version);
            result = readFile(kernel_, std::size_t{1} << 30U).value_or("no file");
        } catch (const Error& error) {
            EXPECT_EQ(error.field(), "kernel") << error.what();
            EXPECT_THAT(error.what(), ::testing::Not(HasSubstr(folder_.string()))) << "it is not the caller's path";
            result = error.what();
        }
        EXPECT_THAT(listDirectory(folder_), ElementsAre("kernel"));
        return result;
    }

    test::TestHost host_{nullptr};
    const std::filesystem::path folder_ = host_.root() / "vm", kernel_ = folder_ / "kernel";
};

TEST_F(KernelImport, AnElfFileStaysAsItIs) {
    EXPECT_EQ(import(elf()), elf());
}

TEST_F(KernelImport, EveryCompressionOfAWholeFileIsUnpacked) {
    for (const Compression& compression : compressions())
        EXPECT_TRUE(import(compression.pack(elf())) == elf()) << compression.name;
}

TEST_F(KernelImport, TheUnpackedFileHasTheModeOfThePackedOne) {
    import(gzip(elf()));
    struct stat status {};
    ASSERT_EQ(::stat(kernel_.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777U, 0440U);
}

TEST_F(KernelImport, ThePayloadOfABzImageIsUnpackedForOldVersionsToo) {
    for (const Compression& compression : compressions()) {
        for (const std::uint8_t sectors : {0, 2, 39}) {
            const std::string image = bzImage(payloadOf(compression, elf()), sectors);
            EXPECT_TRUE(import(image, FirecrackerVersion{1, 0, 0}) == elf()) << compression.name << " " << int{sectors};
        }
    }
}

TEST_F(KernelImport, ABzImageInAPackedFileIsUnpackedToItsPayload) {
    const std::string image = bzImage(payloadOf(compressions()[2], elf()));
    for (const Compression& compression : compressions())
        EXPECT_TRUE(import(compression.pack(image)) == elf()) << compression.name;
}

TEST_F(KernelImport, ABzImageThatCannotBeUnpackedIsLeftToAVersionThatLoadsIt) {
    for (const auto& [payload, name] :
         std::vector<std::pair<std::string, std::string>>{{"\x04\x22\x4d\x18 packed", "lz4"},
                                                          {"BZh9 packed", "bzip2"},
                                                          {std::string("\x5d\x00\x00 packed", 10), "lzma"},
                                                          {"\x89LZO packed", "lzo"},
                                                          {"something else", "unknown"}}) {
        const std::string image = bzImage(payload);
        EXPECT_EQ(import(image, FirecrackerVersion{1, 17, 0}), image) << name;
        EXPECT_EQ(import(image), image) << name << ": the version is looked at again when it is started";
        EXPECT_THAT(import(image, FirecrackerVersion{1, 16, 1}), AllOf(HasSubstr(name), HasSubstr(">= 1.17")));
    }
    const std::string old = bzImage(payloadOf(compressions()[0], elf()), 2, '\x07');
    EXPECT_EQ(import(old, FirecrackerVersion{1, 17, 0}), old);
    EXPECT_THAT(import(old, FirecrackerVersion{1, 16, 1}), HasSubstr("2.08"));
}

TEST_F(KernelImport, AStreamThatIsCutOffIsRefused) {
    for (const Compression& compression : compressions()) {
        const std::string packed = compression.pack(elf());
        for (const std::size_t length : {std::size_t{8}, packed.size() / 2, packed.size() - 1})
            EXPECT_THAT(import(packed.substr(0, length)), HasSubstr("cut off")) << compression.name << " " << length;
    }
}

TEST_F(KernelImport, WhatComesAfterTheStreamIsRefused) {
    for (const Compression& compression : compressions()) {
        // Without an end mark it can only be the next block, and none is that large.
        const char* said = compression.name == "lz4" ? "it has a block of" : "goes on";
        EXPECT_THAT(import(compression.pack(elf()) + "12345"), HasSubstr(said)) << compression.name;
        EXPECT_THAT(import(compression.pack(elf()) + compression.pack(elf())), HasSubstr(said)) << compression.name;
    }
    EXPECT_THAT(import(gzip(elf()) + "12345"), HasSubstr("goes on for 5 bytes"));
}

TEST_F(KernelImport, EveryBlockOfLz4IsUnpackedAndNoneMayBeBad) {
    std::string content = elf();
    content.resize(2 * lz4BlockBytes + 12345, 'x');
    EXPECT_TRUE(import(lz4(content)) == content);
    content.resize(lz4BlockBytes);
    EXPECT_TRUE(import(lz4(content)) == content) << "the last block is full";
    for (const std::uint32_t size : {0U, 0x7fffffffU, 0xffffffffU}) {
        EXPECT_THAT(import(lz4(elf()) + number32(size) + std::string(100, 'x')),
                    HasSubstr("no sound lz4 stream: it has a block of " + std::to_string(size) + " bytes"));
    }
    EXPECT_THAT(import(lz4(elf()) + number32(100) + std::string(100, '\xff')), HasSubstr("no sound lz4"));
    EXPECT_THAT(import(lz4(elf()) + number32(100) + "x"), HasSubstr("cut off"));
}

TEST_F(KernelImport, ADamagedStreamIsRefused) {
    for (const Compression& compression : compressions()) {
        std::string packed = compression.pack(elf());
        for (std::size_t at = packed.size() / 2; at < packed.size() / 2 + 64; ++at) packed[at] = '\xff';
        const std::string result = import(packed);
        // Where a format has no sum over its content, what comes out is at least no longer what went in.
        EXPECT_FALSE(result == elf()) << compression.name;
        if (compression.name == "zstd" || compression.name == "lz4") continue;
        EXPECT_THAT(result, HasSubstr("no sound " + compression.name)) << compression.name;
    }
    EXPECT_THAT(import(zstd(elf()).substr(0, 9) + std::string(5000, '\xff')), HasSubstr("no sound zstd"));
}

TEST_F(KernelImport, CompressedTwiceOrNoKernelInsideIsRefused) {
    for (const Compression& compression : compressions()) {
        EXPECT_THAT(import(compression.pack(gzip(elf()))), HasSubstr("compressed twice")) << compression.name;
        EXPECT_THAT(import(compression.pack("#!/bin/sh\n")), HasSubstr("neither an ELF file nor a bzImage"))
            << compression.name;
        EXPECT_THAT(import(compression.pack("")), HasSubstr("neither an ELF file nor a bzImage")) << compression.name;
        EXPECT_THAT(import(bzImage(payloadOf(compression, "#!/bin/sh\n"))), HasSubstr("no ELF")) << compression.name;
        EXPECT_THAT(import(bzImage(payloadOf(compression, bzImage("x")))), HasSubstr("no ELF")) << compression.name;
    }
}

TEST_F(KernelImport, APayloadOutsideOfTheFileIsRefused) {
    std::string image = bzImage(payloadOf(compressions()[0], elf()));
    for (const std::uint32_t far : {0xffffffffU, static_cast<std::uint32_t>(image.size())}) {
        std::string longer = image, further = image;
        put32(longer, payloadLengthAt, far);
        put32(further, payloadLengthAt - 4, far);
        EXPECT_THAT(import(longer), HasSubstr("not within")) << far;
        EXPECT_THAT(import(further), HasSubstr("not within")) << far;
    }
    EXPECT_THAT(import(image.substr(0, image.size() - 1000)), HasSubstr("not within")) << "the file is cut off";
}

TEST_F(KernelImport, APayloadThatSaysAnotherSizeIsRefused) {
    for (const Compression& compression : {compressions()[1], compressions()[2], compressions()[3]})
        EXPECT_THAT(import(bzImage(compression.pack(elf()) + number32(7))), HasSubstr("says 7")) << compression.name;
}

TEST_F(KernelImport, ABombIsRefusedBeforeItIsOnTheDisk) {
    const std::string content(std::size_t{8} << 20U, '\0');
    constexpr std::uint64_t limit = std::uint64_t{1} << 20U;
    for (const auto& [packing, index] :
         {std::pair{Packing::Gzip, 0}, {Packing::Xz, 1}, {Packing::Zstd, 2}, {Packing::Lz4, 3}}) {
        const std::string packed = compressions()[static_cast<std::size_t>(index)].pack(content);
        writeFileAtomically(host_.root() / "bomb", packed, 0600);
        const UniqueFd source = openFile(host_.root() / "bomb", O_RDONLY);
        const UniqueFd target = openFile(host_.root() / "out", O_RDWR | O_CREAT | O_TRUNC, 0600);
        try {
            unpack(packing, source.get(), 0, packed.size(), target.get(), limit);
            ADD_FAILURE() << index << ": it was unpacked";
        } catch (const Error& error) {
            EXPECT_THAT(error.what(), HasSubstr("more than 1 MiB"));
        }
        EXPECT_LE(::lseek(target.get(), 0, SEEK_END), static_cast<off_t>(limit)) << index;
        const UniqueFd again = openFile(host_.root() / "out", O_RDWR | O_TRUNC);
        EXPECT_EQ(unpack(packing, source.get(), 0, packed.size(), again.get(), content.size()), content.size())
            << "the limit itself is allowed";
    }
}

#ifndef __SANITIZE_ADDRESS__  // whose own memory counts as the process's
TEST_F(KernelImport, ABlockOfLz4ThatCannotBeCompressedTakesNoMoreMemoryThanIsSaid) {
    // What is large is mapped, so that nothing that is freed before the limit is set can be had again below it.
    ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
    ::malloc_trim(0);
    std::string noise(2 * lz4BlockBytes, '\0');
    std::mt19937_64 random(1);
    for (std::size_t at = 0; at < noise.size(); at += sizeof(std::uint64_t)) {
        const std::uint64_t number = random();
        std::memcpy(noise.data() + at, &number, sizeof number);
    }
    const std::string packed = lz4(noise);
    writeFileAtomically(host_.root() / "noise", packed, 0600);
    const UniqueFd source = openFile(host_.root() / "noise", O_RDONLY), target = openFile("/dev/null", O_WRONLY);
    constexpr std::uint64_t said = std::uint64_t{17} << 20U;
    const pid_t child = ::fork();
    if (child == 0) {
        // In pages, of all that is mapped (proc(5)).
        const std::uint64_t pages = std::stoull(readFile("/proc/self/statm", 4096).value_or("0"));
        const std::uint64_t limit = pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) + said;
        const rlimit space{limit, limit};
        if (::setrlimit(RLIMIT_AS, &space) != 0) ::_exit(2);
        try {
            ::_exit(unpack(Packing::Lz4, source.get(), 0, packed.size(), target.get()) == noise.size() ? 0 : 3);
        } catch (const std::bad_alloc&) {
            ::_exit(4);
        }
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status)) << status;
    EXPECT_EQ(WEXITSTATUS(status), 0) << "4: it asked for more";
}
#endif

TEST_F(KernelImport, WhatCannotBeWrittenIsSaidWithTheOperation) {
    writeFileAtomically(host_.root() / "packed", gzip(elf()), 0600);
    const UniqueFd source = openFile(host_.root() / "packed", O_RDONLY), full = openFile("/dev/full", O_WRONLY);
    try {
        unpack(Packing::Gzip, source.get(), 0, gzip(elf()).size(), full.get());
        ADD_FAILURE() << "it was written";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::ResourceExhausted);
        EXPECT_STREQ(error.what(), "cannot write the unpacked kernel: No space left on device");
    }
}

TEST_F(KernelImport, AnElfFileOfAnotherMachineIsRefusedWhereverItComesFrom) {
    std::string arm = elf();
    arm[18] = static_cast<char>(EM_AARCH64);
    EXPECT_THAT(import(arm), HasSubstr("it is an ELF file for aarch64"));
    for (const Compression& compression : compressions()) {
        EXPECT_THAT(import(compression.pack(arm)), HasSubstr("unpacks to an ELF file for aarch64, not for x86_64"))
            << compression.name;
        EXPECT_THAT(import(bzImage(payloadOf(compression, arm))),
                    HasSubstr("payload unpacks to an ELF file for aarch64, not for x86_64"))
            << compression.name;
    }
}

TEST_F(KernelImport, NoCutAndNoFlippedBitOfABzImageIsMoreThanARefusal) {
    // Small, so that every cut can be tried.
    const std::string content = test::elfHead() + "a small kernel";
    for (const Compression& compression : compressions()) {
        const std::string payload = payloadOf(compression, content);
        const std::string image = bzImage(payload, 1);
        const std::size_t payloadAt = 2 * 512 + 100;
        const auto expectSound = [&](const std::string& damaged, const std::string& what) {
            const std::string result = import(damaged);
            // Unpacked, left to Firecracker as it is, or refused in words: import() has looked at those.
            if (result == content || result == damaged) return;
            EXPECT_TRUE(result.starts_with("it ") || result.starts_with("its ") || result.starts_with("a bzImage ") ||
                        result.starts_with(test::elfHead().substr(0, 4)))
                << compression.name << ", " << what << ": " << result;
        };
        for (std::size_t length = 0; length < image.size(); length += length < 0x1f0 ? 31 : 1)
            expectSound(image.substr(0, length), "cut at " + std::to_string(length));
        const auto flipIn = [&](std::size_t begin, std::size_t end) {
            for (std::size_t at = begin; at < end; ++at) {
                for (unsigned bit = 0; bit < 8; ++bit) {
                    std::string damaged = image;
                    damaged[at] = static_cast<char>(static_cast<unsigned char>(damaged[at]) ^ (1U << bit));
                    expectSound(damaged, "bit " + std::to_string(bit) + " of byte " + std::to_string(at));
                }
            }
        };
        flipIn(0x1f1, 0x1f2);  // sectors of the setup
        flipIn(0x202, 0x208);  // magic and version
        flipIn(0x248, 0x250);  // where the payload is
        flipIn(payloadAt, payloadAt + payload.size());
    }
}

TEST_F(KernelImport, DebiansCloudKernelIsUnpackedForOldVersionsToo) {
    const std::filesystem::path vmlinuz = MERGEN_GUEST_KERNEL;
    const auto packed = readFile(vmlinuz, std::size_t{64} << 20U);
    if (!packed) GTEST_SKIP() << "there is no " << vmlinuz << ": guest/build-kernel makes it";
    EXPECT_THAT(import(*packed, FirecrackerVersion{1, 0, 0}).substr(0, 20), test::elfHead());
}

}  // namespace
}  // namespace mergen::vmm
