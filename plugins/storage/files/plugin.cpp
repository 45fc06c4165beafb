#include "files_storage.hpp"

MERGEN_PLUGIN(mergen::StorageBackend, mergen::storage::FilesStorage, "storage", "files", "1.0.0",
              mergen::storage::FilesStorage::keys)
