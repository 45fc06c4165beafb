#include "text.h"

const char* commandLine = "";

void addBytes(struct Text* text, const void* bytes, size_t size) {
    if (size > text->room - text->size) size = text->room - text->size;
    memcpy(text->data + text->size, bytes, size);
    text->size += size;
    text->data[text->size] = 0;
}

void add(struct Text* text, const char* word) {
    addBytes(text, word, lengthOf(word));
}

void addNumber(struct Text* text, uint64_t number) {
    char digits[20];
    size_t begin = sizeof(digits);
    do digits[--begin] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    addBytes(text, digits + begin, sizeof(digits) - begin);
}

void addAddress(struct Text* text, uint32_t address) {
    for (int shift = 24; shift >= 0; shift -= 8) {
        addNumber(text, address >> shift & 0xff);
        if (shift) add(text, ".");
    }
}

size_t lengthOf(const char* text) {
    size_t length = 0;
    while (text[length]) ++length;
    return length;
}

bool startsWith(const char* text, const char* begin) {
    while (*begin)
        if (*text++ != *begin++) return false;
    return true;
}

const char* findWord(const char* line, const char* name) {
    while (*line) {
        while (*line == ' ') ++line;
        if (startsWith(line, name)) return line + lengthOf(name);
        while (*line && *line != ' ') ++line;
    }
    return NULL;
}

uint64_t takeNumber(const char** text) {
    const uint64_t base = startsWith(*text, "0x") ? 16 : 10;
    if (base == 16) *text += 2;
    uint64_t number = 0;
    for (;; ++*text) {
        const char c = **text;
        if (c >= '0' && c <= '9')
            number = number * base + (uint64_t)(c - '0');
        else if (base == 16 && c >= 'a' && c <= 'f')
            number = number * base + (uint64_t)(c - 'a') + 10;
        else
            return number;
    }
}

uint32_t parseAddress(const char* text) {
    uint32_t address = 0;
    for (int part = 0; part < 4; ++part) {
        if (part && *text++ != '.') return 0;
        const char* begin = text;
        const uint64_t number = takeNumber(&text);
        if (text == begin || number > 255) return 0;
        address = address << 8 | (uint32_t)number;
    }
    return address;
}
