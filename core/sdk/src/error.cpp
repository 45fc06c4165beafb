#include <cerrno>
#include <cstring>
#include <utility>

#include <mergen/sdk/error.hpp>

namespace mergen {

struct Error::Data {
    ErrorKind kind;
    std::string text;
    std::string field;
    int errnum = 0;
};

std::string_view toString(ErrorKind kind) noexcept {
    switch (kind) {
        case ErrorKind::InvalidArgument:
            return "invalid_argument";
        case ErrorKind::NotFound:
            return "not_found";
        case ErrorKind::AlreadyExists:
            return "already_exists";
        case ErrorKind::Conflict:
            return "conflict";
        case ErrorKind::FailedPrecondition:
            return "failed_precondition";
        case ErrorKind::PermissionDenied:
            return "permission_denied";
        case ErrorKind::ResourceExhausted:
            return "resource_exhausted";
        case ErrorKind::NotSupported:
            return "not_supported";
        case ErrorKind::Unavailable:
            return "unavailable";
        case ErrorKind::Timeout:
            return "timeout";
        case ErrorKind::Internal:
            return "internal";
    }
    return "internal";
}

namespace {

ErrorKind kindOf(int errnum) noexcept {
    switch (errnum) {
        case ENOENT:
        case ENOTDIR:
        case ESRCH:
        case ENODEV:
            return ErrorKind::NotFound;
        case EEXIST:
        case EADDRINUSE:
            return ErrorKind::AlreadyExists;
        case EACCES:
        case EPERM:
        case EROFS:
        case ELOOP:
            return ErrorKind::PermissionDenied;
        case ENOSPC:
        case EDQUOT:
        case EMFILE:
        case ENFILE:
        case ENOMEM:
        case EFBIG:
            return ErrorKind::ResourceExhausted;
        case ENOSYS:
        case EOPNOTSUPP:
            return ErrorKind::NotSupported;
        case ETIMEDOUT:
            return ErrorKind::Timeout;
        case EIO:
        case ECONNREFUSED:
        case ECONNRESET:
        case EPIPE:
            return ErrorKind::Unavailable;
        default:
            return ErrorKind::Internal;
    }
}

}  // namespace

Error::Error(std::shared_ptr<const Data> data) noexcept : data_(std::move(data)) {}
Error::Error(ErrorKind kind, std::string text)
    : data_(std::make_shared<const Data>(Data{kind, std::move(text), {}, 0})) {}
Error::Error(const Error&) noexcept = default;
// A moved-from error keeps its data: what() of it must stay readable.
Error::Error(Error&& other) noexcept : std::exception(other), data_(other.data_) {}
Error& Error::operator=(const Error&) noexcept = default;
Error& Error::operator=(Error&& other) noexcept {
    data_ = other.data_;
    return *this;
}
Error::~Error() = default;

Error Error::fromErrno(int errnum, std::string_view text) {
    char buffer[128];
    return Error(std::make_shared<const Data>(
        Data{kindOf(errnum), std::string(text) + ": " + ::strerror_r(errnum, buffer, sizeof buffer), {}, errnum}));
}

ErrorKind Error::kind() const noexcept {
    return data_->kind;
}
const char* Error::what() const noexcept {
    return data_->text.c_str();
}
int Error::errnum() const noexcept {
    return data_->errnum;
}
const std::string& Error::field() const noexcept {
    return data_->field;
}

Error Error::within(std::string_view context) const {
    Data data = *data_;
    data.text = std::string(context) + ": " + data.text;
    return Error(std::make_shared<const Data>(std::move(data)));
}

Error Error::about(std::string field) const {
    Data data = *data_;
    data.field = std::move(field);
    return Error(std::make_shared<const Data>(std::move(data)));
}

}  // namespace mergen
