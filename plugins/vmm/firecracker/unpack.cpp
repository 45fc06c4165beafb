#include "unpack.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <endian.h>
#include <lz4.h>
#include <lzma.h>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>
#include <zlib.h>
#include <zstd.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::vmm {
namespace {

using namespace std::string_view_literals;

constexpr std::size_t bufferBytes = std::size_t{64} << 10U;
/// Of the dictionary: the kernel's own build asks for 32 MiB, `xz -9` for 64 MiB.
constexpr std::uint64_t xzMemory = std::uint64_t{80} << 20U;
/// Of the window, as a power of two; `zstd -22 --ultra`, which the kernel's own build uses, has 128 MiB.
constexpr int zstdWindowLog = 27;

[[noreturn]] void refuse(const std::string& why) {
    throw Error(ErrorKind::InvalidArgument, "its content " + why).about("kernel");
}

[[noreturn]] void refuseDamaged(std::string_view format, std::string_view why) {
    refuse("is no sound " + std::string(format) + " stream: " + std::string(why));
}

/// Of what a block of lz4's legacy frame unpacks to (lz4_Frame_format.md); all but the last are full.
constexpr std::size_t lz4BlockBytes = std::size_t{8} << 20U;
constexpr std::string_view lz4Magic = "\x02\x21\x4c\x18"sv;

/// What one call of a decoder did with the bytes that it was given.
struct Progress {
    std::size_t read = 0, written = 0;
    bool ended = false;
};

/// One stream of a compression.
class Decoder {
public:
    Decoder() = default;
    Decoder(const Decoder&) = delete;
    Decoder& operator=(const Decoder&) = delete;
    virtual ~Decoder() = default;
    /// Throws Error(InvalidArgument) if the stream is damaged.
    virtual Progress turn(std::string_view in, std::vector<char>& out) = 0;
    /// Whether the stream is whole if nothing comes any more: of a format that has no end mark.
    [[nodiscard]] virtual bool mayEnd() const noexcept { return false; }
};

class GzipDecoder final : public Decoder {
public:
    GzipDecoder() {
        constexpr int gzipOnly = 16 + MAX_WBITS;
        if (::inflateInit2(&stream_, gzipOnly) != Z_OK) throw Error(ErrorKind::ResourceExhausted, "no memory for gzip");
    }
    ~GzipDecoder() override { ::inflateEnd(&stream_); }
    Progress turn(std::string_view in, std::vector<char>& out) override {
        // zlib's own type is not const; it does not write there.
        stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.data()));
        stream_.avail_in = static_cast<uInt>(in.size());
        stream_.next_out = reinterpret_cast<Bytef*>(out.data());
        stream_.avail_out = static_cast<uInt>(out.size());
        const int code = ::inflate(&stream_, Z_NO_FLUSH);
        if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
            refuseDamaged("gzip", stream_.msg != nullptr ? stream_.msg : "it is damaged");
        return {in.size() - stream_.avail_in, out.size() - stream_.avail_out, code == Z_STREAM_END};
    }

private:
    z_stream stream_{};
};

class XzDecoder final : public Decoder {
public:
    XzDecoder() {
        if (::lzma_stream_decoder(&stream_, xzMemory, 0) != LZMA_OK)
            throw Error(ErrorKind::ResourceExhausted, "no memory for xz");
    }
    ~XzDecoder() override { ::lzma_end(&stream_); }
    Progress turn(std::string_view in, std::vector<char>& out) override {
        stream_.next_in = reinterpret_cast<const std::uint8_t*>(in.data());
        stream_.avail_in = in.size();
        stream_.next_out = reinterpret_cast<std::uint8_t*>(out.data());
        stream_.avail_out = out.size();
        const lzma_ret code = ::lzma_code(&stream_, LZMA_RUN);
        if (code == LZMA_MEMLIMIT_ERROR) refuseDamaged("xz", "it needs a dictionary of more than 64 MiB");
        if (code == LZMA_MEM_ERROR) throw Error(ErrorKind::ResourceExhausted, "no memory for xz");
        if (code != LZMA_OK && code != LZMA_STREAM_END && code != LZMA_BUF_ERROR) refuseDamaged("xz", "it is damaged");
        return {in.size() - stream_.avail_in, out.size() - stream_.avail_out, code == LZMA_STREAM_END};
    }

private:
    lzma_stream stream_ = LZMA_STREAM_INIT;
};

class ZstdDecoder final : public Decoder {
public:
    ZstdDecoder() : context_(::ZSTD_createDCtx(), &::ZSTD_freeDCtx) {
        if (!context_) throw Error(ErrorKind::ResourceExhausted, "no memory for zstd");
        ::ZSTD_DCtx_setParameter(context_.get(), ZSTD_d_windowLogMax, zstdWindowLog);
    }
    Progress turn(std::string_view in, std::vector<char>& out) override {
        ZSTD_inBuffer input{in.data(), in.size(), 0};
        ZSTD_outBuffer output{out.data(), out.size(), 0};
        const std::size_t left = ::ZSTD_decompressStream(context_.get(), &output, &input);
        if (::ZSTD_isError(left) != 0) refuseDamaged("zstd", ::ZSTD_getErrorName(left));
        return {input.pos, output.pos, left == 0};
    }

private:
    std::unique_ptr<ZSTD_DCtx, std::size_t (*)(ZSTD_DCtx*)> context_;
};

/// The legacy frame: the magic, and then blocks, each behind its packed size (32 bits, little-endian).
class Lz4Decoder final : public Decoder {
public:
    /// At once and exactly: a string that grows by itself has up to twice what it needs, and three times while it
    /// moves.
    Lz4Decoder() { packed_.reserve(LZ4_COMPRESSBOUND(lz4BlockBytes)); }
    Progress turn(std::string_view in, std::vector<char>& out) override {
        Progress progress;
        while (given_ == plain_.size() && progress.read < in.size()) {
            const std::size_t taken = std::min(wanted_ - packed_.size(), in.size() - progress.read);
            packed_.append(in.substr(progress.read, taken));
            progress.read += taken;
            if (packed_.size() == wanted_) takePart();
        }
        progress.written = std::min(out.size(), plain_.size() - given_);
        if (progress.written != 0) std::memcpy(out.data(), plain_.data() + given_, progress.written);
        given_ += progress.written;
        return progress;
    }
    [[nodiscard]] bool mayEnd() const noexcept override { return part_ == Part::Size && packed_.empty(); }

private:
    enum class Part : std::uint8_t { Magic, Size, Block };

    /// Goes on to the next part, now that `packed_` holds the whole of this one.
    void takePart() {
        switch (part_) {
            case Part::Magic:
                expect(Part::Size, sizeof(std::uint32_t));
                return;
            case Part::Size: {
                std::uint32_t size = 0;
                std::memcpy(&size, packed_.data(), sizeof size);
                size = le32toh(size);
                if (size == 0 || size > LZ4_COMPRESSBOUND(lz4BlockBytes))
                    refuseDamaged("lz4", "it has a block of " + std::to_string(size) + " bytes");
                expect(Part::Block, size);
                return;
            }
            case Part::Block: {
                plain_.resize(lz4BlockBytes);
                const int got = ::LZ4_decompress_safe(packed_.data(), plain_.data(), static_cast<int>(packed_.size()),
                                                      static_cast<int>(plain_.size()));
                if (got < 0) refuseDamaged("lz4", "it is damaged");
                plain_.resize(static_cast<std::size_t>(got));
                given_ = 0;
                expect(Part::Size, sizeof(std::uint32_t));
            }
        }
    }
    void expect(Part part, std::size_t bytes) {
        part_ = part;
        wanted_ = bytes;
        packed_.clear();
    }

    Part part_ = Part::Magic;
    std::size_t wanted_ = lz4Magic.size();  ///< bytes of the part
    std::string packed_;                    ///< what has come of it
    std::vector<char> plain_;               ///< the newest block
    std::size_t given_ = 0;                 ///< bytes of it that are out
};

std::unique_ptr<Decoder> decoderOf(Packing packing) {
    switch (packing) {
        case Packing::Gzip:
            return std::make_unique<GzipDecoder>();
        case Packing::Xz:
            return std::make_unique<XzDecoder>();
        case Packing::Zstd:
            return std::make_unique<ZstdDecoder>();
        case Packing::Lz4:
            break;
    }
    return std::make_unique<Lz4Decoder>();
}

/// The next bytes of a file's range; empty at its end.
class RangeReader {
public:
    RangeReader(int file, std::uint64_t offset, std::uint64_t length) : file_(file), at_(offset), left_(length) {}

    std::string_view next() {
        const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(left_, buffer_.size()));
        if (wanted == 0) return {};
        ssize_t got = 0;
        do got = ::pread(file_, buffer_.data(), wanted, static_cast<off_t>(at_));
        while (got < 0 && errno == EINTR);
        if (got < 0) throw Error::fromErrno(errno, "cannot read the kernel").about("kernel");
        at_ += static_cast<std::uint64_t>(got);
        left_ = got == 0 ? 0 : left_ - static_cast<std::uint64_t>(got);
        return {buffer_.data(), static_cast<std::size_t>(got)};
    }
    [[nodiscard]] std::uint64_t left() const noexcept { return left_; }

private:
    int file_;
    std::uint64_t at_, left_;
    std::array<char, bufferBytes> buffer_{};
};

}  // namespace

std::optional<Packing> packingOf(std::string_view head) noexcept {
    if (head.starts_with("\x1f\x8b"sv)) return Packing::Gzip;
    if (head.starts_with("\xfd"
                         "7zXZ\0"sv))
        return Packing::Xz;
    if (head.starts_with("\x28\xb5\x2f\xfd"sv)) return Packing::Zstd;
    if (head.starts_with(lz4Magic)) return Packing::Lz4;
    return std::nullopt;
}

std::uint64_t unpack(Packing packing, int source, std::uint64_t offset, std::uint64_t length, int target,
                     std::uint64_t limit) {
    const std::unique_ptr<Decoder> decoder = decoderOf(packing);
    RangeReader reader(source, offset, length);
    std::vector<char> out(bufferBytes);
    std::string_view in = reader.next();
    std::uint64_t total = 0;
    for (;;) {
        const Progress progress = decoder->turn(in, out);
        in.remove_prefix(progress.read);
        // Before it is written: a bomb never has more than the limit on the disk.
        if (progress.written > limit - total) refuse("unpacks to more than " + std::to_string(limit >> 20U) + " MiB");
        total += progress.written;
        writeAll(target, {out.data(), progress.written}, "cannot write the unpacked kernel");
        if (progress.ended) break;
        if (in.empty()) in = reader.next();
        // A full buffer may mean that more is to come out without more to go in.
        if (in.empty() && progress.written < out.size()) {
            if (decoder->mayEnd()) break;
            refuse("is cut off: its compressed stream does not end");
        }
    }
    if (const std::uint64_t more = in.size() + reader.left(); more != 0)
        refuse("goes on for " + std::to_string(more) + " bytes after the end of its compressed stream");
    return total;
}

}  // namespace mergen::vmm
