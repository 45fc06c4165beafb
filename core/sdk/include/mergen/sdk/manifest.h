/* The C face of a plugin: what the host reads before it uses any C++ of it. */
#ifndef MERGEN_SDK_MANIFEST_H
#define MERGEN_SDK_MANIFEST_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The major version changes when a type that crosses the boundary changes (a virtual added to what plugins implement, a
 * member added to a value type); the minor when the host offers more. A plugin loads when its major equals the host's
 * and its minor is not newer. */
#define MERGEN_SDK_MAJOR 4
#define MERGEN_SDK_MINOR 0

/* Two builds may exchange C++ objects only if these are equal. No third-party type crosses the boundary, so no
 * third-party version stands here; when one does, its version is appended. */
#define MERGEN_STRINGIFY_(x) #x
#define MERGEN_STRINGIFY(x) MERGEN_STRINGIFY_(x)
#if defined(__clang__)
#define MERGEN_COMPILER "clang-" MERGEN_STRINGIFY(__clang_major__)
#else
#define MERGEN_COMPILER "gcc-" MERGEN_STRINGIFY(__GNUC__)
#endif

/* How a setting's text is read; the host refuses a value that does not fit before the plugin sees it. */
typedef enum mergen_key_type {
    MERGEN_KEY_STRING = 0,
    MERGEN_KEY_INTEGER = 1,  /* decimal, 64 bits, signed */
    MERGEN_KEY_BOOLEAN = 2,  /* true, false */
    MERGEN_KEY_DURATION = 3, /* integer with ms, s, m or h: "500ms" */
    MERGEN_KEY_SIZE = 4,     /* integer with nothing, KiB, MiB or GiB: bytes */
    MERGEN_KEY_PATH = 5      /* absolute path, or a bare program name where the sentence says so */
} mergen_key_type;

typedef struct mergen_key {
    const char* key; /* the word in the INI file; NULL ends the table */
    mergen_key_type type;
    const char* default_value; /* as it would stand in the file; NULL: the setting must be given */
    const char* sentence;      /* what it means, its unit and its bounds */
} mergen_key;

typedef struct mergen_manifest {   /* fields are only ever appended */
    uint32_t struct_size;          /* sizeof this struct in the plugin's build */
    uint16_t sdk_major;            /* must equal the host's */
    uint16_t sdk_minor;            /* must not exceed the host's */
    const char* fingerprint;       /* compiler and C++ library: equal, as types cross */
    const char* kind;              /* "storage", "network", ...; decides what create() returns */
    const char* name;              /* the word used in the INI file */
    const char* version;           /* the plugin's own */
    const mergen_key* keys;        /* its settings; ends with key NULL; may be NULL */
    void* (*create)(void);         /* a new object of the kind's interface, or NULL; never throws, does no work */
    void (*destroy)(void* object); /* ends what create() gave; never throws */
} mergen_manifest;

/* The symbol that a plugin exports: a pointer to its manifest, as BOOST_DLL_ALIAS makes it. */
#define MERGEN_MANIFEST_SYMBOL "mergen_plugin_manifest"

#ifdef __cplusplus
}
#endif
#endif
