/// The bare machine: ports, the serial line, the keyboard's controller, the timer and the counter of ticks.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// The processor's time stamp counter. Its rate is unknown, about one to five thousand million a second.
static inline uint64_t ticks(void) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

/// Of the machine's timer: real time, whatever the processor's ticks are.
enum { BEATS_PER_SECOND = 1193182, TOO_MANY_BEATS = 0xffff };

/// Begins to count beats. Nothing is interrupted by it.
void startBeats(void);
/// Beats since startBeats(); TOO_MANY_BEATS from the 55th millisecond on.
unsigned beats(void);

/// How long to wait for a device or a peer, in ticks: one to four seconds.
#define PATIENCE 4000000000UL

/// What was written stands in memory before what follows, also in the eyes of a device.
static inline void barrier(void) {
    __asm__ volatile("mfence" ::: "memory");
}

void* memcpy(void* target, const void* source, size_t size);
void* memset(void* target, int value, size_t size);

/// Writes to the first serial port.
void print(const char* text);
/// Whether Ctrl, Alt and Del were pressed, in that order, since the machine began. Takes one key at a time.
bool sawCtrlAltDel(void);
/// By the keyboard's controller, as Linux does with reboot=k: a microVM ends then.
_Noreturn void reset(void);
/// For good: nothing interrupts this machine.
_Noreturn void halt(void);
