#pragma once

#include <string>
#include <vector>

#include <Poco/JSON/Object.h>

#include <mergen/sdk/vmm.hpp>

namespace mergen::vmm {

/// A PATCH of Firecracker's API.
struct Adjustment {
    std::string path;
    Poco::JSON::Object::Ptr body;
};

/// What makes a running guest of `present`, Firecracker's answer to `GET /vm/config`, into `wanted`: files and limits
/// of disks, limits of network cards, amount and statistics of the balloon. Nothing for what is so already, as a guest
/// is interrupted for each. A limit that is not wanted any more becomes a bucket of size 0. Throws Unavailable for an
/// answer that is none.
[[nodiscard]] std::vector<Adjustment> adjustments(const Poco::JSON::Object& present, const GuestSpec& wanted);

}  // namespace mergen::vmm
