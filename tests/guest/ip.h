/// IPv4 over Ethernet: answers ARP, ping and UDP (with what it got), leads requests to the web server, and carries the
/// segments of TCP, of which no one keeps a state here: what is lost comes again because the other end asks again.
#pragma once
#include "card.h"
#include "text.h"

/// The two ends of a conversation, seen from here.
struct Peer {
    struct Card* card;
    uint8_t mac[MAC_SIZE];
    uint32_t address;
    uint16_t port, ownPort;
};

enum SegmentFlag { FIN = 0x01, SYN = 0x02, RST = 0x04, PSH = 0x08, ACK = 0x10 };

struct Segment {
    uint8_t flags;
    uint32_t sequence, acknowledged;
    const uint8_t* data;  // in the frame that it came in, or the sender's
    size_t size;
};

/// Answers a frame, if it asks for something.
void handleFrame(struct Card* card, const uint8_t* frame, size_t size);

/// Asks for the hardware address of a neighbour.
void askForMac(struct Card* card, uint32_t address);
/// Whether a frame says the hardware address of `peer`, which then has it.
bool tellsMac(const uint8_t* frame, size_t size, struct Peer* peer);

/// The segment of TCP in a frame to `card`, and whose it is; false if it is something else or damaged.
bool parseSegment(struct Card* card, const uint8_t* frame, size_t size, struct Peer* peer, struct Segment* segment);
void sendSegment(const struct Peer* peer, const struct Segment* segment);
