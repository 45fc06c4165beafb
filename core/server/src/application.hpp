#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <Poco/Util/ServerApplication.h>

#include <mergen/server/config.hpp>

namespace mergen::server {

/// mergend's command line.
class Application final : public Poco::Util::ServerApplication {
public:
    /// Reads the options and does what they ask; gives the exit status. In place of Poco's run(), which looks for
    /// --daemon and forks before it reads any option: a supervisor keeps mergend in the foreground.
    int execute(int argc, char** argv);

protected:
    void defineOptions(Poco::Util::OptionSet& options) override;
    void handleOption(const std::string& name, const std::string& value) override;
    int main(const std::vector<std::string>& arguments) override;

private:
    enum class Mode : std::uint8_t { Serve, Help, Version, CheckConfig, PrintConfig, ListPlugins, NewToken };

    int serve();
    int checkConfig();
    int printConfig();
    int listPlugins();
    int printNewToken() const;
    int printHelp() const;

    /// Reads the configuration file, or nothing if none was named and the default one does not exist.
    void load();
    int refuse(const Problems& problems) const;

    Mode mode_ = Mode::Serve;
    std::optional<std::filesystem::path> file_;  ///< as given by --config
    std::filesystem::path shown_;                ///< what error texts call it
    std::string tokenName_;                      ///< of --new-token
    ServerConfig config_;
    Problems problems_;
};

}  // namespace mergen::server
