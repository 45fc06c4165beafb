#include "kernel_import.hpp"

#include <cstdint>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <lzma.h>
#include <optional>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>
#include <zlib.h>
#include <zstd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "test_host.hpp"
#include "unpack.hpp"

namespace mergen::vmm {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string gzip(const std::string& content) {
    z_stream stream{};
    constexpr int gzipOnly = 16 + MAX_WBITS;
    EXPECT_EQ(::deflateInit2(&stream, 6, Z_DEFLATED, gzipOnly, 8, Z_DEFAULT_STRATEGY), Z_OK);
    std::string packed(::deflateBound(&stream, content.size()), '\0');
    std::string source = content;
    stream.next_in = reinterpret_cast<Bytef*>(source.data());
    stream.avail_in = static_cast<uInt>(source.size());
    stream.next_out = reinterpret_cast<Bytef*>(packed.data());
    stream.avail_out = static_cast<uInt>(packed.size());
    EXPECT_EQ(::deflate(&stream, Z_FINISH), Z_STREAM_END);
    packed.resize(stream.total_out);
    ::deflateEnd(&stream);
    return packed;
}

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
    static const std::vector<Compression> all{{"gzip", gzip, false}, {"xz", xz, true}, {"zstd", zstd, true}};
    return all;
}

/// An ELF file as far as anybody here looks, longer than the buffers and not all alike.
std::string elf() {
    std::string content =
        "\x7f"
        "ELF";
    for (std::uint32_t i = 0; content.size() < 300'000; ++i) content += std::to_string(i * 2654435761U);
    return content;
}

void put32(std::string& text, std::size_t at, std::uint32_t value) {
    for (std::size_t i = 0; i < 4; ++i) text[at + i] = static_cast<char>((value >> (8 * i)) & 0xffU);
}

std::string number32(std::uint32_t value) {
    std::string text(4, '\0');
    put32(text, 0, value);
    return text;
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
         std::vector<std::pair<std::string, std::string>>{{"\x02\x21\x4c\x18 packed", "lz4"},
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
        EXPECT_THAT(import(compression.pack(elf()) + "12345"), HasSubstr("goes on for 5 bytes")) << compression.name;
        EXPECT_THAT(import(compression.pack(elf()) + compression.pack(elf())), HasSubstr("goes on"))
            << compression.name;
    }
}

TEST_F(KernelImport, ADamagedStreamIsRefused) {
    for (const Compression& compression : compressions()) {
        std::string packed = compression.pack(elf());
        for (std::size_t at = packed.size() / 2; at < packed.size() / 2 + 64; ++at) packed[at] = '\xff';
        // Where a format has no sum over its content, what comes out is at least no longer what went in.
        if (compression.name == "zstd") continue;
        EXPECT_THAT(import(packed), HasSubstr("no sound " + compression.name)) << compression.name;
    }
    EXPECT_THAT(import(zstd(elf()).substr(0, 9) + std::string(5000, '\xff')), HasSubstr("no sound zstd"));
}

TEST_F(KernelImport, CompressedTwiceOrNoKernelInsideIsRefused) {
    for (const Compression& compression : compressions()) {
        EXPECT_THAT(import(compression.pack(gzip(elf()))), HasSubstr("compressed twice")) << compression.name;
        EXPECT_THAT(import(compression.pack("#!/bin/sh\n")), HasSubstr("neither")) << compression.name;
        EXPECT_THAT(import(compression.pack("")), HasSubstr("neither")) << compression.name;
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
    for (const Compression& compression : {compressions()[1], compressions()[2]})
        EXPECT_THAT(import(bzImage(compression.pack(elf()) + number32(7))), HasSubstr("says 7")) << compression.name;
}

TEST_F(KernelImport, ABombIsRefusedBeforeItIsOnTheDisk) {
    const std::string content(std::size_t{8} << 20U, '\0');
    constexpr std::uint64_t limit = std::uint64_t{1} << 20U;
    for (const auto& [packing, index] : {std::pair{Packing::Gzip, 0}, {Packing::Xz, 1}, {Packing::Zstd, 2}}) {
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

TEST_F(KernelImport, DebiansCloudKernelHasAnLz4PayloadAndIsLeftToAVersionThatLoadsIt) {
    const std::filesystem::path vmlinuz = MERGEN_GUEST_KERNEL;
    const auto packed = readFile(vmlinuz, std::size_t{64} << 20U);
    if (!packed) GTEST_SKIP() << "there is no " << vmlinuz << ": guest/build-kernel makes it";
    EXPECT_TRUE(import(*packed, FirecrackerVersion{1, 17, 0}) == *packed);
    EXPECT_THAT(import(*packed, FirecrackerVersion{1, 16, 1}), AllOf(HasSubstr("lz4"), HasSubstr(">= 1.17")));
}

}  // namespace
}  // namespace mergen::vmm
