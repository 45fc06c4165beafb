/// What the guest's web server says.
#pragma once
#include "card.h"
#include "text.h"

enum { PAGE_MAX = 1400 };  // with its header: a page is one segment

/// The answer to a request that begins at `request`, which is not ended by a zero. False: that is no request.
///
///     GET /                      about the guest: its addresses, disks and command line, and which request this is
///     GET /disk/N                the first bytes of disk N, from 0 on
///     GET /disk/N/write?TEXT     writes TEXT to the first sector of disk N
///     GET /mmds[/PATH]           what Firecracker's metadata service answers on the first card (version 2)
bool answerRequest(struct Card* card, const char* request, size_t size, struct Text* answer);
