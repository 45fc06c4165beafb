#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "documents.hpp"
#include "timeline.hpp"

namespace mergen::engine {

/// One VM in memory. Readers copy under `mutex`; only the operation that holds the VM changes `record`, first in
/// storage, then here. `mutex` is never held over I/O.
struct Vm {
    Vm(VmRecord initial, std::size_t eventLimit)
        : id(initial.id), uuid(initial.uuid), timeline(eventLimit), record(std::move(initial)) {}

    const RecordId id;
    const Uuid uuid;
    Timeline timeline;

    mutable std::mutex mutex;
    // All below is guarded by mutex.
    VmRecord record;
    std::optional<Revision> revision;  // none: storage has no record of it (yet, or any more)
    bool nameless = false;             // corrupt, and nothing tells its UUID: what it has on the host cannot be told
    std::optional<Holder> holder;
    bool holds = false;        // corrupt, but what it still tells is reserved
    bool exitPending = false;  // its VMM ended while an operation held it: to be looked at when that ends
    bool postponed = false;    // what it is on the host is yet to be settled: another program holds its lock file
    bool erased = false;       // deleted; whoever waited for it finds nothing
    int pid = 0;

    /// What its parent has done by the restart policy since the launch, as far as it was told here. Of a VM that runs;
    /// the record has it of one that has ended.
    struct Restarts {
        unsigned endsTold = 0, restartsTold = 0;  // numbers of runs of which the timeline has an event
        unsigned count = 0;
        unsigned whenPaused = 0;  // `count` at the last pause: a later run is not paused
        std::optional<VmEnd> lastEnd;
    } restarts;

    /// Whether its VMM answers, as last asked. Only of the run whose pid it names.
    struct Probe {
        int pid = 0;
        unsigned failures = 0;  // in a row
        std::optional<Unresponsive> unresponsive{};
        std::string trouble{};  // why the last question could not be asked
    } probe;

    /// How often in a row its policy was carried out, over all its runs, and so how patient the next time is.
    struct Enforcements {
        unsigned inARow = 0;
        unsigned answers = 0;  // in a row, since the last of them
    } enforcements;
    bool killSent = false;  // SIGKILL, to the run of the last launch, because it did not answer
};

/// All VMs by id. Threads: any.
class Registry {
public:
    [[nodiscard]] std::shared_ptr<Vm> find(const std::string& id) const;
    [[nodiscard]] std::shared_ptr<Vm> findByUuid(const Uuid& uuid) const;
    [[nodiscard]] std::vector<std::shared_ptr<Vm>> all() const;
    [[nodiscard]] std::size_t size() const;

    /// Throws Error(AlreadyExists) about "id" if there is a VM of this id.
    void refuseTaken(const RecordId& id) const;
    /// Throws Error(AlreadyExists) if the id or the UUID is taken, ResourceExhausted beyond `limit` VMs.
    void add(const std::shared_ptr<Vm>& vm, std::size_t limit);
    void remove(const Vm& vm);

private:
    void refuseTakenLocked(const RecordId& id) const;

    mutable std::mutex mutex_;
    std::map<std::string, std::shared_ptr<Vm>, std::less<>> byId_;  // guarded by mutex_
    std::map<Uuid, std::shared_ptr<Vm>> byUuid_;                    // guarded by mutex_
};

}  // namespace mergen::engine
