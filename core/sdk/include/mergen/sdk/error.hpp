#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <string_view>

#include <mergen/sdk/export.hpp>

namespace mergen {

/// What kind of failure an `Error` is. Closed: every mapping over it (HTTP status, log level, exit code) is a `switch`
/// that the compiler checks, so adding a kind is a change of the SDK's major version.
enum class ErrorKind : std::uint8_t {
    InvalidArgument,     ///< The caller asked for something that is wrong in itself; asking again will not help.
    NotFound,            ///< The object does not exist.
    AlreadyExists,       ///< The name, port or address belongs to something else.
    Conflict,            ///< Somebody else is working on the object, or it changed in between.
    FailedPrecondition,  ///< The object is in a state in which this cannot be done.
    PermissionDenied,    ///< The host or a rule of ours says no.
    ResourceExhausted,   ///< A pool or limit is used up.
    NotSupported,        ///< This backend or host cannot do it.
    Unavailable,         ///< Something that we depend on does not answer; a retry may help.
    Timeout,             ///< A deadline passed.
    Internal,            ///< A fault of ours, or an exception that a plugin should not have let out.
};

/// The kind as one word for logs and replies: "invalid_argument", "not_found", ...
[[nodiscard]] MERGEN_SDK_API std::string_view toString(ErrorKind kind) noexcept;

/// The one exception that crosses the plugin boundary. It is final and lives in the shared SDK library, because an
/// exception type that lives in a plugin ends the process when it outlives that plugin.
///
/// A text names operation, object and cause: "cannot create tap 'tap-7f3a9c01': Operation not permitted". Code that
/// passes an error on adds where it was: `throw error.within("starting VM 'web'")` gives
/// "starting VM 'web': cannot create tap ...".
///
/// An error about one member of a request names it in `field()` ("ports[0].host"), which the API shows to the caller.
class MERGEN_SDK_API Error final : public std::exception {
public:
    Error(ErrorKind kind, std::string text);
    Error(const Error&) noexcept;
    Error(Error&&) noexcept;
    Error& operator=(const Error&) noexcept;
    Error& operator=(Error&&) noexcept;
    ~Error() override;

    /// "`text`: <what errno means>", with the kind that fits `errnum` (ENOENT is NotFound, ENOSPC ResourceExhausted,
    /// ...).
    [[nodiscard]] static Error fromErrno(int errnum, std::string_view text);

    [[nodiscard]] ErrorKind kind() const noexcept;
    /// The whole text, context included; never null.
    [[nodiscard]] const char* what() const noexcept override;
    /// The errno behind it, 0 if there is none.
    [[nodiscard]] int errnum() const noexcept;
    /// The request member that is wrong, empty if the error is not about one.
    [[nodiscard]] const std::string& field() const noexcept;

    /// The same error with "`context`: " before its text.
    [[nodiscard]] Error within(std::string_view context) const;
    /// The same error, said of the request member `field`.
    [[nodiscard]] Error about(std::string field) const;

private:
    struct Data;
    explicit Error(std::shared_ptr<const Data> data) noexcept;
    std::shared_ptr<const Data> data_;  // shared, so that copying an exception in flight cannot throw
};

}  // namespace mergen
