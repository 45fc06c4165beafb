#include "guard.hpp"

#include <cxxabi.h>
#include <exception>
#include <typeinfo>

#include <boost/core/demangle.hpp>

#include <mergen/base/text.hpp>

namespace mergen::pluginhost {

void rethrowAsError() {
    try {
        throw;
    } catch (const Error&) {
        throw;
    } catch (const std::exception& exception) {
        const char* const what = exception.what();
        throw Error(ErrorKind::Internal, "it let out a " + boost::core::demangle(typeid(exception).name()) + ": " +
                                             printable(what == nullptr ? "" : what, 500));
    } catch (...) {
        const std::type_info* const type = abi::__cxa_current_exception_type();
        throw Error(ErrorKind::Internal, "it threw a value of the type " +
                                             (type == nullptr ? "?" : boost::core::demangle(type->name())) +
                                             ", which is no exception");
    }
}

}  // namespace mergen::pluginhost
