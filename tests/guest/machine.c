#include "machine.h"

enum Port {
    TIMER_2 = 0x42,
    TIMER_CONTROL = 0x43,
    KEYBOARD_DATA = 0x60,
    SYSTEM_CONTROL = 0x61,
    KEYBOARD_CONTROL = 0x64,
    SERIAL = 0x3f8
};

// Counter 2 of the timer (8254), which interrupts nobody: it counts down while its gate is open.
enum { COUNT_DOWN_ONCE = 0xb0, HOLD_THE_COUNT = 0x80, GATE_OPEN = 0x01, COUNTED_OUT = 0x20 };

enum { KEYBOARD_FULL = 0x01, KEYBOARD_RESET = 0xfe };

static void out(uint16_t port, uint8_t value) {
    __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}

static uint8_t in(uint16_t port) {
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

void* memcpy(void* target, const void* source, size_t size) {
    void* to = target;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(source), "+c"(size)::"memory");
    return target;
}

void* memset(void* target, int value, size_t size) {
    void* to = target;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
    return target;
}

void print(const char* text) {
    while (*text) out(SERIAL, (uint8_t)*text++);
}

void startBeats(void) {
    out(SYSTEM_CONTROL, GATE_OPEN);
    out(TIMER_CONTROL, COUNT_DOWN_ONCE);
    out(TIMER_2, TOO_MANY_BEATS & 0xff);
    out(TIMER_2, TOO_MANY_BEATS >> 8);
}

unsigned beats(void) {
    out(TIMER_CONTROL, HOLD_THE_COUNT);
    const unsigned low = in(TIMER_2);
    const unsigned left = low | (unsigned)in(TIMER_2) << 8;
    const uint8_t control = in(SYSTEM_CONTROL);
    return control & COUNTED_OUT ? TOO_MANY_BEATS : TOO_MANY_BEATS - left;
}

bool sawCtrlAltDel(void) {
    static const uint8_t codes[] = {0x14, 0x11, 0x71};  // scan code set 2
    static unsigned pressed = 0;
    if (!(in(KEYBOARD_CONTROL)&KEYBOARD_FULL)) return false;
    if (in(KEYBOARD_DATA) == codes[pressed]) ++pressed;  // others, such as the prefix of Del, are passed over
    if (pressed < sizeof(codes)) return false;
    pressed = 0;
    return true;
}

void reset(void) {
    out(KEYBOARD_CONTROL, KEYBOARD_RESET);
    halt();
}

void halt(void) {
    for (;;) __asm__ volatile("cli; hlt");
}
