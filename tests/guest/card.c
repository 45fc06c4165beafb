#include "card.h"

enum { RECEIVE = 0, SEND = 1, HEADER = 12, MAC_FEATURE = 1u << 5 };

// Firecracker reads its tap only while 64 KiB of buffers stand ready to receive: 64 of them are 128 KiB.
enum { BUFFER = 2048 };

static struct {
    struct Queue receive, send;
    uint8_t received[QUEUE_LENGTH][BUFFER], sent[QUEUE_LENGTH][BUFFER];
} rings[CARDS_MAX];

struct Card cards[CARDS_MAX];
unsigned cardCount;

void addCard(Device device) {
    if (cardCount == CARDS_MAX) return;
    struct Card* card = &cards[cardCount];
    struct Queue* receive = &rings[cardCount].receive;
    struct Queue* send = &rings[cardCount].send;
    card->device = device;
    openDevice(device, MAC_FEATURE);
    giveQueue(device, RECEIVE, receive);
    giveQueue(device, SEND, send);
    startDevice(device);
    for (int i = 0; i < MAC_SIZE; ++i) card->mac[i] = configurationOf(device)[i];
    for (uint16_t i = 0; i < QUEUE_LENGTH; ++i) {
        send->descriptors[i].address = (uintptr_t)rings[cardCount].sent[i];
        receive->descriptors[i] =
            (struct Descriptor){(uintptr_t)rings[cardCount].received[i], BUFFER, DEVICE_WRITES, 0};
        offer(device, RECEIVE, receive, i);
    }
    ++cardCount;
}

const uint8_t* takeFrame(struct Card* card, size_t* size, uint16_t* token) {
    uint32_t written;
    if (!takeUsed(&rings[card - cards].receive, token, &written)) return NULL;
    *size = written < HEADER ? 0 : written - HEADER;
    return rings[card - cards].received[*token % QUEUE_LENGTH] + HEADER;
}

void returnFrame(struct Card* card, uint16_t token) {
    offer(card->device, RECEIVE, &rings[card - cards].receive, token);
}

void sendFrame(struct Card* card, const uint8_t* frame, size_t size) {
    struct Queue* queue = &rings[card - cards].send;
    if (size > FRAME_MAX || pending(queue) >= QUEUE_LENGTH) return;
    const uint16_t place = queue->available.index % QUEUE_LENGTH;
    uint8_t* buffer = rings[card - cards].sent[place];
    memset(buffer, 0, HEADER);
    memcpy(buffer + HEADER, frame, size);
    queue->descriptors[place].size = (uint32_t)(HEADER + size);
    offer(card->device, SEND, queue, place);
}
