#include "ip.h"

#include "http.h"

// Where things stand in a frame.
enum Offset {
    TO = 0,
    FROM = 6,
    ETHER_TYPE = 12,
    PAYLOAD = 14,
    ARP_ORDER = 20,
    ARP_FROM = 22,
    ARP_FROM_ADDRESS = 28,
    ARP_FOR = 32,
    ARP_FOR_ADDRESS = 38,
    ARP_END = 42,
    IP_LENGTH = 16,
    IP_FRAGMENT = 20,
    IP_TIME_TO_LIVE = 22,
    IP_PROTOCOL = 23,
    IP_CHECKSUM = 24,
    IP_FROM = 26,
    IP_TO = 30,
    IP_DATA = 34,
};

enum EtherType { IPV4 = 0x0800, ARP = 0x0806 };
enum ArpOrder { ARP_ASK = 1, ARP_TELL = 2 };
enum Protocol { ICMP = 1, TCP = 6, UDP = 17 };
enum { IP_HEADER = 20, UDP_HEADER = 8, TCP_HEADER = 20, ECHO_ASK = 8 };
enum { WEB_PORT = 80, OUR_FIRST = 0x1000 /* sequence number */ };

static uint16_t get16(const uint8_t* at) {
    return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t get32(const uint8_t* at) {
    return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static void put16(uint8_t* at, uint32_t value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t* at, uint32_t value) {
    put16(at, value >> 16);
    put16(at + 2, value);
}

static uint32_t sum(const uint8_t* data, size_t size, uint32_t begin) {
    for (; size > 1; size -= 2, data += 2) begin += get16(data);
    return size ? begin + ((uint32_t)data[0] << 8) : begin;
}

static uint32_t folded(uint32_t total) {
    while (total >> 16) total = (total & 0xffff) + (total >> 16);
    return ~total & 0xffff;
}

/// Sends `frame`, whose IP_DATA is filled in.
static void sendPacket(const struct Peer* peer, enum Protocol protocol, uint8_t* frame, size_t size) {
    memcpy(frame + TO, peer->mac, MAC_SIZE);
    memcpy(frame + FROM, peer->card->mac, MAC_SIZE);
    put16(frame + ETHER_TYPE, IPV4);
    memset(frame + PAYLOAD, 0, IP_HEADER);
    frame[PAYLOAD] = 0x45;
    put16(frame + IP_LENGTH, (uint32_t)(IP_HEADER + size));
    frame[IP_TIME_TO_LIVE] = 64;
    frame[IP_PROTOCOL] = (uint8_t)protocol;
    put32(frame + IP_FROM, peer->card->address);
    put32(frame + IP_TO, peer->address);
    put16(frame + IP_CHECKSUM, folded(sum(frame + PAYLOAD, IP_HEADER, 0)));
    sendFrame(peer->card, frame, IP_DATA + size);
}

static void sendArp(struct Card* card, enum ArpOrder order, const uint8_t* mac, uint32_t address) {
    static const uint8_t head[] = {0, 1, 8, 0, 6, 4};  // Ethernet, IPv4, and how long their addresses are
    static const uint8_t all[MAC_SIZE] = {255, 255, 255, 255, 255, 255};
    uint8_t frame[ARP_END] = {0};
    memcpy(frame + TO, mac ? mac : all, MAC_SIZE);
    memcpy(frame + FROM, card->mac, MAC_SIZE);
    put16(frame + ETHER_TYPE, ARP);
    memcpy(frame + PAYLOAD, head, sizeof(head));
    put16(frame + ARP_ORDER, order);
    memcpy(frame + ARP_FROM, card->mac, MAC_SIZE);
    put32(frame + ARP_FROM_ADDRESS, card->address);
    if (mac) memcpy(frame + ARP_FOR, mac, MAC_SIZE);
    put32(frame + ARP_FOR_ADDRESS, address);
    sendFrame(card, frame, sizeof(frame));
}

void askForMac(struct Card* card, uint32_t address) {
    sendArp(card, ARP_ASK, NULL, address);
}

static bool isArp(const uint8_t* frame, size_t size, enum ArpOrder order) {
    return size >= ARP_END && get16(frame + ETHER_TYPE) == ARP && get16(frame + ARP_ORDER) == order;
}

bool tellsMac(const uint8_t* frame, size_t size, struct Peer* peer) {
    if (!isArp(frame, size, ARP_TELL) || get32(frame + ARP_FROM_ADDRESS) != peer->address) return false;
    memcpy(peer->mac, frame + ARP_FROM, MAC_SIZE);
    return true;
}

/// Size of what a whole packet to `card` carries from IP_DATA on, and whose it is; 0: not a packet for us.
static size_t parsePacket(struct Card* card, const uint8_t* frame, size_t size, struct Peer* peer) {
    if (size < IP_DATA || get16(frame + ETHER_TYPE) != IPV4 || frame[PAYLOAD] != 0x45) return 0;
    const size_t whole = get16(frame + IP_LENGTH);
    if (whole < IP_HEADER || PAYLOAD + whole > size || PAYLOAD + whole > FRAME_MAX) return 0;
    const bool fragment = (get16(frame + IP_FRAGMENT) & 0x3fff) != 0;
    if (fragment || card->address == 0 || get32(frame + IP_TO) != card->address) return 0;
    peer->card = card;
    memcpy(peer->mac, frame + FROM, MAC_SIZE);
    peer->address = get32(frame + IP_FROM);
    return whole - IP_HEADER;
}

bool parseSegment(struct Card* card, const uint8_t* frame, size_t size, struct Peer* peer, struct Segment* segment) {
    const size_t data = parsePacket(card, frame, size, peer);
    if (data < TCP_HEADER || frame[IP_PROTOCOL] != TCP) return false;
    const uint8_t* tcp = frame + IP_DATA;
    const size_t header = (size_t)(tcp[12] >> 4) * 4;
    if (header < TCP_HEADER || header > data) return false;
    peer->port = get16(tcp);
    peer->ownPort = get16(tcp + 2);
    *segment = (struct Segment){tcp[13], get32(tcp + 4), get32(tcp + 8), tcp + header, data - header};
    return true;
}

void sendSegment(const struct Peer* peer, const struct Segment* segment) {
    uint8_t frame[FRAME_MAX];
    if (IP_DATA + TCP_HEADER + segment->size > sizeof(frame)) return;
    uint8_t* tcp = frame + IP_DATA;
    memset(tcp, 0, TCP_HEADER);
    put16(tcp, peer->ownPort);
    put16(tcp + 2, peer->port);
    put32(tcp + 4, segment->sequence);
    put32(tcp + 8, segment->acknowledged);
    tcp[12] = TCP_HEADER / 4 << 4;
    tcp[13] = segment->flags;
    put16(tcp + 14, 0xffff);  // window
    if (segment->size) memcpy(tcp + TCP_HEADER, segment->data, segment->size);
    const size_t size = TCP_HEADER + segment->size;
    uint8_t ends[8];
    put32(ends, peer->card->address);
    put32(ends + 4, peer->address);
    put16(tcp + 16, folded(sum(tcp, size, sum(ends, sizeof(ends), (uint32_t)(TCP + size)))));
    sendPacket(peer, TCP, frame, size);
}

/// The whole of a web server's TCP: an answer fits into one segment, and with it the conversation ends.
static void handleSegment(const struct Peer* peer, const struct Segment* in) {
    if (in->flags & RST) return;
    if (in->flags & SYN) {
        const uint8_t flags = peer->ownPort == WEB_PORT ? SYN | ACK : RST | ACK;
        sendSegment(peer, &(struct Segment){flags, OUR_FIRST, in->sequence + 1, NULL, 0});
    } else if (in->size && in->acknowledged == OUR_FIRST + 1) {
        static char page[PAGE_MAX + 1];
        struct Text text = TEXT_IN(page);
        if (answerRequest(peer->card, (const char*)in->data, in->size, &text))
            sendSegment(peer, &(struct Segment){PSH | ACK | FIN, in->acknowledged, in->sequence + (uint32_t)in->size,
                                                (const uint8_t*)page, text.size});
    } else if (in->flags & FIN) {
        sendSegment(peer, &(struct Segment){ACK, in->acknowledged, in->sequence + (uint32_t)in->size + 1, NULL, 0});
    }
}

void handleFrame(struct Card* card, const uint8_t* frame, size_t size) {
    if (isArp(frame, size, ARP_ASK)) {
        if (card->address != 0 && get32(frame + ARP_FOR_ADDRESS) == card->address)
            sendArp(card, ARP_TELL, frame + ARP_FROM, get32(frame + ARP_FROM_ADDRESS));
        return;
    }
    struct Peer peer;
    struct Segment segment;
    if (parseSegment(card, frame, size, &peer, &segment)) {
        handleSegment(&peer, &segment);
        return;
    }
    const size_t data = parsePacket(card, frame, size, &peer);
    const bool ping = data >= 8 && frame[IP_PROTOCOL] == ICMP && frame[IP_DATA] == ECHO_ASK;
    const bool datagram = data >= UDP_HEADER && frame[IP_PROTOCOL] == UDP;
    if (!ping && !datagram) return;
    uint8_t answer[FRAME_MAX];
    uint8_t* begin = answer + IP_DATA;
    memcpy(begin, frame + IP_DATA, data);
    if (ping) {
        begin[0] = 0;
        put16(begin + 2, 0);
        put16(begin + 2, folded(sum(begin, data, 0)));
    } else {
        memcpy(begin, frame + IP_DATA + 2, 2);  // the ports change places
        memcpy(begin + 2, frame + IP_DATA, 2);
        put16(begin + 6, 0);  // no checksum
    }
    sendPacket(&peer, ping ? ICMP : UDP, answer, data);
}
