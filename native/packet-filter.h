// The kernel's classic packet filters as <linux/filter.h> has them: musl's compilers come without the kernel's headers.
#ifndef TRILITH_PACKET_FILTER_H
#define TRILITH_PACKET_FILTER_H

#include <stdint.h>

struct sock_filter {
	uint16_t code;
	uint8_t jt, jf;
	uint32_t k;
};

struct sock_fprog {
	unsigned short len;
	struct sock_filter *filter;
};

#define BPF_LD 0x00
#define BPF_ALU 0x04
#define BPF_JMP 0x05
#define BPF_RET 0x06
#define BPF_MISC 0x07
#define BPF_W 0x00
#define BPF_B 0x10
#define BPF_ABS 0x20
#define BPF_LEN 0x80
#define BPF_LSH 0x60
#define BPF_RSH 0x70
#define BPF_JEQ 0x10
#define BPF_JSET 0x40
#define BPF_K 0x00
#define BPF_X 0x08
#define BPF_TAX 0x00
#define BPF_STMT(code, k) {(uint16_t)(code), 0, 0, k}
#define BPF_JUMP(code, k, jt, jf) {(uint16_t)(code), jt, jf, k}

#ifndef SO_ATTACH_FILTER
#define SO_ATTACH_FILTER 26
#endif

#endif
