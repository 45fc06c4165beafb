#include "memory_storage.hpp"

MERGEN_PLUGIN(mergen::StorageBackend, mergen::storage::MemoryStorage, "storage", "memory", "1.0.0",
              mergen::storage::MemoryStorage::keys)
