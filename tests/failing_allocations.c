// Aligned memory that runs out on command, to be preloaded: what tensors and kernels' scratch are made of.
//
//   arm(k): the k-th such request from then on (0 is the next) fails, once; k < 0: none does.
//   fired(): 0 if it has not come to that since, 2 if the compiled module asked, 1 if another did.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static _Atomic long left = -1;
static _Atomic int who = 0;

void arm(long k) {
  left = k;
  who = 0;
}

int fired(void) { return who; }

int posix_memalign(void** memory, size_t alignment, size_t bytes) {
  static int (*real)(void**, size_t, size_t);
  if (real == NULL) real = (int (*)(void**, size_t, size_t))dlsym(RTLD_NEXT, "posix_memalign");
  if (left >= 0 && (alignment == 64 || alignment == 1 << 21) && left-- == 0) {
    Dl_info caller;
    const int known = dladdr(__builtin_return_address(0), &caller) != 0;
    who = known && strstr(caller.dli_fname, "mtlfast/_C.") != NULL ? 2 : 1;
    return ENOMEM;
  }
  return real(memory, alignment, bytes);
}
