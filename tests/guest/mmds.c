#include "mmds.h"

#include "ip.h"

#define MMDS_ADDRESS 0xa9fea9feu  // 169.254.169.254

enum { HTTP_PORT = 80, OUR_NEXT = 1 /* sequence number, after SYN */ };

/// Takes frames until one is what the caller awaits, which it finds out by `wanted`; false: none came.
static bool await(struct Peer* peer, bool (*wanted)(struct Peer*, const uint8_t*, size_t, void*), void* found) {
    const uint64_t begin = ticks();
    while (ticks() - begin < PATIENCE) {
        size_t size;
        uint16_t token;
        const uint8_t* frame = takeFrame(peer->card, &size, &token);
        if (!frame) continue;
        const bool is = wanted(peer, frame, size, found);
        returnFrame(peer->card, token);
        if (is) return true;
    }
    return false;
}

static bool isMac(struct Peer* peer, const uint8_t* frame, size_t size, void* found) {
    (void)found;
    return tellsMac(frame, size, peer);
}

/// A segment and a copy of its data.
struct Received {
    struct Segment segment;
    uint8_t data[FRAME_MAX];
};

static bool isSegment(struct Peer* peer, const uint8_t* frame, size_t size, void* found) {
    struct Received* received = found;
    struct Peer from;
    if (!parseSegment(peer->card, frame, size, &from, &received->segment)) return false;
    if (from.address != peer->address || from.port != peer->port || from.ownPort != peer->ownPort) return false;
    memcpy(received->data, received->segment.data, received->segment.size);
    received->segment.data = received->data;
    return true;
}

/// Where the content of an answer begins, or NULL as long as its header is not whole.
static const char* contentOf(const char* answer) {
    for (; *answer; ++answer)
        if (startsWith(answer, "\r\n\r\n")) return answer + 4;
    return NULL;
}

static bool isWhole(const struct Text* answer) {
    const char* content = contentOf(answer->data);
    if (!content) return false;
    for (const char* at = answer->data; at < content; ++at) {
        if (!startsWith(at, "Content-Length: ")) continue;
        at += lengthOf("Content-Length: ");
        return answer->size >= (size_t)(content - answer->data) + takeNumber(&at);
    }
    return true;
}

/// Sends a request over a connection of its own and adds what comes back. The step that failed, or NULL.
static const char* exchange(struct Peer* peer, const struct Text* request, struct Text* answer) {
    static struct Received in;
    static uint16_t port = 40000;
    peer->ownPort = ++port;
    sendSegment(peer, &(struct Segment){SYN, OUR_NEXT - 1, 0, NULL, 0});
    if (!await(peer, isSegment, &in)) return "no answer to a connection";
    if ((in.segment.flags & (SYN | ACK | RST)) != (SYN | ACK)) return "no connection";
    uint32_t next = in.segment.sequence + 1;
    const uint32_t sent = OUR_NEXT + (uint32_t)request->size;
    sendSegment(peer, &(struct Segment){PSH | ACK, OUR_NEXT, next, (const uint8_t*)request->data, request->size});
    const char* failed = NULL;
    while (!failed && !isWhole(answer) && answer->size < answer->room) {
        if (!await(peer, isSegment, &in))
            failed = "no answer to a request";
        else if (in.segment.flags & (RST | FIN))
            failed = "the connection was closed";
        else if (in.segment.size) {
            if (in.segment.sequence == next) {
                addBytes(answer, in.data, in.segment.size);
                next += (uint32_t)in.segment.size;
            }
            sendSegment(peer, &(struct Segment){ACK, sent, next, NULL, 0});
        }
    }
    sendSegment(peer, &(struct Segment){RST | ACK, sent, next, NULL, 0});
    return failed;
}

static const char* fetch(const char* path, struct Text* content) {
    if (cardCount == 0) return "no card";
    struct Peer peer = {&cards[0], {0}, MMDS_ADDRESS, HTTP_PORT, 0};
    askForMac(peer.card, peer.address);
    if (!await(&peer, isMac, NULL)) return "nobody has its address";

    static char requestBuffer[1024], tokenBuffer[1024];
    struct Text request = TEXT_IN(requestBuffer), token = TEXT_IN(tokenBuffer);
    add(&request, "PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 60\r\n\r\n");
    tokenBuffer[0] = content->data[0] = 0;
    const char* failed = exchange(&peer, &request, &token);
    if (failed) return failed;
    if (!startsWith(tokenBuffer, "HTTP/1.1 200")) {
        add(content, tokenBuffer);
        return NULL;
    }
    request.size = 0;
    add(&request, "GET ");
    add(&request, *path ? path : "/");
    add(&request, " HTTP/1.1\r\nAccept: application/json\r\nX-metadata-token: ");
    add(&request, contentOf(tokenBuffer));
    add(&request, "\r\n\r\n");
    return exchange(&peer, &request, content);
}

void answerMmds(const char* path, struct Text* answer) {
    static char buffer[4096];
    struct Text content = TEXT_IN(buffer);
    const char* failed = fetch(path, &content);
    if (failed) {
        add(answer, "mmds: ");
        add(answer, failed);
    } else {
        size_t status = 0;
        while (buffer[status] && buffer[status] != '\r') ++status;
        addBytes(answer, buffer, status);
        add(answer, "\n");
        const char* begin = contentOf(buffer);
        add(answer, begin ? begin : "");
    }
    add(answer, "\n");
}
