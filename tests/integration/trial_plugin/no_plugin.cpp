// A library like any other: no manifest.
extern "C" __attribute__((visibility("default"))) int answer() {
    return 42;
}
