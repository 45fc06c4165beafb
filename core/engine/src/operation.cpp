#include "operation.hpp"

#include <exception>
#include <mutex>
#include <ranges>
#include <system_error>
#include <thread>
#include <utility>

#include <mergen/engine/asked_by.hpp>
#include <mergen/sdk/failpoint.hpp>

namespace mergen::engine {

namespace {

/// `action`, with every exception as Error: a standard one can only be a fault of ours or lack of memory.
void run(const std::function<void()>& action) {
    try {
        action();
    } catch (const Error&) {
        throw;
    } catch (const std::exception& error) {
        throw Error(ErrorKind::Internal, error.what());
    }
}

/// For tests: "engine.<operation>.<step>.<before|after>" fails or crashes the server at this very point.
void failpointAt([[maybe_unused]] const std::string& operation, [[maybe_unused]] std::string_view step,
                 [[maybe_unused]] std::string_view moment) {
    MERGEN_FAILPOINT("engine." + operation + "." + std::string(step) + "." + std::string(moment));
}

}  // namespace

Operation::Operation(std::shared_ptr<Vm> vm, std::string name, Log& log, std::function<void(const Uuid&)> whenReleased)
    : vm_(std::move(vm)),
      name_(std::move(name)),
      id_(Uuid::random().str()),
      since_(std::chrono::system_clock::now()),
      begin_(Clock::now()),
      log_(log),
      whenReleased_(std::move(whenReleased)) {
    const std::lock_guard lock(vm_->mutex);
    if (vm_->erased) throw Error(ErrorKind::NotFound, "there is no VM '" + vm_->id.str() + "'");
    if (vm_->holder) {
        throw Error(ErrorKind::Conflict, "VM '" + vm_->id.str() + "' is held by the operation '" +
                                             vm_->holder->operation + "' (" + vm_->holder->operationId + ")");
    }
    vm_->holder = Holder{name_, id_, since_};
}

Operation::~Operation() {
    lock_.reset();  // before the VM is free: the next operation must not meet us there
    bool exitPending = false;
    {
        const std::lock_guard lock(vm_->mutex);
        vm_->holder.reset();
        exitPending = std::exchange(vm_->exitPending, false);
    }
    if (exitPending && whenReleased_) whenReleased_(vm_->uuid);
}

void Operation::lock(const std::filesystem::path& file, const OwnerTag& owner) {
    try {
        lock_.emplace(file, owner.str());
    } catch (const Error& error) {
        const bool held = error.kind() == ErrorKind::Conflict;
        throw error.within(held ? "VM '" + vm_->id.str() + "' is locked" : "cannot lock VM '" + vm_->id.str() + "'");
    }
}

void Operation::removeLock() noexcept {
    if (lock_) lock_->remove();
}

VmRecord Operation::record() const {
    const std::lock_guard lock(vm_->mutex);
    return vm_->record;
}

void Operation::emit(std::string_view step, std::string_view outcome, Clock::time_point begin, std::string_view cause) {
    const auto took = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begin);
    Event event;
    event.vm = vm_->id.str();
    event.operation = name_;
    event.operationId = id_;
    event.step = step;
    event.outcome = outcome;
    event.duration = took;
    event.cause = cause;
    const std::string by = vm_->timeline.append(std::move(event)).by;
    const LogField fields[] = {{"vm", vm_->id.str()}, {"operation", name_},      {"op", id_},      {"step", step},
                               {"outcome", outcome},  {"took_us", took.count()}, {"cause", cause}, {"by", by}};
    const bool whole = step.empty();
    const bool failed = outcome == "failed";
    log_.write(failed ? (whole ? LogLevel::Error : LogLevel::Warning) : (whole ? LogLevel::Info : LogLevel::Debug),
               whole ? "vm.operation" : "vm.step", fields);
}

void Operation::keepUndo(std::string_view step, std::function<void()> undo) {
    if (undo) undos_.push_back(Undo{std::string(step), std::move(undo)});
}

void Operation::step(std::string_view step, const std::function<void()>& action, std::function<void()> undo) {
    keepUndo(step, std::move(undo));
    perform(step, action);
}

void Operation::both(Part first, Part second) {
    keepUndo(first.step, std::move(first.undo));
    keepUndo(second.step, std::move(second.undo));
    std::mutex mutex;
    std::exception_ptr earliest;  // guarded by mutex
    const auto carryOut = [&](const Part& part) {
        try {
            perform(part.step, part.action);
        } catch (...) {  // a thread's entry point; thrown on below, as it is
            const std::lock_guard lock(mutex);
            if (!earliest) earliest = std::current_exception();
        }
    };
    std::jthread beside;
    try {
        beside = std::jthread([&, by = AskedBy::current()] {
            const AskedBy asked(by);
            carryOut(second);
        });
    } catch (const std::system_error&) {
        // The host gives no more threads: then one after the other.
        perform(first.step, first.action);
        perform(second.step, second.action);
        return;
    }
    carryOut(first);
    beside.join();
    if (earliest) std::rethrow_exception(earliest);
}

void Operation::perform(std::string_view step, const std::function<void()>& action) {
    const auto begin = Clock::now();
    try {
        run([&] {
            failpointAt(name_, step, "before");
            action();
            failpointAt(name_, step, "after");
        });
    } catch (const Error& error) {
        emit(step, "failed", begin, error.what());
        throw;
    }
    emit(step, "ok", begin, {});
}

void Operation::attempt(std::string_view step, const std::function<void()>& action) {
    try {
        this->step(step, action);
    } catch (const Error& error) {
        if (!firstError_) firstError_ = error;
    } catch (const std::exception& error) {
        // Only the event itself can fail here, for lack of memory; the teardown goes on all the same.
        if (!firstError_) firstError_ = Error(ErrorKind::Internal, error.what());
    }
}

void Operation::rethrowFirst() const {
    if (firstError_) throw Error(*firstError_);
}

void Operation::undoAll() noexcept {
    for (Undo& undo : std::views::reverse(undos_)) {
        const auto begin = Clock::now();
        try {
            run([&] {
                failpointAt(name_, undo.step, "undo");
                undo.action();
            });
            emit(undo.step, "undone", begin, {});
        } catch (const std::exception& error) {
            log_.error("vm.undo.failed", {{"vm", vm_->id.str()}, {"step", undo.step}, {"cause", error.what()}});
        }
    }
    undos_.clear();
}

void Operation::note(std::string_view outcome, std::string_view cause) {
    emit({}, outcome, begin_, cause);
}

}  // namespace mergen::engine
