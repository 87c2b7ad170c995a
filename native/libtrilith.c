// libtrilith.so: by LD_PRELOAD, a program's getaddrinfo and connect reach services by name: address and port of a chosen instance.
//
// Build: cc -shared -fPIC -O2 -o libtrilith.so native/libtrilith.c   (add -ldl where glibc is older than 2.34)
#define _GNU_SOURCE

#include "connect.h"
#include "datagrams.h"
#include "deep-bound.h"
#include "resolve.h"
