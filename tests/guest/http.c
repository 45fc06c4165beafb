#include "http.h"

#include "disk.h"
#include "mmds.h"

static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n";
static const char notFound[] = "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n";

static void addDiskStatus(struct Text* text, unsigned disk, const char* done, uint8_t status) {
    add(text, "disk ");
    addNumber(text, disk);
    add(text, status == 0 ? ": " : ": failed with status ");
    if (status == 0)
        add(text, done);
    else
        addNumber(text, status);
    add(text, "\n");
}

/// `path` is what follows /disk/.
static bool answerDisk(const char* path, struct Text* text) {
    const char* begin = path;
    const uint64_t disk = takeNumber(&path);
    if (path == begin || disk >= diskCount) return false;
    uint8_t sector[SECTOR] = {0};
    if (startsWith(path, "/write?")) {
        path += lengthOf("/write?");
        const size_t size = lengthOf(path);
        memcpy(sector, path, size < SECTOR ? size : SECTOR);
        addDiskStatus(text, (unsigned)disk, "written", writeSector((unsigned)disk, sector));
        return true;
    }
    if (*path) return false;
    enum { SHOWN = 64 };
    char shown[SHOWN + 1] = {0};
    const uint8_t status = readSector((unsigned)disk, sector);
    for (int i = 0; i < SHOWN && sector[i]; ++i)
        shown[i] = sector[i] >= ' ' && sector[i] <= '~' ? (char)sector[i] : '.';
    addDiskStatus(text, (unsigned)disk, shown, status);
    return true;
}

static void answerAbout(const struct Card* asked, struct Text* text) {
    static uint64_t requests;
    add(text, "tiny guest\nrequest: ");
    addNumber(text, ++requests);
    for (unsigned i = 0; i < cardCount; ++i) {
        add(text, "\neth");
        addNumber(text, i);
        add(text, ": ");
        addAddress(text, cards[i].address);
        if (asked == &cards[i]) add(text, " (asked)");
    }
    for (unsigned i = 0; i < diskCount; ++i) {
        add(text, "\ndisk ");
        addNumber(text, i);
        add(text, ": ");
        addNumber(text, sectorsOf(i) * SECTOR);
        add(text, " bytes");
    }
    add(text, "\ncmdline: ");
    add(text, commandLine);
    add(text, "\n");
}

bool answerRequest(struct Card* card, const char* request, size_t size, struct Text* answer) {
    static const char get[] = "GET /", post[] = "POST /";
    static char path[512];
    struct Text line = TEXT_IN(path);
    addBytes(&line, request, size);
    const char* method = startsWith(path, get) ? get : startsWith(path, post) ? post : NULL;
    if (!method) return false;
    char* target = path + lengthOf(method);
    char* end = target;
    while (*end && *end != ' ' && *end != '\r' && *end != '\n') ++end;
    *end = 0;

    add(answer, ok);
    if (*target == 0)
        answerAbout(card, answer);
    else if (startsWith(target, "mmds"))
        answerMmds(target + lengthOf("mmds"), answer);
    else if (!startsWith(target, "disk/") || !answerDisk(target + lengthOf("disk/"), answer)) {
        answer->size = 0;
        add(answer, notFound);
        add(answer, "nothing is here\n");
    }
    return true;
}
