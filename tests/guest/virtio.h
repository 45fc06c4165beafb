/// Devices by virtio 1.x over MMIO, and their split queues, polled.
#pragma once
#include "machine.h"

enum { QUEUE_LENGTH = 64 };  // descriptors of a queue

struct Descriptor {
    uint64_t address;
    uint32_t size;
    uint16_t flags, next;
};

enum DescriptorFlag { MORE = 1, DEVICE_WRITES = 2 };

struct Queue {
    _Alignas(16) struct Descriptor descriptors[QUEUE_LENGTH];
    _Alignas(2) struct {
        uint16_t flags, index, ring[QUEUE_LENGTH], event;
    } available;
    _Alignas(4) volatile struct {
        uint16_t flags, index;
        struct {
            uint32_t head, size;
        } ring[QUEUE_LENGTH];
        uint16_t event;
    } used;
    uint16_t taken;  // of those used
};

typedef volatile uint8_t* Device;

enum DeviceType { NETWORK = 1, BLOCK = 2 };

/// The next device that a word virtio_mmio.device= of the command line names, from `*line` on, which then points behind
/// that word. NULL: there are no more.
Device nextDevice(const char** line);
uint32_t typeOf(Device device);
/// The device's own part of its registers.
volatile uint8_t* configurationOf(Device device);

/// Takes those of `features` (bits 0 to 31) that the device has, and version 1. Then come its queues, then startDevice.
void openDevice(Device device, uint32_t features);
void giveQueue(Device device, uint32_t number, struct Queue* queue);
void startDevice(Device device);

/// Makes the chain of descriptors that begins with `head` available; the device hears of it.
void offer(Device device, uint32_t number, struct Queue* queue, uint16_t head);
/// Takes the next chain that the device has used, and says how many bytes it wrote; false if there is none.
bool takeUsed(struct Queue* queue, uint16_t* head, uint32_t* size);
/// Chains that the device has not used yet.
uint16_t pending(const struct Queue* queue);
