/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What a descriptor points at, resolved while its thread leaves the CPU (rule 17): later the number
 * may be another file. The answer is a hash of the file's identity; the first time, a record says
 * what it stands for.
 */
#ifndef LACUNA_OBJECT_H
#define LACUNA_OBJECT_H

static __always_inline void describe_socket(struct object_record *record, struct file *file)
{
	struct socket *socket = BPF_CORE_READ(file, private_data);
	struct sock *sk = BPF_CORE_READ(socket, sk);

	if (!sk)
		return;
	record->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	record->type = BPF_CORE_READ(sk, sk_type);
	record->protocol = BPF_CORE_READ(sk, sk_protocol);
	record->state = BPF_CORE_READ(sk, __sk_common.skc_state);
	record->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	record->remote_port = BPF_CORE_READ(sk, __sk_common.skc_dport);
	record->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	if (record->family == AF_INET) {
		u32 local = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		u32 remote = BPF_CORE_READ(sk, __sk_common.skc_daddr);

		__builtin_memcpy(record->local, &local, sizeof(local));
		__builtin_memcpy(record->remote, &remote, sizeof(remote));
	} else if (record->family == AF_INET6) {
		bpf_core_read(record->local, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(record->remote, 16, &sk->__sk_common.skc_v6_daddr);
	}
}

static __noinline int send_object(struct cpu_state *cpu, u64 id, struct file *file, u64 *entry)
{
	struct object_record *record = reserve(cpu, sizeof(*record));
	struct inode *inode;
	const unsigned char *name;

	if (!record)
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	name = BPF_CORE_READ(file, f_path.dentry, d_name.name);
	__builtin_memset(record, 0, sizeof(*record));
	fill_header(&record->header, RECORD_OBJECT, id);
	record->dev = BPF_CORE_READ(inode, i_sb, s_dev);
	record->ino = BPF_CORE_READ(inode, i_ino);
	record->magic = BPF_CORE_READ(inode, i_sb, s_magic);
	record->mode = BPF_CORE_READ(inode, i_mode);
	bpf_probe_read_kernel_str(record->name, sizeof(record->name), name);
	if ((record->mode & S_IFMT) == S_IFSOCK)
		describe_socket(record, file);
	submit(cpu, record);
	mark_seen(entry, id);
	return 0;
}

/* A socket is another object once it has another peer, or listens. */
static __always_inline u64 socket_identity(struct file *file)
{
	struct socket *socket = BPF_CORE_READ(file, private_data);
	struct sock *sk = BPF_CORE_READ(socket, sk);
	u64 listens = BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_LISTEN;

	return (u64)BPF_CORE_READ(sk, __sk_common.skc_daddr) << 32 | listens << 16 |
	       BPF_CORE_READ(sk, __sk_common.skc_dport);
}

/* The sock of a file that is a socket, if it is one of TCP: what connections are known by. */
static __always_inline u64 tcp_of(struct file *file)
{
	struct socket *socket = BPF_CORE_READ(file, private_data);
	struct sock *sk = BPF_CORE_READ(socket, sk);
	u32 family;

	if (!sk || BPF_CORE_READ(sk, sk_type) != SOCK_STREAM ||
	    BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP)
		return 0;
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	return family == AF_INET || family == AF_INET6 ? (u64)sk : 0;
}

static __noinline int identify(struct resolved_file *known, struct file *file)
{
	struct inode *inode = (struct inode *)known->inode;
	u32 mode = BPF_CORE_READ(inode, i_mode);
	u64 device = BPF_CORE_READ(inode, i_sb, s_dev);
	u64 magic = BPF_CORE_READ(inode, i_sb, s_magic);

	known->object = hash(device, known->ino);
	if ((mode & S_IFMT) == S_IFSOCK) {
		known->object = hash(known->object, socket_identity(file));
		known->tcp = tcp_of(file);
	} else if (magic == ANON_INODE_FS) { /* one inode for all of them */
		known->object = hash(known->object, known->private_data);
	}
	return 0;
}

static __always_inline struct file *file_of(struct task_struct *task, u32 fd)
{
	struct fdtable *table;

	if (!task->files)
		return NULL;
	table = task->files->fdt;
	if (fd >= table->max_fds)
		return NULL;
	return (struct file *)read_pointer((u64)(table->fd + fd));
}

/* The ring of io_uring that a thread names by a number of its own, where it has one there. */
static __always_inline struct file *registered_ring(struct task_struct *task, u32 place)
{
	u64 own;

	if (!has_registered_rings() || place >= REGISTERED_RINGS)
		return NULL;
	own = read_pointer((u64)&task->io_uring);
	own += bpf_core_field_offset(struct io_uring_task, registered_rings);
	return (struct file *)read_pointer(own + place * sizeof(u64));
}

/*
 * The id of a file. The last one is remembered: the address of a file may be used again, so its inode,
 * number and private data must match too.
 */
static __always_inline u64 resolve_file(struct cpu_state *cpu, struct resolved_file *known,
					struct file *file)
{
	struct resolved_file now;
	u64 *entry;

	now.file = (u64)file;
	read_file(file, &now);
	if (known->file != now.file || known->inode != now.inode || known->ino != now.ino ||
	    known->private_data != now.private_data || !known->object) {
		now.object = 0;
		now.tcp = 0;
		*known = now;
		identify(known, file);
	}
	entry = unseen(known->object);
	if (entry)
		send_object(cpu, known->object, file, entry);
	return known->object;
}

/* The id of what `fd` points at, 0 where it points at nothing; `registered`: it is the place of a ring. */
static __always_inline u64 resolve(struct cpu_state *cpu, struct thread_state *state,
			      struct task_struct *task, u32 fd, bool registered)
{
	struct file *file = registered ? registered_ring(task, fd) : file_of(task, fd);

	return file ? resolve_file(cpu, &state->resolved, file) : 0;
}

#endif
