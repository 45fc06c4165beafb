#pragma once

#include <functional>
#include <stdexcept>
#include <string>

#include "serde.hpp"

/// How the API refuses.
namespace mergen::fake {

/// A refusal as the API answers it.
class Fault : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// Throws a Fault.
[[noreturn]] void fault(const std::string& text);

/// Throws a refusal that does not say yet what was asked for; `within` puts that in front.
[[noreturn]] void error(const std::string& text);

/// Runs `action`; what it refuses gets "<prefix>: " in front.
void within(const std::string& prefix, const std::function<void()>& action);

/// "No such file or directory (os error 2)", as Rust prints an errno.
std::string osError(int errnum);

/// The whole body, as `read` reads it.
template <typename Read>
auto parse(const std::string& body, Read read) {
    try {
        JsonReader reader(body);
        auto value = read(reader);
        reader.end();
        return value;
    } catch (const JsonFault& bad) {
        throw Fault(std::string("An error occurred when deserializing the json body of a request: ") + bad.what() +
                    ".");
    }
}

}  // namespace mergen::fake
