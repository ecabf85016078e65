/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * A classifier for tests: drops as many TCP segments with data as it is told to, and notes when each one came
 * by and what became of it. It is a test's truth about the network, so it shares nothing with the probes.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define NOTES_MAX 64
#define IPV4_HEADER 14
#define TC_ACT_OK 0
#define TC_ACT_SHOT 2

struct __sk_buff {
	__u32 len;
};

struct noted {
	__u64 at;
	__u32 bytes;
	__u32 dropped;
};

/* `left`: how many are still to be dropped; set by the test. */
struct dropper {
	__u32 left;
	__u32 count;
	struct noted notes[NOTES_MAX];
};

struct dropper dropper = {};

/* Bytes of TCP data in an Ethernet frame with IPv4. */
static __u32 data_bytes(struct __sk_buff *skb)
{
	__u8 protocol = 0, lengths = 0, offset = 0;
	__u16 total = 0;
	__u32 header;

	bpf_skb_load_bytes(skb, IPV4_HEADER, &lengths, 1);
	bpf_skb_load_bytes(skb, IPV4_HEADER + 9, &protocol, 1);
	bpf_skb_load_bytes(skb, IPV4_HEADER + 2, &total, 2);
	if (lengths >> 4 != 4 || protocol != IPPROTO_TCP)
		return 0;
	header = (lengths & 0xf) * 4;
	bpf_skb_load_bytes(skb, IPV4_HEADER + header + 12, &offset, 1);
	return bpf_ntohs(total) - header - (offset >> 4) * 4;
}

SEC("tc")
int drop_data(struct __sk_buff *skb)
{
	__u32 bytes = data_bytes(skb), count = dropper.count;
	struct noted *noted;
	int dropped = dropper.left > 0;

	if (!bytes)
		return TC_ACT_OK;
	noted = &dropper.notes[count % NOTES_MAX];
	noted->at = bpf_ktime_get_ns();
	noted->bytes = bytes;
	noted->dropped = dropped;
	dropper.count = count + 1;
	if (!dropped)
		return TC_ACT_OK;
	dropper.left--;
	return TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
