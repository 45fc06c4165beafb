#include "disk.h"

enum Order { READ = 0, WRITE = 1, FLUSH = 4 };

enum { READ_ONLY_FEATURE = 1u << 5, FLUSH_FEATURE = 1u << 9, NOT_SUPPORTED = 2 };

static struct {
    Device device;
    struct Queue queue;
    struct {
        uint32_t order, reserved;
        uint64_t sector;
    } header;
    uint8_t data[SECTOR], status;
    bool silent;  // an order is still with the device: its memory must be left alone
} disks[DISKS_MAX];

unsigned diskCount;

void addDisk(Device device) {
    if (diskCount == DISKS_MAX) return;
    disks[diskCount].device = device;
    openDevice(device, READ_ONLY_FEATURE | FLUSH_FEATURE);
    giveQueue(device, 0, &disks[diskCount].queue);
    startDevice(device);
    ++diskCount;
}

uint64_t sectorsOf(unsigned disk) {
    const volatile uint32_t* capacity = (const volatile uint32_t*)configurationOf(disks[disk].device);
    return (uint64_t)capacity[1] << 32 | capacity[0];
}

static uint8_t run(unsigned disk, enum Order order) {
    struct Queue* queue = &disks[disk].queue;
    struct Descriptor* chain = queue->descriptors;
    if (disks[disk].silent) return DISK_SILENT;
    disks[disk].header.order = order;
    disks[disk].status = DISK_SILENT;
    unsigned last = 0;
    chain[0] = (struct Descriptor){(uintptr_t)&disks[disk].header, sizeof(disks[disk].header), MORE, 1};
    if (order != FLUSH) {
        const uint16_t flags = order == READ ? MORE | DEVICE_WRITES : MORE;
        chain[++last] = (struct Descriptor){(uintptr_t)disks[disk].data, SECTOR, flags, 2};
    }
    chain[++last] = (struct Descriptor){(uintptr_t)&disks[disk].status, 1, DEVICE_WRITES, 0};
    offer(disks[disk].device, 0, queue, 0);

    uint16_t head;
    uint32_t written;
    const uint64_t begin = ticks();
    while (!takeUsed(queue, &head, &written))
        if (ticks() - begin > PATIENCE) {
            disks[disk].silent = true;
            return DISK_SILENT;
        }
    return *(volatile uint8_t*)&disks[disk].status;
}

uint8_t readSector(unsigned disk, uint8_t sector[SECTOR]) {
    const uint8_t status = run(disk, READ);
    memcpy(sector, disks[disk].data, SECTOR);
    return status;
}

uint8_t writeSector(unsigned disk, const uint8_t sector[SECTOR]) {
    if (disks[disk].silent) return DISK_SILENT;
    memcpy(disks[disk].data, sector, SECTOR);
    const uint8_t written = run(disk, WRITE);
    if (written != 0) return written;
    const uint8_t flushed = run(disk, FLUSH);
    return flushed == NOT_SUPPORTED ? 0 : flushed;
}
