/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Programs that do nothing, at the hooks that every switch and wake-up goes through: the floor. */
#include "kernel.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("tp_btf/sched_switch")
int empty_switch(void *ctx __attribute__((unused)))
{
	return 0;
}

SEC("tp_btf/sched_waking")
int empty_waking(void *ctx __attribute__((unused)))
{
	return 0;
}
