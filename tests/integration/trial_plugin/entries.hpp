#pragma once

/// What the manifests of the trial libraries point to. Free of the C++ library, so that the thirty manifests that are
/// made of it compile in no time.
extern "C" {
const char* trial_fingerprint();  ///< of this build: the right one

void* trial_create();
void* trial_create_nothing();
void* trial_create_throwing();
void* trial_create_throwing_int();
void* trial_create_aborting();
void* trial_create_another_type();

void trial_destroy(void* object);
void trial_destroy_throwing(void* object);
void trial_destroy_crashing(void* object);
}
