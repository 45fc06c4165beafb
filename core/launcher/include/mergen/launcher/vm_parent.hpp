#pragma once

#include <functional>

#include <mergen/launcher/command.hpp>

namespace mergen::launcher {

/// Lives as long as one VM: makes its VMM, keeps what it prints, learns how it ended, starts it again if the policy
/// says so. In the folder `command.directory` it leaves, each written whole or not at all:
///
///     parent.lock   held (OFD lock, fcntl(2)) from before we are started until we and the unfinished VMM are gone
///     parent        who we are (ProcessIdentity::str()), before anything else is done
///     vmm           who the VMM is, before its program is executed
///     failed        why the program could not be executed, one line
///     runs          the newest runs that another one follows, a line each, with when and why (`Restarts`)
///     exit          how the last run ended, when nothing of it is left: the lines "exited CODE" or "signalled NUMBER",
///                   "at TIME" (RFC 3339), "dropped BYTES" (of the console); where they apply "sent SIGNAL by WHO",
///                   "note TEXT", "panic TEXT", "restarts COUNT", "exhausted yes"
///
/// and reads
///
///     restart       there while the restart policy holds
///     signals       what the server has sent, before it sends it: lines "PID START SIGNAL WHO"
///
/// SIGCHLD makes it look whether `restart` is still there.
///
/// A newer server reads what an older mergen-vm writes: lines may be added, none changed.
///
/// `executed` is called once, when the program has been executed. Returns when the VMM has ended for good and all of it
/// is gone.
/// Throws if it could not be executed, and then nothing runs; or, after `executed`, if the end could not be written
/// down.
void runParent(const Command& command, const std::function<void()>& executed);

/// Makes this process fit to be a VM's parent: session leader, subreaper (prctl(2)), deaf to every signal that a
/// terminal, a reader's end or a polite `kill` sends; working directory "/", umask 077; no descriptor but 0, 1, 2.
/// Only SIGKILL ends it before its VMM, and takes the VMM along. Call first, before runParent().
void becomeParent();

}  // namespace mergen::launcher
