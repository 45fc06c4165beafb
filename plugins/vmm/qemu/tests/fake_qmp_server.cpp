#include "fake_qmp_server.hpp"

namespace mergen::vmm {

std::string FakePeer::answer(std::string_view answer) {
    std::string command = line();
    constexpr std::string_view key = "\"id\":";
    const std::size_t at = command.rfind(key);
    if (at == std::string::npos) return command;
    const std::size_t begin = at + key.size();
    const std::string id = command.substr(begin, command.find_first_not_of("0123456789", begin) - begin);
    send("{" + std::string(answer) + ", \"id\": " + id + "}\r\n");
    return command;
}

void FakePeer::greet() {
    send(qmpGreeting);
    answer("\"return\": {}");
}

}  // namespace mergen::vmm
