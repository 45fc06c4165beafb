/// Texts of bounded length, and the words of the kernel's command line.
#pragma once
#include "machine.h"

/// A text that grows in a buffer of the caller's; what does not fit is left out. It always ends with a zero.
struct Text {
    char* data;
    size_t size, room;
};

#define TEXT_IN(buffer) \
    { (buffer), 0, sizeof(buffer) - 1 }

void addBytes(struct Text* text, const void* bytes, size_t size);
void add(struct Text* text, const char* word);
void addNumber(struct Text* text, uint64_t number);
/// An IPv4 address, such as 172.30.0.2.
void addAddress(struct Text* text, uint32_t address);

/// The command line, ended by a zero; set once by main.
extern const char* commandLine;

size_t lengthOf(const char* text);
bool startsWith(const char* text, const char* begin);
/// What follows `name` in the first word of `line` that begins with it, or NULL. With "=" in the name: a value.
const char* findWord(const char* line, const char* name);
/// A number, decimal or hexadecimal after 0x, from `*text` on, which then points behind it.
uint64_t takeNumber(const char** text);
/// An IPv4 address at the beginning of `text`, or 0.
uint32_t parseAddress(const char* text);
