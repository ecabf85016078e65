/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What depends on the processor architecture: saved registers, the ABI bit, the thread pointer, and
 * the layout of preempt_count. x86-64 is what is built and proved. For arm64 this file wants
 * user_pt_regs (syscallno, orig_x0, regs[1..3]), TIF_32BIT of thread_info.flags, thread.uw.tp_value,
 * and preempt_count from thread_info.preempt.count of the task instead of a per-CPU variable;
 * src/arch wants a table of its numbers. Nothing else knows.
 */
#ifndef LACUNA_ARCH_H
#define LACUNA_ARCH_H

#define TS_COMPAT 0x2      /* arch/x86/include/asm/thread_info.h */
#define THREAD_BYTES 16384 /* kernel stack, without KASAN */
#define PT_REGS_BYTES 168

/* include/linux/preempt.h, the same on every architecture. */
#define SOFTIRQ_SERVING 0x100
#define HARDIRQ_OR_NMI 0x00ff0000

struct registers {
	long call; /* negative: the kernel was entered by a fault or an interrupt */
	record_u64 args[4];
};

/*
 * The registers that a task saved when it entered the kernel. They lie at the same place of every
 * task's kernel stack, so the helper for them (5.15, dd6e10fbd9fb) is asked once a CPU for the place.
 */
static __always_inline struct pt_regs *registers_of(struct cpu_state *cpu,
						     struct task_struct *task)
{
	if (!reads_cheaply())
		return (struct pt_regs *)bpf_task_pt_regs(task);
	if (!cpu->registers_at)
		cpu->registers_at = as_number(&cpu->registers_at, bpf_task_pt_regs(task)) -
				    as_number(&cpu->registers_at, (u64)task->stack);
	return bpf_core_cast(task->stack + cpu->registers_at, struct pt_regs);
}

/* Before 5.15 the place is known only from the sizes. */
static __always_inline void saved_registers(struct cpu_state *cpu, struct task_struct *task,
					    struct registers *saved)
{
	struct pt_regs *regs;

	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs)) {
		regs = registers_of(cpu, task);
		saved->call = (long)regs->orig_ax;
		saved->args[0] = regs->di;
		saved->args[1] = regs->si;
		saved->args[2] = regs->dx;
		saved->args[3] = regs->r10;
		return;
	}
	regs = (struct pt_regs *)((u64)task->stack + THREAD_BYTES - PT_REGS_BYTES);
	saved->call = (long)BPF_CORE_READ(regs, orig_ax);
	saved->args[0] = BPF_CORE_READ(regs, di);
	saved->args[1] = BPF_CORE_READ(regs, si);
	saved->args[2] = BPF_CORE_READ(regs, dx);
	saved->args[3] = BPF_CORE_READ(regs, r10);
}

static __always_inline bool in_compat_call(struct task_struct *task)
{
	return task->thread_info.status & TS_COMPAT;
}

static __always_inline u64 thread_pointer(struct task_struct *task)
{
	return task->thread.fsbase;
}

#endif
