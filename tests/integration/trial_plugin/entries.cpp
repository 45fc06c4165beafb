#include "entries.hpp"

#include <csignal>
#include <cstdlib>
#include <memory>
#include <stdexcept>

#include "trial_storage.hpp"

namespace {

using mergen::trial::TrialStorage;

/// Has another interface in the place where a storage's is looked for.
class Stranger {
public:
    virtual ~Stranger() = default;
};
class StrangerFirst final : public Stranger, public TrialStorage {};

}  // namespace

extern "C" {

const char* trial_fingerprint() {
    return mergen::buildFingerprint();
}

void* trial_create() {
    return static_cast<mergen::StorageBackend*>(new TrialStorage);
}
void* trial_create_nothing() {
    return nullptr;
}
void* trial_create_throwing() {
    throw std::runtime_error("no room for an object");
}
void* trial_create_throwing_int() {
    throw 7;
}
void* trial_create_aborting() {
    std::abort();
}
void* trial_create_another_type() {
    return new StrangerFirst;
}

void trial_destroy(void* object) {
    auto* const backend = static_cast<mergen::StorageBackend*>(object);
    const std::unique_ptr<TrialStorage> trial(static_cast<TrialStorage*>(backend));
    trial->misbehave("destroy");
}
void trial_destroy_throwing(void* object) {
    trial_destroy(object);
    throw std::runtime_error("cannot let go");
}
void trial_destroy_crashing(void* object) {
    trial_destroy(object);
    std::raise(SIGSEGV);
}
}
