/// Network cards: frames in, frames out.
#pragma once
#include "virtio.h"

enum { CARDS_MAX = 4, FRAME_MAX = 1514, MAC_SIZE = 6 };

struct Card {
    Device device;
    uint8_t mac[MAC_SIZE];
    uint32_t address;  // IPv4; 0: none
};

extern struct Card cards[CARDS_MAX];
extern unsigned cardCount;

/// Makes a network device the next card; those beyond CARDS_MAX are left alone.
void addCard(Device device);
/// The next frame that came in, valid until returnFrame; NULL if there is none. A second one may be taken before the
/// first is returned.
const uint8_t* takeFrame(struct Card* card, size_t* size, uint16_t* token);
void returnFrame(struct Card* card, uint16_t token);
/// Sends a frame of at most FRAME_MAX bytes. It is lost if the device has not sent those before, as on any wire.
void sendFrame(struct Card* card, const uint8_t* frame, size_t size);
