#pragma once

#include <cstddef>
#include <cstdint>
#include <elf.h>
#include <lz4.h>
#include <string>
#include <zlib.h>

#include <gtest/gtest.h>

/// Kernels as far as anybody looks who does not run them, and what they may be compressed by.
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

inline void put32(std::string& text, std::size_t at, std::uint32_t value) {
    for (std::size_t i = 0; i < 4; ++i) text[at + i] = static_cast<char>((value >> (8 * i)) & 0xffU);
}

inline std::string number32(std::uint32_t value) {
    std::string text(4, '\0');
    put32(text, 0, value);
    return text;
}

inline std::string gzip(const std::string& content) {
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

inline constexpr std::size_t lz4BlockBytes = std::size_t{8} << 20U;

/// The legacy frame, as `lz4 -l` makes it.
inline std::string lz4(const std::string& content) {
    std::string packed = "\x02\x21\x4c\x18";
    for (std::size_t at = 0; at < content.size(); at += lz4BlockBytes) {
        const std::string block = content.substr(at, lz4BlockBytes);
        std::string out(static_cast<std::size_t>(::LZ4_compressBound(static_cast<int>(block.size()))), '\0');
        const int size = ::LZ4_compress_default(block.data(), out.data(), static_cast<int>(block.size()),
                                                static_cast<int>(out.size()));
        EXPECT_GT(size, 0);
        packed += number32(static_cast<std::uint32_t>(size)) + out.substr(0, static_cast<std::size_t>(size));
    }
    return packed;
}

}  // namespace mergen::test
