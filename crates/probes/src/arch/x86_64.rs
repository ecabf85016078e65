// SPDX-License-Identifier: Apache-2.0
//! System call numbers of x86-64 (`arch/x86/entry/syscalls/syscall_64.tbl`), by meaning.

use crate::skel::types::call_class;
use lacuna_timeline::event::Call;

/// The number of `poll`, into which an interrupted one is mapped back.
pub(crate) const CALL_POLL: u16 = 7;
/// The number of `futex`.
pub(crate) const CALL_FUTEX: u16 = 202;
/// The number of `clock_nanosleep`.
pub(crate) const CALL_SLEEP: u16 = 230;

/// `FUTEX_CMD_MASK` of include/uapi/linux/futex.h, and the operations that tell waits apart.
const FUTEX_OPERATION: u64 = !(128 | 256);
const FUTEX_WAITS: [u64; 3] = [0, 9, 11];
const FUTEX_LOCKS_PI: [u64; 2] = [6, 13];

/// What the first argument of a call is, for the kernel side.
pub(crate) fn class(number: u32) -> call_class {
    match number {
        42 => call_class::CALL_CONNECT,
        202 => call_class::CALL_FUTEX,
        449 | 455 => call_class::CALL_FUTEX_WAIT,
        219 => call_class::CALL_RESTART,
        232 | 281 | 441 => call_class::CALL_EPOLL,
        426 => call_class::CALL_RING,
        7 | 271 => call_class::CALL_POLL,
        23 | 270 => call_class::CALL_SELECT,
        // read, write, close, fstat, lseek, ioctl, pread64 .. writev, sendfile, the socket calls,
        // fcntl .. ftruncate, getdents, fallocate, epoll_ctl, splice family, sync_file_range, and the
        // later variants of these.
        0
        | 1
        | 3
        | 5
        | 8
        | 16..=20
        | 40
        | 43..=47
        | 72..=75
        | 77
        | 78
        | 187
        | 217
        | 221
        | 233
        | 242
        | 243
        | 275..=278
        | 285
        | 288
        | 295
        | 296
        | 299
        | 306
        | 307
        | 326
        | 327
        | 328 => call_class::CALL_FD,
        _ => call_class::CALL_PLAIN,
    }
}

/// What a call means. `args` decide where one number has several meanings.
pub(crate) fn meaning(number: u32, args: &[u64; 4]) -> Call {
    match number {
        0 | 17 | 19 | 295 | 327 => Call::Read,
        1 | 18 | 20 | 296 | 328 => Call::Write,
        45 | 47 | 299 => Call::Recv,
        44 | 46 | 307 => Call::Send,
        40 | 275 | 276 | 278 | 326 => Call::Splice,
        42 => Call::Connect,
        43 | 288 => Call::Accept,
        202 => futex(args[1]),
        449 | 455 => Call::FutexWait,
        35 | 230 => Call::Nanosleep,
        232 | 281 | 441 => Call::EpollWait,
        7 | 271 => Call::Poll,
        23 | 270 => Call::Select,
        208 | 333 | 426 => Call::IoWait,
        26 | 74 | 75 | 162 | 277 | 306 => Call::Sync,
        // open .. lstat, access, rename .. chown, mknod, the *at variants, statfs, xattr paths.
        2
        | 4
        | 6
        | 21
        | 76
        | 80
        | 82..=90
        | 92
        | 94
        | 132..=134
        | 137
        | 161
        | 257..=269
        | 280
        | 316
        | 332
        | 437
        | 439
        | 452 => Call::Path,
        3 | 436 => Call::Close,
        16 | 72 | 73 => Call::Control,
        61 | 247 => Call::WaitChild,
        56..=58 | 435 => Call::Fork,
        59 | 322 => Call::Exec,
        60 | 231 => Call::Exit,
        34 | 128 | 130 => Call::Signal,
        64 | 65 | 69 | 70 | 220 | 242 | 243 => Call::MessageQueue,
        9..=12 | 25 | 28 | 149..=152 | 216 | 325 => Call::Memory,
        24 => Call::Yield,
        other => Call::Other(other),
    }
}

fn futex(operation: u64) -> Call {
    let operation = operation & FUTEX_OPERATION;
    if FUTEX_WAITS.contains(&operation) {
        Call::FutexWait
    } else if FUTEX_LOCKS_PI.contains(&operation) {
        Call::FutexLockPi
    } else {
        Call::FutexOther
    }
}

#[cfg(test)]
mod tests {
    use super::Call;
    use super::call_class;
    use super::class;
    use super::meaning;

    #[test]
    fn numbers_mean_what_the_table_of_the_kernel_says() {
        let none = [0; 4];
        assert_eq!(meaning(0, &none), Call::Read);
        assert_eq!(meaning(61, &none), Call::WaitChild);
        assert_eq!(meaning(230, &none), Call::Nanosleep);
        assert_eq!(meaning(281, &none), Call::EpollWait);
        assert_eq!(meaning(9999, &none), Call::Other(9999));
    }

    #[test]
    fn a_futex_is_told_apart_by_its_operation_without_its_flags() {
        assert_eq!(meaning(202, &[0, 128, 2, 0]), Call::FutexWait);
        assert_eq!(meaning(202, &[0, 9 | 128 | 256, 0, 0]), Call::FutexWait);
        assert_eq!(meaning(202, &[0, 6 | 128, 0, 0]), Call::FutexLockPi);
        assert_eq!(meaning(202, &[0, 1 | 128, 0, 0]), Call::FutexOther);
    }

    #[test]
    fn calls_that_mean_a_descriptor_have_one_in_front() {
        for number in [0, 1, 43, 45, 74, 233] {
            assert_eq!(class(number), call_class::CALL_FD, "call {number}");
        }
        for number in [35, 61, 230] {
            assert_eq!(class(number), call_class::CALL_PLAIN, "call {number}");
        }
    }

    #[test]
    fn every_call_that_polls_is_looked_at_as_one() {
        for number in 0..512 {
            let expected = match meaning(number, &[0; 4]) {
                Call::EpollWait => call_class::CALL_EPOLL,
                Call::Poll => call_class::CALL_POLL,
                Call::Select => call_class::CALL_SELECT,
                _ => continue,
            };
            assert_eq!(class(number), expected, "call {number}");
        }
    }
}
