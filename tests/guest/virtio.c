#include "virtio.h"

#include "text.h"

enum Register {
    MAGIC = 0x00,
    VERSION = 0x04,
    TYPE = 0x08,
    DEVICE_FEATURES = 0x10,
    DEVICE_FEATURES_SELECT = 0x14,
    DRIVER_FEATURES = 0x20,
    DRIVER_FEATURES_SELECT = 0x24,
    QUEUE_SELECT = 0x30,
    QUEUE_SIZE = 0x38,
    QUEUE_READY = 0x44,
    QUEUE_NOTIFY = 0x50,
    STATUS = 0x70,
    DESCRIPTORS = 0x80,
    AVAILABLE = 0x90,
    USED = 0xa0,
    CONFIGURATION = 0x100,
};

enum Status { ACKNOWLEDGED = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };

enum { VIRT = 0x74726976, MODERN = 2, VERSION_1 = 1 /* bit 32 */, NO_INTERRUPTS = 1 };

static uint32_t get(Device device, enum Register offset) {
    return *(volatile uint32_t*)(device + offset);
}

static void set(Device device, enum Register offset, uint32_t value) {
    *(volatile uint32_t*)(device + offset) = value;
}

static void setAddress(Device device, enum Register offset, const volatile void* address) {
    set(device, offset, (uint32_t)(uintptr_t)address);
    set(device, offset + 4, 0);
}

Device nextDevice(const char** line) {
    const char* word;
    while ((word = findWord(*line, "virtio_mmio.device="))) {  // such as 4K@0xc0001000:5
        while (*word && *word != ' ' && *word != '@') ++word;
        *line = word;
        if (*word != '@') continue;
        ++*line;
        Device device = (Device)(uintptr_t)takeNumber(line);
        const uintptr_t address = (uintptr_t)device;
        const bool mapped = address >> 30 == 3;  // start.S
        while (**line && **line != ' ') ++*line;
        if (mapped && get(device, MAGIC) == VIRT && get(device, VERSION) == MODERN) return device;
    }
    return NULL;
}

uint32_t typeOf(Device device) {
    return get(device, TYPE);
}

volatile uint8_t* configurationOf(Device device) {
    return device + CONFIGURATION;
}

void openDevice(Device device, uint32_t features) {
    set(device, STATUS, 0);
    set(device, STATUS, ACKNOWLEDGED);
    set(device, STATUS, ACKNOWLEDGED | DRIVER);
    set(device, DEVICE_FEATURES_SELECT, 0);
    const uint32_t offered = get(device, DEVICE_FEATURES);
    set(device, DRIVER_FEATURES_SELECT, 0);
    set(device, DRIVER_FEATURES, offered & features);
    set(device, DRIVER_FEATURES_SELECT, 1);
    set(device, DRIVER_FEATURES, VERSION_1);
    set(device, STATUS, ACKNOWLEDGED | DRIVER | FEATURES_OK);
}

void giveQueue(Device device, uint32_t number, struct Queue* queue) {
    queue->available.flags = NO_INTERRUPTS;
    set(device, QUEUE_SELECT, number);
    set(device, QUEUE_SIZE, QUEUE_LENGTH);
    setAddress(device, DESCRIPTORS, queue->descriptors);
    setAddress(device, AVAILABLE, &queue->available);
    setAddress(device, USED, &queue->used);
    set(device, QUEUE_READY, 1);
}

void startDevice(Device device) {
    set(device, STATUS, ACKNOWLEDGED | DRIVER | FEATURES_OK | DRIVER_OK);
}

void offer(Device device, uint32_t number, struct Queue* queue, uint16_t head) {
    queue->available.ring[queue->available.index % QUEUE_LENGTH] = head;
    barrier();
    ++queue->available.index;
    barrier();
    set(device, QUEUE_NOTIFY, number);
}

bool takeUsed(struct Queue* queue, uint16_t* head, uint32_t* size) {
    if (queue->taken == queue->used.index) return false;
    barrier();
    const uint16_t place = queue->taken++ % QUEUE_LENGTH;
    *head = (uint16_t)queue->used.ring[place].head;
    *size = queue->used.ring[place].size;
    return true;
}

uint16_t pending(const struct Queue* queue) {
    return (uint16_t)(queue->available.index - queue->used.index);
}
