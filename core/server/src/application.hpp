#pragma once

#include <cstdint>
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

    /// Reads the configuration from all places and adds what is to be said of it.
    ServerConfig load(Problems& problems, Notes& notes);
    /// Looks at the plugins as the server would and gives their settings a place in the configuration.
    std::vector<pluginhost::PluginInfo> resolve(pluginhost::PluginHost& host);

    /// Found once: an upgrade may put another program in the place of this one while it serves.
    const Installation installation_ = Installation::current();
    Mode mode_ = Mode::Serve;
    ConfigPlaces places_;
    std::string shown_;      ///< what error texts call the configuration
    std::string tokenName_;  ///< of --new-token
    ServerConfig config_;
    Problems problems_;
    Notes notes_;
};

}  // namespace mergen::server
