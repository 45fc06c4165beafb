/// A client of Firecracker's metadata service, version 2: first a token, then the content.
#pragma once
#include "text.h"

/// Adds the status line of the answer for `path` (empty: all of it), and the content as JSON; or which step failed.
/// Nothing else is served meanwhile, for the time of PATIENCE at most for each packet awaited.
void answerMmds(const char* path, struct Text* answer);
