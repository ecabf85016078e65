// SPDX-License-Identifier: Apache-2.0
//! What a kernel stack proves about the wait that it was taken in.
//!
//! A table from kernel functions to causes, for kernels 5.10 to 7.2. A function is listed only where
//! a thread that sleeps below it waits for that and nothing else; names that several paths share are
//! left out. Where several rows match one stack, the order of causes decides, as everywhere.

use super::Cause;

/// What a kernel stack says; nothing where no row of the table matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StackClass(Option<Cause>);

impl StackClass {
    /// Classifies a stack by its function names, in any order, without offsets. A suffix that the
    /// compiler made (`.isra.0`, `.constprop.0`, `.part.0`, `.cold`) is ignored.
    pub fn of(frames: &[Box<str>]) -> StackClass {
        StackClass(
            frames
                .iter()
                .filter_map(|frame| function_cause(frame))
                .min(),
        )
    }

    /// The cause that it proves.
    pub fn cause(self) -> Option<Cause> {
        self.0
    }

    /// The class that stands for a cause; the inverse of [`StackClass::cause`].
    pub(crate) fn from_cause(cause: Option<Cause>) -> StackClass {
        StackClass(cause)
    }
}

/// The cause that one function proves.
fn function_cause(frame: &str) -> Option<Cause> {
    let name = frame.split('.').next().unwrap_or(frame);
    let exact = FUNCTIONS
        .iter()
        .find(|row| row.1.contains(&name))
        .map(|row| row.0);
    exact.or_else(|| remote_file_system(name).then_some(Cause::FsRemote))
}

/// Functions of a client of a remote file system, by prefix: there are hundreds, and all that sleep
/// wait for the server. `fuse_dev_*` is the other side (the daemon that waits for requests), and so
/// is `nfsd_*`, which the prefixes do not match.
fn remote_file_system(name: &str) -> bool {
    const PREFIXES: [&str; 14] = [
        "nfs_",
        "nfs3_",
        "nfs4_",
        "_nfs4_",
        "rpc_",
        "__rpc_",
        "fuse_",
        "cifs_",
        "smb2_",
        "SMB2_",
        "p9_",
        "v9fs_",
        "ceph_",
        "virtio_fs_",
    ];
    !name.starts_with("fuse_dev_") && PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// One row: the cause, and the functions that prove it.
type Row = (Cause, &'static [&'static str]);

/// The table. Each row says why its functions belong there.
const FUNCTIONS: &[Row] = &[
    // Direct compaction sleeps on page locks, writeback and congestion on the allocation's behalf.
    (
        Cause::MemCompaction,
        &[
            "try_to_compact_pages",
            "compact_zone",
            "compact_zone_order",
            "__alloc_pages_direct_compact",
        ],
    ),
    // The penalty sleep after memory.high was passed, on the way back to user mode (renamed with
    // two underscores in 6.18), and reclaim for a cgroup's limit.
    (
        Cause::MemLimit,
        &[
            "mem_cgroup_handle_over_high",
            "__mem_cgroup_handle_over_high",
            "reclaim_high",
            "try_to_free_mem_cgroup_pages",
        ],
    ),
    // Direct and node reclaim, and the sleeps that hold an allocation back while others reclaim.
    (
        Cause::MemReclaim,
        &[
            "try_to_free_pages",
            "__alloc_pages_direct_reclaim",
            "__perform_reclaim",
            "throttle_direct_reclaim",
            "reclaim_throttle",
            "wait_iff_congested",
            "node_reclaim",
            "__node_reclaim",
        ],
    ),
    // The allocation waits for a victim to die: for the host, or for the cgroup.
    (
        Cause::MemOom,
        &[
            "out_of_memory",
            "oom_kill_process",
            "pagefault_out_of_memory",
            "mem_cgroup_out_of_memory",
            "mem_cgroup_oom",
            "mem_cgroup_oom_synchronize",
            "__alloc_pages_may_oom",
        ],
    ),
    // A writer is made to pause; where the compiler inlined the first, its only sleeping caller is left.
    (
        Cause::DiskDirty,
        &[
            "balance_dirty_pages",
            "balance_dirty_pages_ratelimited",
            "balance_dirty_pages_ratelimited_flags",
        ],
    ),
    // blk-throttle's debt, writeback throttling, io.cost and io.latency make the submitter wait.
    (
        Cause::DiskLimit,
        &[
            "blkcg_maybe_throttle_current",
            "blkcg_maybe_throttle_blkg",
            "__blkcg_punt_bio_submit",
            "wbt_wait",
            "__wbt_wait",
            "rq_qos_wait",
            "__rq_qos_throttle",
            "ioc_rqos_throttle",
            "blkcg_iolatency_throttle",
        ],
    ),
    // A page comes back from swap, by fault or by a read of shared memory (swap_readpage before 6.5).
    (
        Cause::MemSwap,
        &[
            "do_swap_page",
            "swap_readpage",
            "swap_read_folio",
            "swapin_readahead",
            "swap_cluster_readahead",
            "swap_vma_readahead",
            "shmem_swapin_folio",
            "shmem_swapin_page",
            "shmem_swapin",
        ],
    ),
    // A file page is read by a page fault, also by one inside a system call.
    (
        Cause::MemFault,
        &[
            "filemap_fault",
            "ext4_filemap_fault",
            "xfs_filemap_fault",
            "__xfs_filemap_fault",
            "shmem_fault",
        ],
    ),
    // FUSE's and SMB's waits for an answer, whose names have no telling prefix.
    (
        Cause::FsRemote,
        &[
            "request_wait_answer",
            "__fuse_simple_request",
            "__fuse_request_send",
            "wait_for_response",
            "compound_send_recv",
            "netfs_wait_for_read",
            "netfs_wait_for_pause",
        ],
    ),
    // fsync and sync, and every wait for a journal: its commit, its locked transaction, its space.
    (
        Cause::DiskFlush,
        &[
            "vfs_fsync",
            "vfs_fsync_range",
            "do_fsync",
            "__x64_sys_fsync",
            "__x64_sys_fdatasync",
            "ksys_sync",
            "sync_filesystem",
            "__sync_filesystem",
            "sync_inodes_sb",
            "file_write_and_wait_range",
            "blkdev_issue_flush",
            "jbd2_log_wait_commit",
            "jbd2_complete_transaction",
            "jbd2_journal_force_commit",
            "jbd2_journal_commit_transaction",
            "jbd2_log_do_checkpoint",
            "__jbd2_log_wait_for_space",
            "wait_transaction_locked",
            "wait_transaction_switching",
            "add_transaction_credits",
            "xfs_log_force",
            "xfs_log_force_seq",
            "xlog_wait_on_iclog",
            "xlog_grant_head_wait",
            "btrfs_sync_log",
            "btrfs_commit_transaction",
        ],
    ),
    // Reads of file pages and of metadata blocks (generic_file_buffered_read on 5.10).
    (
        Cause::DiskRead,
        &[
            "filemap_read",
            "filemap_get_pages",
            "filemap_update_page",
            "generic_file_buffered_read",
            "generic_file_buffered_read_get_pages",
            "do_read_cache_page",
            "do_read_cache_folio",
            "__bread_gfp",
            "__breadahead",
            "ext4_read_bh",
            "ext4_bread",
            "xfs_buf_read_map",
        ],
    ),
    // A writer waits until a page is stable or written back.
    (
        Cause::DiskWrite,
        &[
            "folio_wait_stable",
            "wait_for_stable_page",
            "folio_wait_writeback",
            "wait_on_page_writeback",
        ],
    ),
    // The three-way handshake.
    (
        Cause::NetConnect,
        &["inet_wait_for_connect", "sk_stream_wait_connect"],
    ),
    // TCP has no room for more to send.
    (Cause::NetSend, &["sk_stream_wait_memory"]),
    // UDP and raw sockets have received nothing.
    (
        Cause::NetDatagram,
        &[
            "__skb_recv_udp",
            "udp_recvmsg",
            "udpv6_recvmsg",
            "raw_recvmsg",
        ],
    ),
    // A listening socket has no connection to give.
    (
        Cause::NetIdle,
        &["inet_csk_accept", "inet_csk_wait_for_connect"],
    ),
    // Sleeping locks of the kernel; the fast paths never sleep, so their callers tell nothing.
    (
        Cause::LockKernel,
        &[
            "__mutex_lock",
            "__mutex_lock_slowpath",
            "__mutex_lock_killable_slowpath",
            "__mutex_lock_interruptible_slowpath",
            "__ww_mutex_lock",
            "rwsem_down_read_slowpath",
            "rwsem_down_write_slowpath",
            "percpu_rwsem_wait",
            "__percpu_down_read",
            "percpu_down_write",
            "rt_mutex_slowlock",
            "rt_mutex_slowlock_block",
            "rwbase_read_lock",
            "rwbase_write_lock",
            "rtlock_slowlock_locked",
            "__down",
            "__down_common",
            "___down_common",
            "__lock_sock",
        ],
    ),
    // Every futex sleep; which kind it was, the futex word says, not the stack.
    (
        Cause::WaitNotify,
        &["futex_wait_queue", "futex_wait_queue_me", "futex_do_wait"],
    ),
    (Cause::WaitSleep, &["do_nanosleep", "hrtimer_nanosleep"]),
    // Pipes (renamed in 6.14), local sockets, eventfd, message queues, and a FIFO's other end.
    (
        Cause::WaitPipe,
        &[
            "pipe_read",
            "pipe_write",
            "anon_pipe_read",
            "anon_pipe_write",
            "pipe_wait_readable",
            "pipe_wait_writable",
            "wait_for_partner",
            "unix_stream_data_wait",
            "unix_stream_read_generic",
            "unix_wait_for_peer",
            "eventfd_read",
            "signalfd_dequeue",
            "wq_sleep",
            "do_msgrcv",
            "do_msgsnd",
        ],
    ),
    // wait4, waitid, and the parent of a vfork.
    (
        Cause::WaitChild,
        &[
            "do_wait",
            "kernel_wait4",
            "kernel_waitid",
            "wait_for_vfork_done",
        ],
    ),
    (
        Cause::WaitPoll,
        &[
            "ep_poll",
            "do_epoll_wait",
            "do_sys_poll",
            "do_select",
            "io_cqring_wait",
        ],
    ),
    // Stopped by a signal or a tracer, or frozen.
    (
        Cause::WaitStopped,
        &[
            "do_signal_stop",
            "ptrace_stop",
            "do_freezer_trap",
            "__refrigerator",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::Cause;
    use super::FUNCTIONS;
    use super::StackClass;

    /// The class of a stack written innermost first, separated by blanks.
    fn class(frames: &str) -> Option<Cause> {
        let frames: Vec<Box<str>> = frames.split_whitespace().map(Box::from).collect();
        StackClass::of(&frames).cause()
    }

    #[test]
    fn every_row_is_found_by_each_of_its_names() {
        for (cause, names) in FUNCTIONS {
            for name in *names {
                assert_eq!(
                    class(&format!("schedule {name} do_syscall_64")),
                    Some(*cause),
                    "{name}"
                );
                assert_eq!(
                    class(&format!("schedule {name}.isra.0")),
                    Some(*cause),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn no_function_is_in_two_rows() {
        let names: Vec<&str> = FUNCTIONS.iter().flat_map(|row| row.1).copied().collect();
        for (at, name) in names.iter().enumerate() {
            assert!(!names[at + 1..].contains(name), "{name}");
        }
    }

    #[test]
    fn suffixes_of_the_compiler_are_ignored() {
        assert_eq!(
            class("schedule_timeout reclaim_high.constprop.0"),
            Some(Cause::MemLimit)
        );
        assert_eq!(
            class("schedule rwsem_down_read_slowpath.part.0.cold"),
            Some(Cause::LockKernel)
        );
    }

    #[test]
    fn an_unknown_or_hidden_stack_says_nothing() {
        assert_eq!(class("__schedule schedule worker_thread kthread"), None);
        assert_eq!(class(""), None);
    }

    #[test]
    fn real_stacks_have_their_cause() {
        let stacks = [
            (
                "__schedule schedule schedule_timeout schedule_timeout_killable \
                 __mem_cgroup_handle_over_high exit_to_user_mode_loop do_syscall_64",
                Cause::MemLimit,
            ),
            (
                "io_schedule folio_wait_bit_common filemap_fault __do_fault do_read_fault \
                 handle_mm_fault do_user_addr_fault exc_page_fault asm_exc_page_fault",
                Cause::MemFault,
            ),
            (
                "io_schedule folio_wait_bit_common filemap_get_pages filemap_read vfs_read",
                Cause::DiskRead,
            ),
            (
                "schedule rwsem_down_read_slowpath down_read lock_mm_and_find_vma \
                 do_user_addr_fault exc_page_fault",
                Cause::LockKernel,
            ),
            (
                "io_schedule folio_wait_writeback file_write_and_wait_range ext4_sync_file \
                 vfs_fsync_range do_fsync",
                Cause::DiskFlush,
            ),
            (
                "io_schedule rq_qos_wait wbt_wait submit_bio swap_writepage shrink_folio_list \
              try_to_free_pages",
                Cause::MemReclaim,
            ),
            (
                "schedule rpc_wait_bit_killable out_of_line_wait_on_bit nfs_wait_bit_killable",
                Cause::FsRemote,
            ),
        ];
        for (frames, cause) in stacks {
            assert_eq!(class(frames), Some(cause), "{frames}");
        }
    }

    #[test]
    fn the_daemon_of_a_fuse_file_system_waits_for_nobody_remote() {
        assert_eq!(
            class("schedule fuse_dev_do_read fuse_dev_read vfs_read"),
            None
        );
    }
}
