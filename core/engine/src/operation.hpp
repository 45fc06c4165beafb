#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <mergen/sdk/error.hpp>
#include <mergen/sdk/log.hpp>

#include "registry.hpp"
#include "vm_lock.hpp"

namespace mergen::engine {

/// One operation on one VM: holds the VM from construction to destruction, runs steps with an event for each, and keeps
/// their undos. Threads: one.
class Operation {
public:
    /// Takes the VM. Throws Error(Conflict) that names the holder if another operation has it, NotFound if it was
    /// deleted meanwhile. `whenReleased` is called after the VM is free again if its VMM ended in between.
    Operation(std::shared_ptr<Vm> vm, std::string name, Log& log, std::function<void(const Uuid&)> whenReleased);
    ~Operation();
    Operation(const Operation&) = delete;
    Operation& operator=(const Operation&) = delete;

    /// Takes the VM's lock file too, until the end. Throws as
    /// VmLock, in the VM's words.
    void lock(const std::filesystem::path& file, const OwnerTag& owner);
    /// Removes the lock file of a VM that is no more: before another may have its id, which would meet us there.
    void removeLock() noexcept;

    [[nodiscard]] Vm& vm() const noexcept { return *vm_; }
    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    [[nodiscard]] const std::string& id() const noexcept { return id_; }
    [[nodiscard]] SystemTime since() const noexcept { return since_; }

    /// A copy of the record.
    [[nodiscard]] VmRecord record() const;

    /// Runs `action` and leaves an event. `undo`, if given, is kept for undoAll() from before the action on, because an
    /// action may fail half way: it must succeed when nothing, a part or all of the action happened.
    void step(std::string_view step, const std::function<void()>& action, std::function<void()> undo = {});

    /// What step() takes, for both().
    struct Part {
        std::string_view step;
        std::function<void()> action;
        std::function<void()> undo;
    };
    /// Two steps at once, each with its event, and on return both are over: `second` runs on a thread of its own, in
    /// the name of who asked. Whatever one does must not need the other. If both fail, the error that came first is
    /// thrown and the other one is in its event; undoAll() undoes `second` before `first`, also what did not fail.
    void both(Part first, Part second);

    /// As step(), for what tears down: an error leaves its event and is kept, and the next steps still run.
    void attempt(std::string_view step, const std::function<void()>& action);
    /// Throws the first error that attempt() kept.
    void rethrowFirst() const;

    /// Runs the undos, newest first, each with an event; an undo that fails is logged, and the rest still run.
    void undoAll() noexcept;
    /// Forgets the undos: what was done stays.
    void commit() noexcept { undos_.clear(); }

    /// An event without a step: "started", "ok", "failed" of the whole, or "note".
    void note(std::string_view outcome, std::string_view cause = {});

private:
    struct Undo {
        std::string step;
        std::function<void()> action;
    };
    using Clock = std::chrono::steady_clock;

    void keepUndo(std::string_view step, std::function<void()> undo);
    /// The action with its failpoints and its event.
    void perform(std::string_view step, const std::function<void()>& action);
    void emit(std::string_view step, std::string_view outcome, Clock::time_point begin, std::string_view cause);

    std::shared_ptr<Vm> vm_;
    const std::string name_;
    const std::string id_;
    const SystemTime since_;
    const Clock::time_point begin_;
    Log& log_;
    std::function<void(const Uuid&)> whenReleased_;
    std::vector<Undo> undos_;
    std::optional<Error> firstError_;
    std::optional<VmLock> lock_;
};

}  // namespace mergen::engine
