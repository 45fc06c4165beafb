// The manifest of a trial library: a good one, save for what the build defines otherwise (TRIAL_*). One library of the
// tests is this file with one definition.
#include <mergen/sdk/manifest.h>

#include "entries.hpp"

#ifndef TRIAL_STRUCT_SIZE
#define TRIAL_STRUCT_SIZE sizeof(mergen_manifest)
#endif
#ifndef TRIAL_MAJOR
#define TRIAL_MAJOR MERGEN_SDK_MAJOR
#endif
#ifndef TRIAL_MINOR
#define TRIAL_MINOR MERGEN_SDK_MINOR
#endif
#ifndef TRIAL_FINGERPRINT
#define TRIAL_FINGERPRINT trial_fingerprint()
#endif
#ifndef TRIAL_KIND
#define TRIAL_KIND "storage"
#endif
#ifndef TRIAL_NAME
#define TRIAL_NAME "bad"
#endif
#ifndef TRIAL_VERSION
#define TRIAL_VERSION "1.2.3"
#endif
#ifndef TRIAL_KEY_NAME
#define TRIAL_KEY_NAME "limit"
#endif
#ifndef TRIAL_KEY_TYPE
#define TRIAL_KEY_TYPE MERGEN_KEY_SIZE
#endif
#ifndef TRIAL_KEY_DEFAULT
#define TRIAL_KEY_DEFAULT "64KiB"
#endif
#ifndef TRIAL_KEY_SENTENCE
#define TRIAL_KEY_SENTENCE "Nothing; it is here to be read."
#endif
#ifndef TRIAL_CREATE
#define TRIAL_CREATE trial_create
#endif
#ifndef TRIAL_DESTROY
#define TRIAL_DESTROY trial_destroy
#endif

namespace {

const mergen_key keys[] = {
    {"fault", MERGEN_KEY_STRING, "", "Where and how to misbehave; empty: not at all."},
    {TRIAL_KEY_NAME, TRIAL_KEY_TYPE, TRIAL_KEY_DEFAULT, TRIAL_KEY_SENTENCE},
    {nullptr, MERGEN_KEY_STRING, nullptr, nullptr},
};

const mergen_manifest manifest = {TRIAL_STRUCT_SIZE, TRIAL_MAJOR,   TRIAL_MINOR, TRIAL_FINGERPRINT, TRIAL_KIND,
                                  TRIAL_NAME,        TRIAL_VERSION, keys,        TRIAL_CREATE,      TRIAL_DESTROY};

}  // namespace

#ifdef TRIAL_NULL_MANIFEST
#define TRIAL_EXPORTED nullptr
#else
#define TRIAL_EXPORTED &manifest
#endif
// What BOOST_DLL_ALIAS makes, spelled out: a library may be written without Boost.
extern "C" {
extern __attribute__((visibility("default"))) const void* const mergen_plugin_manifest;
const void* const mergen_plugin_manifest = TRIAL_EXPORTED;
}
