/// Disks: their first sector.
#pragma once
#include "virtio.h"

enum { DISKS_MAX = 8, SECTOR = 512 };

extern unsigned diskCount;

/// Makes a block device the next disk; those beyond DISKS_MAX are left alone.
void addDisk(Device device);
/// Size of a disk in sectors.
uint64_t sectorsOf(unsigned disk);
/// Each gives the device's word: 0 done, 1 failed, 2 not supported; or DISK_SILENT.
enum { DISK_SILENT = 255 };
uint8_t readSector(unsigned disk, uint8_t sector[SECTOR]);
/// Also has the device write it to its medium, if it has an order for that.
uint8_t writeSector(unsigned disk, const uint8_t sector[SECTOR]);
