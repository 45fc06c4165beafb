#include "output_tail.hpp"

namespace mergen::launcher {

void OutputTail::add(std::string_view printed) noexcept {
    if (printed.size() >= kept) {
        text_.assign(printed.substr(printed.size() - kept));
        return;
    }
    if (text_.size() + printed.size() > 2 * kept) text_.erase(0, text_.size() - kept);
    text_.append(printed);
}

}  // namespace mergen::launcher
