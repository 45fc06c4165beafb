#pragma once

/// Marks what the shared SDK library offers; everything else is built with hidden visibility.
#define MERGEN_SDK_API __attribute__((visibility("default")))
