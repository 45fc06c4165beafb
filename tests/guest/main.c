/// A guest of a few kilobytes; README.md says what it does.
#include "card.h"
#include "disk.h"
#include "ip.h"
#include "machine.h"
#include "text.h"

/// In the zero page of Linux's boot protocol: where the command line stands.
enum { COMMAND_LINE_POINTER = 0x228 };

static void say(const char* before, uint64_t number, const char* after) {
    char line[128];
    struct Text text = TEXT_IN(line);
    add(&text, before);
    addNumber(&text, number);
    add(&text, after);
    print(line);
}

/// Tells a processor from a KVM that carries instructions out one by one. The loop is mergen-kvm-probe's, two
/// instructions a turn, and so is the line between the two: eight million instructions a second.
static void timeLoop(void) {
    enum { TURNS = 5000, ROUNDS = 4, LINE = 8000000, EMULATED = 2L * TURNS * BEATS_PER_SECOND / LINE };
    unsigned best = TOO_MANY_BEATS;  // a round may be interrupted by the host, hardly all of them
    for (int round = 0; round < ROUNDS; ++round) {
        uint32_t left = TURNS;
        startBeats();
        __asm__ volatile("1: dec %0; jnz 1b" : "+r"(left)::"cc");
        const unsigned took = beats();
        if (took < best) best = took;
    }
    say("tiny: ", TURNS, " loop turns took ");
    say("", best, " beats\n");
    print(best > EMULATED ? "tiny: this processor is emulated\n" : "tiny: this processor is real\n");
}

static void findDevices(void) {
    const char* line = commandLine;
    Device device;
    while ((device = nextDevice(&line))) {
        if (typeOf(device) == NETWORK) addCard(device);
        if (typeOf(device) == BLOCK) addDisk(device);
    }
}

/// The first card has the address of ip=, further ones those of mergen.ip1=, mergen.ip2= and so on.
static void readAddresses(void) {
    for (unsigned i = 0; i < cardCount; ++i) {
        char name[] = "mergen.ip0=";
        name[lengthOf("mergen.ip")] = (char)('0' + i);
        const char* value = findWord(commandLine, i == 0 ? "ip=" : name);
        cards[i].address = value ? parseAddress(value) : 0;
    }
}

/// Prints without end, and listens between the lines.
static _Noreturn void flood(void) {
    while (!sawCtrlAltDel()) print("tiny: a line of the flood, which has no end and says nothing\n");
    print("tiny: Ctrl-Alt-Del\n");
    reset();
}

/// Entry: `zeroPage` as the boot protocol has it.
_Noreturn void guestMain(const uint8_t* zeroPage) {
    uint32_t pointer;
    memcpy(&pointer, zeroPage + COMMAND_LINE_POINTER, sizeof(pointer));
    commandLine = (const char*)(uintptr_t)pointer;
    print("tiny: up\ntiny: command line ");
    print(commandLine);
    print("\n");
    if (findWord(commandLine, "tiny.halt")) halt();
    if (findWord(commandLine, "tiny.panic")) {
        print("Kernel panic - not syncing: tiny.panic\n");
        reset();
    }
    if (findWord(commandLine, "tiny.exit")) reset();
    if (findWord(commandLine, "tiny.flood")) flood();
    timeLoop();
    findDevices();
    readAddresses();
    say("tiny: ", cardCount, " cards, ");
    say("", diskCount, " disks\ntiny: ready\n");

    for (unsigned round = 0;; ++round) {
        for (unsigned i = 0; i < cardCount; ++i) {
            size_t size;
            uint16_t token;
            const uint8_t* frame = takeFrame(&cards[i], &size, &token);
            if (!frame) continue;
            handleFrame(&cards[i], frame, size);
            returnFrame(&cards[i], token);
        }
        // A port costs an exit to the VMM, memory does not.
        if (round % 1024 == 0 && sawCtrlAltDel()) {
            print("tiny: Ctrl-Alt-Del\n");
            reset();
        }
    }
}
