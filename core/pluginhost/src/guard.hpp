#pragma once

#include <string>
#include <utility>

#include <mergen/sdk/error.hpp>

namespace mergen::pluginhost {

/// For the handler of a `catch (...)` around code of a plugin: throws the exception in flight anew as an Error that has
/// nothing of the plugin in it. An Error stays as it is; anything else becomes Internal with its type and text copied,
/// because what is thrown may be of a type that ends with the library.
[[noreturn]] void rethrowAsError();

/// Calls into a plugin: the one place where an exception of any type is taken from one.
template <typename Call>
decltype(auto) guarded(Call&& call) {
    try {
        return std::forward<Call>(call)();
    } catch (...) {
        rethrowAsError();
    }
}

/// The same, with "`context`: " before the text of the error.
template <typename Call>
decltype(auto) guarded(const std::string& context, Call&& call) {
    try {
        return guarded(std::forward<Call>(call));
    } catch (const Error& error) {
        throw error.within(context);
    }
}

}  // namespace mergen::pluginhost
